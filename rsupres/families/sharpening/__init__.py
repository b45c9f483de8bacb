"""Sharpen the 20 m bands of Sentinel-2 with its 10 m bands, by a small network."""
