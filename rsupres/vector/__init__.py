"""Vector maps become pixels on the SR grid."""
