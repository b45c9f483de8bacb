"""Upscale scenes and arrays: from a request to finished strips and outputs.

The package has more than twelve modules, because one run has many steps and each has
its own: the request (`request`, `job`), what it means (`work`, `model`, `requirements`,
`tiling`, `devices`, `injection`, `gates`), running it (`pipeline`, `context`,
`inference`, `finishing`, `outputs`), estimating it (`planning`), arrays instead of
files (`array`, `memory`) and a test of the installation (`self_test`).
"""
