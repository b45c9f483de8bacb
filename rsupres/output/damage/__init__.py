"""Find damage in run directories by checksums, and remove what has to be made again."""
