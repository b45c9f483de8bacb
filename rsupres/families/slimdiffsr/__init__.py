"""SlimDiffSR: one diffusion step, by a pruned student."""
