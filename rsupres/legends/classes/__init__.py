"""Class tables shipped with the package; `legends.class_table` reads them."""
