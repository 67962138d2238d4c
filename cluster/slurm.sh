#!/bin/bash
# RL-MBA on Slurm: every node starts Ray, the first one trains.
#
#   sbatch cluster/slurm.sh train --dataset emoji --out "$SCRATCH/runs/emoji" \
#       --num-env-runners 4 --num-gpus-per-env-runner 0.5
#
# Submit it in the checkout, after `make install` and `.venv/bin/pip install -c constraints.txt -e ".[cluster]"` there,
# on a file system that the nodes share; --out too must lie on one.
#SBATCH --job-name=rl-mba
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=02:00:00
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
export OMP_NUM_THREADS=1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))

srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    .venv/bin/ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" -- .venv/bin/python run.py "$@"
