"""Arrays become files: complete or absent, and resumable."""
