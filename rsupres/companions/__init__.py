"""Files made of an output when it is there: STAC item, quicklook, style for QGIS."""
