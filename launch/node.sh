#!/usr/bin/env bash
# Makes this machine a node of a Ray cluster: `bash launch/node.sh head` its first, whose address it prints, and
# `bash launch/node.sh HOST:PORT` a further one. More arguments go to `ray start`.
# The nodes share a secret, ~/.ray/auth_token, which the head makes: copy it where the home folder is not shared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -gt 0 ] || {
    echo 'node.sh: say `head`, or the HOST:PORT that the head has printed' >&2
    exit 2
}
bash launch/setup.sh
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_process_group_cleanup_enabled=1 # off by default, and without it processes outlive a killed actor
mkdir -p ~/.ray
chmod 700 ~/.ray
.venv/bin/python -m launch.hardware.network
if [ "$1" = head ]; then
    [ -e ~/.ray/auth_token ] || .venv/bin/ray get-auth-token --generate >/dev/null
    exec .venv/bin/ray start --head --dashboard-host=127.0.0.1 "${@:2}"
fi
[ -e ~/.ray/auth_token ] || {
    echo "node.sh: ~/.ray/auth_token is missing: copy it from the head of the cluster" >&2
    exit 2
}
exec .venv/bin/ray start --address="$1" "${@:2}"
