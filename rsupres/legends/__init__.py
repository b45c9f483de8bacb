"""Legends shipped as TOML files, and what codes and colours mean."""
