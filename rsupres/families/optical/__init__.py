"""One model for optical imagery of any sensor and band, told what is known of both."""
