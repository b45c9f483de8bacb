"""Weight files, their cards, and the conversion of files that authors released."""
