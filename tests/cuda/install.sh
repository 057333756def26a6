#!/usr/bin/env bash
# Create .venv-cuda with the CUDA builds of launch/locks/cuda.txt, which need no GPU to be installed, and with uv.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=.venv-cuda log=.venv-cuda/install.log
wanted="$PWD $(cat pyproject.toml launch/locks/cuda.txt tests/cuda/install.sh | sha256sum)"
if [ "$(cat $venv/installed 2>/dev/null)" = "$wanted" ]; then exit; fi

refuse() { # sentence
    printf 'test: %s\n' "$1" >&2
    exit 2
}

command -v cc >/dev/null || refuse 'no C compiler is on the PATH: install one (Debian, Ubuntu: apt install gcc python3-dev)'
[ -e $log ] || [ "$(df -Pk . | awk 'NR == 2 {print $4}')" -gt 25000000 ] || refuse "the CUDA builds need up to 25 GB while they are installed, and $PWD has less: free some"
for python in python3.11 python3.12 python3.13 none; do
    if "$python" -m venv $venv 2>/dev/null; then break; fi
done
[ $python != none ] || refuse 'no Python 3.11, 3.12 or 3.13 with its venv module is on the PATH: install one'
mkdir -p $venv/tmp
torch=$(sed -n 's/^ *"torch==\([0-9.]*\)".*/torch===\1/p' pyproject.toml) # not a build for the CPU that pip's configuration knows
TMPDIR=$PWD/$venv/tmp $venv/bin/python -m pip install --no-input --progress-bar off \
    uv "$torch" --constraint launch/locks/cuda.txt --editable '.[cuda,dev]' >$log 2>&1 &
trap 'kill $! 2>/dev/null || true' EXIT
while kill -0 $! 2>/dev/null; do
    printf '%s has %.1f of about 10 GB after %d s\n' $venv "$(du -sk $venv | awk '{print $1 / 1048576}')" $SECONDS
    sleep 15
done
wait $! || { tail -n 12 $log >&2 && refuse "pip could not install the CUDA builds (the whole log is $log)"; }
rm -rf $venv/tmp
printf '%s\n' "$wanted" >$venv/installed
