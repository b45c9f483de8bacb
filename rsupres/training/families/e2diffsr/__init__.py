"""Training of E2DiffSR."""
