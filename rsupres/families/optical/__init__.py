"""One model for optical imagery of any sensor and band, which takes facts of both."""
