"""Statistics of change: what unchanged ground looks like, and what is built."""
