"""Weight files, their cards, and the conversion of files that authors released.

The package is small (three modules) because each family builds its own networks; the
converters of released files are in `convert`.
"""
