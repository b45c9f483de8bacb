"""Compare: models image by image, results with limits, and with the papers' tables."""
