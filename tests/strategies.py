"""Hypothesis strategies that several test modules draw from."""

from __future__ import annotations

from fractions import Fraction

from affine import Affine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from rsupres.grid import Grid
from rsupres.tile_grid import TileGrid, lr_step

# For a property whose examples take a tenth of a second: a fifth of the usual number.
COSTLY = settings(
    max_examples=settings().max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
UTM = CRS.from_epsg(32631)
# Some letters, signs and breaks: all of Unicode takes a second to prepare.
LETTERS = 'aZ9 _-.<>()/"\\\n\t\0é\N{SNOWMAN}'
SCALES = [Fraction(*pair) for pair in [(1, 1), (2, 1), (4, 1), (5, 2), (10, 3), (9, 8)]]


def make_grid(height: int, width: int, crs: CRS = UTM) -> Grid:
    """Return a north-up frame of 10 m pixels."""
    return Grid(crs, Affine(10.0, 0.0, 499980.0, 0.0, -10.0, 5700000.0), height, width)


@st.composite
def tile_grids(draw: st.DrawFn) -> TileGrid:
    """Draw tilings of scenes from a part of a tile to several, any overlap and halo."""
    scale = draw(st.sampled_from(SCALES))
    multiple = draw(st.sampled_from([1, 1, 2, 4]))
    step = lr_step(scale, multiple)
    n_steps = draw(st.integers(1, max(2, 20 // step)))
    overlap = draw(st.integers(0, n_steps - 1)) * step
    halo = draw(st.integers(0, max(0, (overlap - 1) // 2)))
    size = n_steps * step
    sides = st.integers(1, 3 * size + 1)
    scene = make_grid(draw(sides), draw(sides))
    return TileGrid.plan(scene, scale, size, overlap, halo, multiple)
