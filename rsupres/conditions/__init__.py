"""Read maps, references, change masks and styles by window beside a scene."""
