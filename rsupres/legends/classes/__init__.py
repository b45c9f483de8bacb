"""Class tables shipped with the package, as TOML files; read by `rsupres.classes`."""
