#!/usr/bin/env bash
# From nothing to a trained model: sets everything up, then runs the recipe `quickstart`.
# `bash launch/quickstart.sh [key=value …]`; settings are passed on to launch/run.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash launch/setup.sh
if [ $# -eq 0 ] && .venv/bin/python -m launch.result runs/quickstart; then
    echo 'To run it again: bash launch/quickstart.sh run.overwrite=true'
    exit 0
fi
exec .venv/bin/python launch/run.py conf=quickstart "$@"
