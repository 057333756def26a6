#!/usr/bin/env bash
# Set everything up, then check style, types and behaviour.
#
#     bash launch/test.sh [quick] [--all] [isa=avx2|avx512|native] [pytest arguments …]
#     bash launch/test.sh cuda [A40|RTX3060|packages …]
#
# `quick` is for every change: style, types, and the tests that have no model and start no engine, no Ray and no other
# Python. It takes about two minutes.
#
# `cuda` asks the CUDA builds, which it loads into .venv-cuda (10 GB), what they make of our settings, on a machine without
# a GPU. Nothing computes on a GPU. It takes a few minutes.
#
# With isa=avx2 or isa=avx512 (without bfloat16), torch, oneDNN and vLLM behave in all processes as on a CPU with only
# these instructions; style and types are not checked. Without pytest arguments, the tests run in two processes where
# there are two cores. mypy and import-linter work beside them, and their output comes last.
#
# Examples:
#
#     bash launch/test.sh quick                     # about two minutes on two slow cores
#     bash launch/test.sh                           # about thirteen minutes
#     bash launch/test.sh --all                     # with the tests that take minutes
#     bash launch/test.sh tests/learner -k losses   # some of them
#     bash launch/test.sh isa=avx2 tests/learner    # as on an older CPU
set -euo pipefail
case "${1-}" in -h | --help | help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

refuse() { # sentence
    printf 'test: %s\n' "$1" >&2
    exit 2
}

if [ "${1-}" = cuda ]; then
    bash tests/cuda/install.sh
    exec .venv-cuda/bin/python -m tests.cuda "${@:2}"
fi
selection=(-m 'not slow')
isa=native
while :; do
    case "${1-}" in
    quick) selection=(--quick) ;;
    --all) selection=() ;;
    isa=*) isa=${1#isa=} ;;
    *) break ;;
    esac
    shift
done
case $isa in
native) ;;
avx2 | avx512) grep -qw "${isa/512/512vl}" /proc/cpuinfo || refuse "isa=$isa: this CPU has no such instructions; leave isa out" ;;
*) refuse "isa=$isa is not known; give avx2, avx512 or native" ;;
esac

export GOMP_SPINCOUNT=1000 # next to other work, OpenMP's spinning threads take ten times as long
bash launch/setup.sh dev
checking= # process with the checks that are carried out beside the tests
if [[ "${1-}" = tests/gpu* ]]; then
    : # who rents a GPU does not pay for style and types
elif [ $isa = native ]; then
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    said=$(mktemp)
    trap 'kill -- "-$checking" 2>/dev/null || true; rm -f "$said"' EXIT
    trap 'exit 130' INT
    set -m # in a process group of its own, which ends with this script
    (.venv/bin/mypy && .venv/bin/lint-imports --no-logo) >"$said" 2>&1 &
    checking=$!
    set +m
else
    export TEST_ISA=$isa PYTHONPATH=$PWD/tests/isa${PYTHONPATH:+:$PYTHONPATH}
fi
workers=() # tests/conftest.py says which tests stay together
if [ $# = 0 ] && [ "$(nproc)" -ge 2 ]; then workers=(-n 2 --no-loadscope-reorder); fi
code=0
.venv/bin/python -m pytest --durations=15 "${workers[@]}" "${selection[@]}" "$@" || code=$?
if [ -n "$checking" ]; then
    wait $checking || code=$((code ? code : 1))
    cat "$said"
fi
exit $code
