"""Read rasters: files become numbers and a valid mask.

`open` finds and checks files, `dataset` reads windows of one, `stack` joins several,
`nodata` decides which pixels are valid and fills the others. `bands` and `stretch` turn
numbers into what a model takes. `reading` is the inside of `dataset`, `place` puts
rasters and areas on the grid of another, `product` opens products with their metadata.
"""
