"""Formats of outputs, GeoTIFF and COG first: types, tags, blocks, errors, checks."""
