"""Training of SGDM."""
