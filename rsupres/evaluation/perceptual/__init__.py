"""Perceptual measures with weights that the user has; nothing is downloaded."""
