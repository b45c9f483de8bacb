"""Images, their sidecar files, and packs of training crops."""
