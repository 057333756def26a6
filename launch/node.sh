#!/usr/bin/env bash
# Turn this machine into a node of a Ray cluster.
#
#     bash launch/node.sh head | HOST:PORT [arguments of `ray start` …]
#
# Examples:
#
#     bash launch/node.sh head                          # the first node; prints the address
#     bash launch/node.sh 10.0.0.1:6379                 # a further one
#     bash launch/node.sh head --dashboard-host=0.0.0.0
#
# The nodes share a secret, ~/.ray/auth_token, which the head creates. Copy it to the others unless they share the home.
set -euo pipefail
case "${1-}" in "" | -h | --help | help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash launch/setup.sh
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0 # with Ray's 15, other programs on the machine starve the actors
export RAY_process_group_cleanup_enabled=1 # off by default; without it, processes outlive a killed actor
mkdir -p ~/.ray
chmod 700 ~/.ray
echo "Ray's ports on this node are open on all its addresses to everyone with the token, ~/.ray/auth_token."
echo "On a machine that the internet can reach, admit only your nodes, for instance by"
echo "    sudo iptables -I INPUT -p tcp --dport 1024:65535 -m conntrack --ctstate NEW" \
    "! -s NETWORK_OF_YOUR_NODES ! -i lo -j DROP"
if [ "$1" = head ]; then
    [ -e ~/.ray/auth_token ] || .venv/bin/ray get-auth-token --generate >/dev/null
    exec .venv/bin/ray start --head --dashboard-host=127.0.0.1 "${@:2}"
fi
[ -e ~/.ray/auth_token ] || {
    echo "node.sh: ~/.ray/auth_token is missing: copy it from the head of the cluster" >&2
    exit 2
}
exec .venv/bin/ray start --address="$1" "${@:2}"
