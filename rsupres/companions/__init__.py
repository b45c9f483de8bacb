"""Files made from a finished output: STAC item, quicklook, style for QGIS."""
