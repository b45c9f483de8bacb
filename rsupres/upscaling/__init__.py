"""The main job: from a request to finished strips, and what that would cost."""
