# For machines without a GPU. Give these commands in the project's folder; the volume keeps models of the Hub:
#   docker build -f launch/cloud/cpu.Dockerfile -t microbudget:cpu .
#   docker run --rm --shm-size=4g -v "$PWD/runs:/project/runs" -v microbudget:/cache microbudget:cpu run conf=quickstart
FROM python:3.12-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ procps \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /project
COPY . .
ENV PIP_NO_CACHE_DIR=1 XDG_CACHE_HOME=/cache
# Compiled here, since a container would compile Python's modules at each start.
ENV UV_COMPILE_BYTECODE=1
RUN bash launch/setup.sh

ENTRYPOINT [".venv/bin/microbudget"]
CMD ["help"]
