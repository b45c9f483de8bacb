"""HR images become LR images, for training and for tests."""
