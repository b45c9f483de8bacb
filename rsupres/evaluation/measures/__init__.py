"""Measures beyond the usual ones, which are computed when they are asked for."""
