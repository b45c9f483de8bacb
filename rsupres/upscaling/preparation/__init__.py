"""Settle a job before the first tile: scene, bands, model, device, tiling, checks."""
