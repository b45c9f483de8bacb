"""Write arrays to files: complete or absent, by runs that can be resumed."""
