#!/usr/bin/env bash
# From nothing to a trained model: set everything up, then run the recipe `quickstart`.
#
#     bash launch/quickstart.sh [key=value …]
#
# Examples:
#
#     bash launch/quickstart.sh
#     bash launch/quickstart.sh run.overwrite=true
#     bash launch/quickstart.sh run.name=longer budget.minutes=30
#
# Settings are passed to launch/run.py; its help explains them: python launch/run.py help
set -euo pipefail
case "${1-}" in -h | --help | help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash launch/setup.sh
finished='"status": "(completed|budget_exhausted)"'
if [ $# -eq 0 ] && grep -qsE "$finished" runs/quickstart/summary.json; then
    .venv/bin/python launch/report.py runs/quickstart
    echo 'To run it again: bash launch/quickstart.sh run.overwrite=true'
    exit 0
fi
exec .venv/bin/python launch/run.py conf=quickstart "$@"
