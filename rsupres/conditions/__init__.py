"""Maps, references, change masks and styles, read by window beside a scene."""
