"""Batches: upscale many scenes, or folders of tiles, with a journal of each attempt."""
