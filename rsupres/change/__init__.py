"""Where and into what the land changed, on the SR grid."""
