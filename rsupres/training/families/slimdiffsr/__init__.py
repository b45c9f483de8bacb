"""Training of SlimDiffSR."""
