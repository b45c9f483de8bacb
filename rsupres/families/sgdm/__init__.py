"""SGDM: Stable Diffusion with a map as content guide and a style."""
