#!/bin/bash
# The scenes of a list by an array of tasks, each of which computes a share of every scene:
#   sbatch examples/slurm_batch.sh /shared/scenes.txt /shared/sharp --scale 4
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
list=$1 folder=$2
shift 2
exec rsupres batch "@$list" --out-dir "$folder" "$@" --threads "$SLURM_CPUS_PER_TASK" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
