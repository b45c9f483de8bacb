"""Measures of a super-resolved picture; knows no models and opens no rasters."""
