"""Cut scenes into folders of georeferenced tiles, upscale those, and blend them."""
