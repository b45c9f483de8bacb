"""Windows, frames and tilings are exact."""

from __future__ import annotations

import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.crs import CRS

from rsupres.errors import GridError
from rsupres.grid import Grid, PixelWindow, reflected_positions
from rsupres.tile_grid import Border, TileGrid, lr_step
from tests.strategies import SCALES, UTM, make_grid, tile_grids

windows = st.builds(
    PixelWindow,
    st.integers(-20, 20),
    st.integers(-20, 20),
    st.integers(1, 20),
    st.integers(1, 20),
)


@given(windows, windows)
def test_intersection_holds_exactly_the_common_pixels(
    one: PixelWindow, other: PixelWindow
) -> None:
    def pixels(window: PixelWindow | None) -> set[tuple[int, int]]:
        if window is None:
            return set()
        rows = range(window.row, window.row_stop)
        return {(r, c) for r in rows for c in range(window.col, window.col_stop)}

    assert pixels(one.intersection(other)) == pixels(one) & pixels(other)


@given(windows, st.sampled_from(SCALES))
def test_scaled_is_exact_or_refused(window: PixelWindow, scale: Fraction) -> None:
    exact = [side * scale for side in window]
    if all(side.denominator == 1 for side in exact):
        assert window.scaled(scale) == tuple(exact)
    else:
        with pytest.raises(GridError, match=f"multiples of {scale.denominator}"):
            window.scaled(scale)


def test_slices_cut_the_window_and_refuse_negative_starts() -> None:
    array = np.arange(30).reshape(5, 6)
    assert array[PixelWindow(1, 2, 2, 3).slices()].tolist() == [
        [8, 9, 10],
        [14, 15, 16],
    ]
    for window in (PixelWindow(-1, 0, 2, 2), PixelWindow(0, -1, 2, 2)):
        with pytest.raises(GridError, match="outside"):
            window.slices()


def test_relative_to_moves_the_corner_only() -> None:
    window = PixelWindow(10, 20, 3, 4).relative_to(PixelWindow(7, 22, 1, 1))
    assert window == PixelWindow(3, -2, 3, 4)


def test_crop_moves_the_origin_of_a_rotated_grid() -> None:
    transform = Affine(10.0, 2.0, 500.0, -2.0, -10.0, 900.0)
    part = Grid(UTM, transform, 50, 60).crop(PixelWindow(5, 7, 11, 13))
    assert (part.height, part.width) == (11, 13)
    assert part.transform[:6] == (10.0, 2.0, 580.0, -2.0, -10.0, 836.0)


@pytest.mark.parametrize(
    "window", [(0, 0, 0, 5), (-1, 0, 3, 3), (3, 0, 8, 3), (0, 5, 3, 6), (30, 30, 2, 2)]
)
def test_crop_refuses_windows_beyond_the_frame(window: tuple[int, ...]) -> None:
    with pytest.raises(GridError, match="reaches beyond"):
        make_grid(10, 10).crop(PixelWindow(*window))


def test_refine_keeps_the_corner_and_divides_the_pixel_exactly() -> None:
    fine = make_grid(7, 10).refine(Fraction(10, 3))
    assert (fine.height, fine.width) == (23, 33)
    assert fine.transform[:6] == (3.0, 0.0, 499980.0, 0.0, -3.0, 5700000.0)
    assert make_grid(7, 10).refine(Fraction(4)).transform.a == 2.5


def test_refine_refuses_scales_that_leave_nothing() -> None:
    for scale in (Fraction(0), Fraction(-2), Fraction(1, 11)):
        with pytest.raises(GridError):
            make_grid(10, 10).refine(scale)


@given(st.integers(1, 50), st.integers(0, 30), st.sampled_from(SCALES))
def test_refining_and_cropping_commute(side: int, start: int, scale: Fraction) -> None:
    # Pixels of 9.6 m, whose refinements are not binary fractions.
    scene = Grid(UTM, Affine(9.6, 0.0, 4.0, 0.0, -9.6, 8.0), 90, 90)
    step = scale.denominator
    window = PixelWindow(start, start, side, side).scaled(Fraction(step))
    assume(window.row_stop <= 90)
    one = scene.crop(window).refine(scale)
    other = scene.refine(scale).crop(window.scaled(scale))
    assert (one.height, one.width) == (other.height, other.width)
    assert one.transform.almost_equals(other.transform, precision=1e-9)


def test_gsd_of_metres_feet_and_degrees() -> None:
    assert make_grid(10, 10).gsd_m == 10.0
    rotated = Affine(2.4, 7.2, 0.0, 3.2, -5.4, 0.0)  # axes of 4 m and 9 m
    assert Grid(UTM, rotated, 5, 5).gsd_m == pytest.approx(6.0)
    new_york = Affine(10.0, 0.0, 987000.0, 0.0, -10.0, 190000.0)  # feet
    assert Grid(CRS.from_epsg(2263), new_york, 5, 5).gsd_m == pytest.approx(3.048006096)
    # One degree at 60 degrees north: 111.412 km along the meridian, 55.800 km across.
    degrees = Affine(0.001, 0.0, 10.0, 0.0, -0.001, 60.005)
    gsd_m = Grid(CRS.from_epsg(4326), degrees, 10, 10).gsd_m
    assert gsd_m == pytest.approx(math.sqrt(111.412 * 55.800), rel=1e-4)


@pytest.mark.parametrize(
    ("crs", "x", "y", "side", "gsd_m"),
    [
        # Mercator on the sphere: k = secant of the latitude; what the ellipsoid adds
        # is 0.04 and 0.13 % at 60 degrees, so 1 / k = 0.500417 and 0.501259.
        ("EPSG:3857", 0.0, 0.0, 10.0, 10.0),
        (
            "EPSG:3857",
            1_100_000.0,
            8_399_738.0,
            10.0,
            10 * math.sqrt(0.500417 * 0.501259),
        ),
        ("EPSG:3857", 9_519_849.7, -3_203_017.2, 0.298582, 0.264014),
        # Polar stereographic, true at 70 degrees: k at the pole is 0.969858.
        ("EPSG:3413", 0.0, 0.0, 100.0, 100 / 0.969858),
        # Equal areas keep the pixel's, however much they bend its shape.
        ("EPSG:6933", 1e6, 6.347e6, 1000.0, 1000.0),
        ("+proj=sinu +R=6371007.181 +units=m", 8e6, 5.5e6, 463.3127, 463.3127),
        ("EPSG:32633+5773", 5e5, 5.4e6, 10.0, 10.0),  # with heights
        ("EPSG:32633", 3.8e5, 5.4e6, 10.0, 10.0),
        # Transverse Mercator on the sphere: k = 0.9996 cosh(easting / 0.9996 R).
        ("EPSG:32631", 2_442_000.0, 0.0, 10.0, 10 / (0.9996 * math.cosh(0.30459))),
        (
            "+proj=eqc +R=1737400 +units=m",
            0.0,
            909_700.0,
            100.0,
            100 * math.sqrt(0.8660),
        ),
        ('LOCAL_CS["site",UNIT["foot",0.3048]]', 0.0, 0.0, 10.0, 3.048),
    ],
)
def test_gsd_is_that_of_the_ground_at_the_centre(
    crs: str, x: float, y: float, side: float, gsd_m: float
) -> None:
    n = 40
    corner = Affine(side, 0.0, x - side * n / 2, 0.0, -side, y + side * n / 2)
    grid = Grid(CRS.from_user_input(crs), corner, n, n)
    assert grid.gsd_m == pytest.approx(gsd_m, rel=2e-3)
    if gsd_m == side:
        assert grid.gsd_m == pytest.approx(side, rel=1e-12)


def test_gsd_beyond_the_places_of_a_projection_is_the_nominal_one() -> None:
    far = Affine(10.0, 0.0, 5e5, 0.0, -10.0, 2e7)
    assert Grid(UTM, far, 5, 5).gsd_m == 10.0
    pole = Affine(0.001, 0.0, 0.0, 0.0, -0.001, 90.0025)
    gsd_m = Grid(CRS.from_epsg(4326), pole, 5, 5).gsd_m
    assert gsd_m == pytest.approx(111.195, rel=1e-4)


def test_a_grid_off_the_ground_has_no_gsd() -> None:
    with pytest.raises(GridError, match="without CRS"):
        _ = Grid(None, Affine.identity(), 5, 5).gsd_m


@pytest.mark.parametrize(
    ("scale", "multiple", "step"),
    [("4", 1, 1), ("5/2", 1, 2), ("10/3", 8, 12), ("4", 8, 2), ("9/8", 4, 32)],
)
def test_lr_step_is_the_smallest_that_fits(
    scale: str, multiple: int, step: int
) -> None:
    fits = [
        side
        for side in range(1, 100)
        if (side * Fraction(scale)).denominator == 1
        and side * Fraction(scale) % multiple == 0
    ]
    assert lr_step(Fraction(scale), multiple) == step == fits[0]


@given(tile_grids())
def test_every_pixel_lies_in_a_tile_and_every_tile_in_the_frame(grid: TileGrid) -> None:
    covered = np.zeros((grid.sr.height, grid.sr.width), bool)
    for tile in grid:
        assert tile.sr.intersection(grid.sr.window) == tile.sr
        assert tile.sr == tile.lr.scaled(grid.scale)
        assert (tile.lr.height, tile.lr.width) == grid.tile_shape
        covered[tile.sr.slices()] = True
    assert covered.all()


@given(tile_grids())
def test_tiles_start_at_multiples_of_the_stride_but_the_last(grid: TileGrid) -> None:
    n_rows, n_cols = grid.shape
    stride = grid.size - grid.overlap
    for tile in grid:
        if tile.row < n_rows - 1:
            assert tile.lr.row == tile.row * stride
        if tile.col < n_cols - 1:
            assert tile.lr.col == tile.col * stride
    last = grid[len(grid) - 1]
    assert (last.lr.row_stop, last.lr.col_stop) == (grid.lr.height, grid.lr.width)
    assert n_rows == 1 or 0 < last.lr.row - (n_rows - 2) * stride <= stride


@given(tile_grids())
def test_the_frame_is_padded_to_whole_steps(grid: TileGrid) -> None:
    for padded, scene in (
        (grid.lr.height, grid.scene.height),
        (grid.lr.width, grid.scene.width),
    ):
        sides = [tile.lr for tile in grid]
        step = math.gcd(padded, *(side.row for side in sides), *grid.tile_shape)
        assert padded >= scene
        assert step % grid.scale.denominator == 0
    assert grid.sr.height == grid.lr.height * grid.scale
    assert grid.scene.refine(grid.scale).height <= grid.sr.height
    assert grid.sr.transform[2] == grid.scene.transform[2]


@given(st.integers(1, 99), st.sampled_from(SCALES), st.sampled_from([1, 2, 8]))
def test_the_frame_does_not_depend_on_the_tile_size(
    side: int, scale: Fraction, multiple: int
) -> None:
    step = lr_step(scale, multiple)
    frames = {
        TileGrid.plan(make_grid(side, 5), scale, n * step, 0, 0, multiple).lr.height
        for n in range(1, 9)
    }
    assert frames == {math.ceil(side / step) * step}


@given(tile_grids())
def test_strips_follow_one_another_and_cover_the_frame(grid: TileGrid) -> None:
    strips = [grid.strip(row) for row in range(grid.shape[0])]
    assert strips[0].row == 0
    assert strips[-1].row_stop == grid.sr.height
    assert all(strip.height > 0 for strip in strips)
    assert all(strip[1::2] == (0, grid.sr.width) for strip in strips)
    for above, below in itertools.pairwise(strips):
        assert above.row_stop == below.row


@given(tile_grids())
def test_rows_touching_are_the_rows_that_meet_the_strip(grid: TileGrid) -> None:
    for strip in range(grid.shape[0]):
        window = grid.strip(strip)
        touching = [
            row
            for row in range(grid.shape[0])
            if grid.tile_row(row)[0].sr.intersection(window)
        ]
        assert list(grid.rows_touching(strip)) == touching


@given(tile_grids())
def test_a_tile_grid_is_a_row_major_sequence(grid: TileGrid) -> None:
    tiles = list(grid)
    n_rows, n_cols = grid.shape
    assert len(tiles) == len(grid) == n_rows * n_cols
    assert [(tile.row, tile.col) for tile in tiles] == [
        (row, col) for row in range(n_rows) for col in range(n_cols)
    ]
    assert grid[-1] == tiles[-1]
    assert grid[1::2] == tiles[1::2]
    assert list(grid.tile_row(n_rows - 1)) == tiles[-n_cols:]


def test_borders_are_the_sides_on_the_edge_of_the_frame() -> None:
    grid = TileGrid.plan(make_grid(20, 30), Fraction(2), 16, 4, 1)
    assert [tile.border for tile in grid.tile_row(0)] == [
        Border(True, False, True, False),
        Border(True, False, False, False),
        Border(True, False, False, True),
    ]
    assert grid[3].border == Border(False, True, True, False)


def test_a_scene_smaller_than_a_tile_is_one_tile_of_its_padded_size() -> None:
    grid = TileGrid.plan(make_grid(7, 5), Fraction(5, 2), 64, 8, 2, multiple=4)
    assert grid.shape == (1, 1)
    assert grid.tile_shape == (8, 8)
    assert grid[0].border == Border(True, True, True, True)
    assert grid[0].sr == PixelWindow(0, 0, 20, 20)


def test_rows_out_of_range_are_refused() -> None:
    grid = TileGrid.plan(make_grid(40, 40), Fraction(2), 16, 4, 1)
    for row in (-1, 4):
        for ask in (grid.tile_row, grid.strip, grid.rows_touching):
            with pytest.raises(IndexError):
                ask(row)
    with pytest.raises(IndexError):
        grid[len(grid)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("10/3", 64, 12, 1), "tile size 64 .* multiple of 3.* 63"),
        (("10/3", 63, 10, 1), "overlap 10 .* multiple of 3.* 9"),
        (("4", 64, 64, 1), "overlap 64 is not below"),
        (("4", 64, 8, 4), "overlap 8 must exceed .* at least 9"),
        (("4", 64, 0, 4), "overlap 0 must exceed"),
        (("4", 0, 0, 0), "tile size 0"),
        (("4", 64, -4, 0), "overlap -4"),
        (("4", 64, 8, -1), "halo -1"),
        (("1/2", 64, 8, 1), "scale 1/2 is below 1"),
        (("4", 63, 8, 1, 8), "tile size 63 .* multiple of 2.* nearest .* 6[24]"),
        (("4", 64, 8, 1, 0), "multiple 0"),
    ],
)
def test_plan_refuses_what_does_not_fit(
    arguments: tuple[str, int], message: str
) -> None:
    scale, *sides = arguments
    with pytest.raises(GridError, match=message):
        TileGrid.plan(make_grid(100, 100), Fraction(scale), *sides)


def test_a_tile_grid_survives_pickling() -> None:
    grid = TileGrid.plan(make_grid(40, 50), Fraction(10, 3), 15, 6, 1)
    copy = pickle.loads(pickle.dumps(grid))
    assert copy == grid
    assert copy[5] == grid[5]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_reflected_positions_are_those_of_numpy(size: int) -> None:
    padded = np.pad(np.arange(size), 13, mode="symmetric")
    assert reflected_positions(-13, size + 26, size).tolist() == padded.tolist()
