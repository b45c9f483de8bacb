"""Vector maps become pixels on the SR grid."""

LIVE = "overpass"  # as a vector map: OpenStreetMap, downloaded for the scene
