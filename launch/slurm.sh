#!/usr/bin/env bash
#SBATCH --job-name=microbudget-rl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:30:00
#SBATCH --signal=B:TERM@300
#
# Start a Ray cluster within a Slurm job, and carry out a run on it.
#
#     sbatch launch/slurm.sh conf=NAME [key=value …]
#
# Examples:
#
#     sbatch launch/slurm.sh conf=r64_instruct
#     sbatch launch/slurm.sh conf=r256_instruct run.name=second run.seed=1
#     sbatch --nodes=1 --gpus-per-node=4 launch/slurm.sh conf=r64_instruct
#
# Submit it from the project's folder, on a file system that all nodes share. The same command resumes the run.
set -euo pipefail
case "${1-}" in "" | -h | --help | help)
    sed -n '/^#$/,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"

bash launch/setup.sh
port=$((20000 + SLURM_JOB_ID % 20000)) # another job's cluster may be on the same node
address=$(hostname -I | cut -d ' ' -f 1):$port

bash launch/node.sh head --port="$port" --include-dashboard=false --block &
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$(hostname -s)" \
        bash -c 'until bash launch/node.sh "$0" --block; do sleep 5; done' "$address" &
fi
export RAY_AUTH_MODE=token
active() { .venv/bin/ray status --address="$address" 2>/dev/null | sed -n '/^Active:/,/^Pending:/p' | grep -c ' node_'; }
for ((wait = 0; $(active || true) < SLURM_JOB_NUM_NODES; wait++)); do
    [ $wait -lt 60 ] || {
        echo "slurm.sh: not all of $SLURM_JOB_NUM_NODES nodes have joined $address within 5 minutes" >&2
        exit 1
    }
    sleep "${PAUSE_S:-5}"
done

RAY_ADDRESS=$address .venv/bin/python launch/run.py "$@" &
run=$!
trap 'kill -TERM $run' TERM # Slurm sends it before the time limit: the run writes its checkpoint
code=0
wait $run || code=$?
if kill -0 $run 2>/dev/null; then
    code=0
    wait $run || code=$?
fi
kill $(jobs -p) 2>/dev/null || true
exit $code
