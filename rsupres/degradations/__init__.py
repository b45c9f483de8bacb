"""Degradations: compute LR images from HR images, for training and test sets."""
