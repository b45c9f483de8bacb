"""Find where the land changed, and into which class, on the SR grid."""
