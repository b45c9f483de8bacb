"""Upscale scenes and arrays: from a request to finished strips and outputs.

A request (`request`, `job`) is settled in `preparation`, before the first tile.
`pipeline` runs it: `inference` computes strips, `finishing` gives them their type,
`outputs` names and tags the files, `gates` judges the result. `estimates` says what a
job would cost; `array` and `memory` do the same work for arrays instead of files.
"""
