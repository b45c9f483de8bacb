"""Put rasters and areas in their places on the grid of a scene."""
