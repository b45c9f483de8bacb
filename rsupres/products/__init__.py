"""Read the metadata of products: files, radiometry, nodata, masks.

A product is a set of files with metadata beside them: a `.SAFE` folder, a scene of
Landsat, a STAC item. This package reads the metadata and does arithmetic on arrays; it
opens no raster. `rsupres.raster.product` opens what is described here.
"""
