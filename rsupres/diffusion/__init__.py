"""Diffusion without networks: schedules, samplers and noise that knows its place."""
