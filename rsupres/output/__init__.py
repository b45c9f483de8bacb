"""Write arrays to files: complete or absent, by runs that can be resumed.

`atomic` makes files appear whole, `protect` keeps inputs from being overwritten,
`run_dir` resumes runs, `strips` writes a raster strip by strip, and `tiff` knows the
formats.
"""
