"""Training of Ref-Diff."""
