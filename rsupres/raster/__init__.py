"""Raster files become numbers and a valid mask."""
