"""Ref-Diff: an earlier image as reference, gated by a change mask."""
