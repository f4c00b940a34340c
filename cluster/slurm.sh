#!/usr/bin/env bash
# A search as one Slurm job: a Ray cluster of the allocated nodes, the driver on the first of them.
#
#   sbatch cluster/slurm.sh CONFIG --pool /shared/pools/run1 [--set section.key=value]...
#
# from the folder of this project, with the words of `nao-ray search`. At its time limit, and when it is preempted, the
# job stops the search, goes back into the queue and goes on where it stopped: the pool is all it needs.
#
# ---- change here ------------------------------------------------------------------------------------------------
#SBATCH --job-name=nao-ray
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=nao-ray-%j.log
VENV=${VENV:-$SLURM_SUBMIT_DIR/.venv}  # on a file system that every node sees, as are the pool and the data
# -----------------------------------------------------------------------------------------------------------------
#
# Token: ~/.ray/auth_token, made by the job if it is missing, mode 600; home must be shared by the nodes.
# Firewall: Ray's ports (those of machine.sh) are open to whoever reaches the nodes. Calls without the token are
# refused there; the metrics answer anyone, and nothing is encrypted. --exclusive keeps other jobs off these nodes.
set -euo pipefail

machine=$SLURM_SUBMIT_DIR/cluster/machine.sh
export PATH=$VENV/bin:$PATH RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
export TEMP_DIR=${TEMP_DIR:-/tmp/ray-$SLURM_JOB_ID} GCS_PORT=${GCS_PORT:-6379}
export NUM_CPUS=${NUM_CPUS:-$SLURM_CPUS_PER_TASK} STATE_DIR=$HOME/.ray/nao_ray-$SLURM_JOB_ID
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')

# shellcheck disable=SC2317  # called by the trap
finish() {
    if [[ -n ${nodes:-} ]]; then
        kill -TERM "$nodes" 2>/dev/null || true
        wait "$nodes" || true
    fi
    bash "$machine" down
    rm -rf "$STATE_DIR"
}
trap finish EXIT

bash "$machine" up
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        --exclude="$head" bash "$machine" run "$head:$GCS_PORT" &
    nodes=$!
fi

# In the background, for a shell that waits for a command in the foreground does not hear Slurm's signal.
# --wait: after a node was lost the job comes back before the pool's lease has run out. notice_seconds: trials that run
# may end within it; half a minute less than --signal above.
RAY_ADDRESS=$head:$GCS_PORT nao-ray search --wait 60 --set workers.notice_seconds=150 "$@" &
driver=$!
asked=
trap 'asked=yes; kill -TERM "$driver" 2>/dev/null || true' TERM
code=0
wait "$driver" || code=$?
if [[ -n $asked ]]; then  # `wait` ended for the signal, the search has yet to
    code=0
    wait "$driver" || code=$?
    ((code != 130 && code != 143)) || scontrol requeue "$SLURM_JOB_ID"  # interrupted, not finished or failed
fi
exit "$code"
