#!/usr/bin/env bash
# Set everything up, then check style, types and behaviour.
#
#     bash launch/test.sh [--all] [pytest arguments …]
#
# Examples:
#
#     bash launch/test.sh                           # about a quarter of an hour on two cores
#     bash launch/test.sh --all                     # with the tests that take minutes
#     bash launch/test.sh tests/learner -k losses   # some of them
set -euo pipefail
case "${1-}" in -h | --help | help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

selection=(-m 'not slow')
if [ "${1-}" = --all ]; then
    selection=()
    shift
fi
export GOMP_SPINCOUNT=1000 # beside other work, threads of OpenMP that spin while they wait take ten times as long
bash launch/setup.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports --no-logo
exec .venv/bin/python -m pytest --durations=15 "${selection[@]}" "$@"
