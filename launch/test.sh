#!/usr/bin/env bash
# Sets everything up, then checks style, types and behaviour.
# `bash launch/test.sh [--all] [pytest arguments …]`; --all includes the tests that take minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

selection=(-m 'not slow')
if [ "${1-}" = --all ]; then
    selection=()
    shift
fi
bash launch/setup.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports --no-logo
exec .venv/bin/python -m pytest --durations=15 "${selection[@]}" "$@"
