"""E2DiffSR: latent diffusion of the HR-LR difference, at any scale."""
