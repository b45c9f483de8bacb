"""Windows in and around scenes, and a rotated transform."""

from __future__ import annotations

from affine import Affine
from hypothesis import strategies as st

from rsupres.grid import PixelWindow

ROTATED = Affine.translation(4e5, 5.2e6) @ Affine.rotation(30) @ Affine.scale(10, -10)
windows = st.builds(
    PixelWindow,
    st.integers(-60, 60),
    st.integers(-60, 60),
    st.integers(1, 70),
    st.integers(1, 70),
)
