# For NVIDIA GPUs of compute capability 8 or higher, with driver 580 or newer. Give these commands in the project's
# folder; the volume keeps models of the Hub:
#   docker build -f launch/cloud/cuda.Dockerfile -t microbudget:cuda .
#   docker run --rm --gpus all --shm-size=16g -v "$PWD/runs:/project/runs" -v microbudget:/cache microbudget:cuda run conf=r64_instruct
# There is no GPU while an image is built. The first run checks it.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ procps python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /project
COPY . .
ENV PIP_NO_CACHE_DIR=1 XDG_CACHE_HOME=/cache
RUN python3 -m venv .venv \
    && .venv/bin/pip install --constraint launch/locks/cuda.txt --editable ".[cuda]" \
    && .venv/bin/python -m microbudget_rl.launch.bundled

ENTRYPOINT [".venv/bin/microbudget"]
CMD ["help"]
