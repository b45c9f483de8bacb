"""Read rasters: files become numbers and a valid mask.

`open` finds and checks files, `header` reads what they say about their bands, `dataset`
reads windows, `nodata` decides which pixels are valid and fills the others, `stack`
joins files. `bands` and `stretch` turn them into what a model takes; `extent`, `warp`,
`registration` and `blocks` place rasters on each other; `product` opens products.
Many modules, as each of these subjects is read alone.
"""
