"""Everything that only training needs; nothing outside `rsupres.cli` imports it."""
