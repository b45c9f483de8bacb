"""Legends shipped with the package, as TOML files; `rsupres.legend` reads them."""
