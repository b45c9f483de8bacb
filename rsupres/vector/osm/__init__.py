"""Read OpenStreetMap: its files, its tags in other files, and its server Overpass."""
