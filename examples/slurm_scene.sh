#!/bin/bash
# One scene by an array of tasks, each of which computes a share of the strips:
#   sbatch examples/slurm_scene.sh /shared/scene.tif /shared/scene_x4.tif --scale 4
# The tasks may run in any order and at any time; the last one writes the output.
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
exec rsupres upscale "$@" --update --threads "$SLURM_CPUS_PER_TASK" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
