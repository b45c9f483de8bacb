"""Parts of `raster.dataset`: header, pixels as stored, other readings, fingerprint."""
