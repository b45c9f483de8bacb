"""Optional compiled loops that make inference on a CPU faster; see README.md here.

Other packages call `rsupres.kernels.door` only. It imports the rest, and with it numba,
when a kernel is first used.
"""
