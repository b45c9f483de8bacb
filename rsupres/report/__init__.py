"""Pages to look at: of one result, of a batch, of models side by side, of a mosaic.

`request` makes the page of one result, `batch_index` that of a batch, `models_page`
that of an evaluation; `view` serves a whole mosaic to a browser of this machine.
"""
