"""Statistics of change: those of unchanged ground, and tests for new buildings."""
