"""Folders of georeferenced tiles: cut, indexed, run in batches, blended."""
