"""Figures of pictures that need no network."""
