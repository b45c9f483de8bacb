"""Read legends and class tables in TOML: the meaning of codes and colours.

Four modules besides the TOML files that are shipped.
"""
