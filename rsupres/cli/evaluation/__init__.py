"""Commands that measure results and show them."""
