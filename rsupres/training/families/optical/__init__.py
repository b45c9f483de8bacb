"""Training of optical models: the mean, draws, and the reading of a scene's sensor."""
