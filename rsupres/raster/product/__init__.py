"""Open products as one raster: find their files, join them, sharpen coarse bands."""
