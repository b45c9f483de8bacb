"""Burning: every window is a cut of one picture, and the picture is right."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio.crs import CRS

from rsupres.grid import Grid, PixelWindow
from rsupres.vector.burn import Burner
from rsupres.vector.geometry import LATTICE, PixelPlane, clip, cut, snap, split_kinds
from rsupres.vector.wkb import parse
from tests.strategies import COSTLY

UTM = CRS.from_epsg(32633)
SIDE = 96


def shapes_of(*shapes: shapely.Geometry) -> np.ndarray:
    array = np.empty(len(shapes), object)
    array[:] = shapes
    return array


def burner_of(polygons: list[shapely.Geometry], inks: list[int]) -> Burner:
    pieces, owner = cut(shapes_of(*polygons))
    return Burner(snap(pieces), np.asarray(inks, np.uint16)[owner])


def star(
    x: float, y: float, n: int, low: float, high: float, turn: float
) -> shapely.Polygon:
    """Return a star of 2 n corners; a few hundred corners are cut into pieces."""
    angle = np.arange(2 * n) * np.pi / n + turn
    radius = np.where(np.arange(2 * n) % 2, low, high)
    return shapely.Polygon(
        np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
    )


# Multiples of 1/8 put vertices on pixel centres and edges, where ties are decided.
place = st.integers(-30 * 8, (SIDE + 30) * 8).map(lambda i: i / 8)
stars = st.builds(
    star,
    place,
    place,
    st.sampled_from([2, 3, 5, 200]),
    st.floats(0.5, 20),
    st.floats(0.5, 60),
    st.floats(0, 6),
)
boxes = st.tuples(place, place, st.integers(1, 200), st.integers(1, 200)).map(
    lambda t: shapely.box(t[0], t[1], t[0] + t[2] / 8, t[1] + t[3] / 8)
)
polygons = st.lists(st.one_of(stars, boxes), min_size=1, max_size=8)
windows = st.builds(
    PixelWindow,
    st.integers(-40, SIDE + 40),
    st.integers(-40, SIDE + 40),
    st.integers(1, SIDE),
    st.integers(1, SIDE),
)
WHOLE = PixelWindow(-150, -150, SIDE + 400, SIDE + 400)


@given(polygons, windows, st.sampled_from([1, 4]))
@example([shapely.box(0.5, 0.5, 10.5, 3.5)], PixelWindow(0, 0, 5, 5), 1)
@example([shapely.box(-5, -5, 2.5, 2.5)], PixelWindow(-3, 2, 9, 9), 4)
def test_a_window_is_a_cut_of_the_whole(shapes, window, factor):
    burner = burner_of(shapes, list(range(len(shapes))))
    whole = burner.burn(WHOLE, factor)
    inside = window.relative_to(WHOLE)
    rows = slice(inside.row * factor, inside.row_stop * factor)
    cols = slice(inside.col * factor, inside.col_stop * factor)
    assert np.array_equal(burner.burn(window, factor), whole[rows, cols])


@COSTLY
@given(st.lists(stars, min_size=1, max_size=4))
def test_a_pixel_is_filled_when_its_centre_is_inside(shapes):
    burner = burner_of(shapes, list(range(len(shapes))))
    burned = burner.burn(PixelWindow(0, 0, SIDE, SIDE))
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    expected = np.zeros((SIDE, SIDE), int)
    near = np.zeros((SIDE, SIDE), bool)
    for ink, shape in enumerate(shapes):
        expected[shapely.contains_xy(shape, x, y)] = ink + 1
        # Vertices move by half a lattice step at most.
        near |= shapely.dwithin(shape.boundary, shapely.points(x, y), 1 / LATTICE)
    assert np.array_equal(burned[~near], expected[~near])


def test_far_from_the_origin_a_window_is_still_a_cut():
    far = 43_000
    shape = star(far + 30.3, far + 29.7, 200, 12.2, 40.1, 0.3)
    long = shapely.Polygon([(-20, 3), (far + 90, far - 11), (far + 80, far + 95)])
    burner = burner_of([shape, long], [0, 1])
    whole = burner.burn(PixelWindow(far - 20, far - 20, 120, 120))
    part = burner.burn(PixelWindow(far + 7, far + 13, 31, 17))
    assert len(np.unique(whole)) == 3
    assert np.array_equal(part, whole[27:58, 33:50])


def test_later_polygons_lie_on_top_and_parts_do_not_cancel():
    burner = burner_of(
        [shapely.box(0, 0, 6, 6), shapely.box(2, 2, 8, 8), shapely.box(4, 4, 5, 5)],
        [0, 0, 1],
    )
    burned = burner.burn(PixelWindow(0, 0, 8, 8))
    assert burned[3, 3] == 1  # both squares of ink 0 cover it
    assert burned[4, 4] == 2
    assert burned[0, 7] == 0


def test_holes_stay_open():
    ring = shapely.box(1, 1, 9, 9).difference(shapely.box(3, 3, 6, 6))
    burned = burner_of([ring], [0]).burn(PixelWindow(0, 0, 10, 10))
    assert burned.sum() == 64 - 9
    assert not burned[3:6, 3:6].any()


def test_a_window_costs_only_what_lies_in_it(monkeypatch):
    import rsupres.vector.burn as module

    burned: list[int] = []
    original = module.rasterize

    def counting(shapes, **options):
        burned.extend(len(shape.geoms) for shape, _ in shapes)
        return original(shapes, **options)

    monkeypatch.setattr(module, "rasterize", counting)
    many = [
        shapely.box(4 * i, 4 * j, 4 * i + 2, 4 * j + 2)
        for i in range(50)
        for j in range(50)
    ]
    burner = burner_of(many, [0] * len(many))
    burner.burn(PixelWindow(80, 80, 8, 8))
    assert sum(burned) <= 9


def test_many_inks_do_not_run_over():
    shapes = [shapely.box(i, 0, i + 1, 1) for i in range(300)]
    burned = burner_of(shapes, list(range(300))).burn(PixelWindow(0, 0, 1, 300))
    assert burned[0].tolist() == list(range(1, 301))


def test_cut_pieces_have_few_vertices_and_fill_the_same():
    shape = star(300, 300, 1000, 270, 290, 0.1)
    pieces, owner = cut(shapes_of(shape, shapely.box(0, 0, 5, 5)))
    assert shapely.get_num_coordinates(pieces[:-1]).max() < 600
    assert len(pieces) > 4
    assert owner.tolist() == [0] * (len(pieces) - 1) + [1]
    whole = Burner(snap(shapes_of(shape)), np.zeros(1, np.uint16))
    parts = Burner(snap(pieces[:-1]), np.zeros(len(pieces) - 1, np.uint16))
    window = PixelWindow(0, 0, 600, 600)
    differ = whole.burn(window) != parts.burn(window)
    # A cut moves the edges that it crosses by half a lattice step.
    assert differ.sum() <= shape.length / LATTICE


ROTATED = (
    Affine.translation(500000.0, 5400000.0)
    @ Affine.rotation(30)
    @ Affine.scale(2.0, -2.0)
)
MERCATOR_60 = Affine(3.0, 0, 1_100_000, 0, -3.0, 8_399_738)  # 60 degrees north


@pytest.mark.parametrize(
    ("epsg", "transform", "row_m", "col_m"),
    [
        (32633, Affine(2.0, 0, 500000.0, 0, -2.0, 5400000.0), 2.0, 2.0),
        (32633, ROTATED, 2.0, 2.0),
        (3857, MERCATOR_60, 3 * 0.500417, 3 * 0.501259),
        (4326, Affine(4e-5, 0, 9.0, 0, -2e-5, 48.5), 2e-5 * 111_206, 4e-5 * 73_898),
    ],
)
def test_lines_are_as_wide_as_on_the_ground(epsg, transform, row_m, col_m):
    crs = CRS.from_epsg(epsg)
    frame = PixelPlane(Grid(crs, transform, 200, 200), 0)
    lines = shapes_of(
        shapely.LineString([(20, 100), (180, 100)]),
        shapely.LineString([(100, 20), (100, 180)]),
    )
    bands = frame.widen(lines, np.array([24.0, 24.0]), 1.0)
    along_rows = bands[0].bounds[3] - bands[0].bounds[1]
    along_cols = bands[1].bounds[2] - bands[1].bounds[0]
    assert along_rows * row_m == pytest.approx(24.0, rel=0.002)
    assert along_cols * col_m == pytest.approx(24.0, rel=0.002)


def test_no_line_is_narrower_than_a_pixel():
    frame = PixelPlane(Grid(UTM, Affine(10, 0, 5e5, 0, -10, 54e5), 50, 50), 0)
    line = shapes_of(shapely.LineString([(3, 7), (45, 30)]))
    bands = frame.widen(line, np.array([1.5]), 1.0)
    burned = Burner(snap(bands), np.zeros(1, np.uint16)).burn(PixelWindow(0, 0, 50, 50))
    assert (burned[:, 3:45].sum(axis=0) >= 1).all()  # no gaps


def test_broken_geometries_are_repaired_or_dropped():
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    nested = shapely.MultiPolygon([shapely.box(0, 0, 9, 9), shapely.box(2, 2, 4, 4)])
    good = shapely.to_wkb(
        shapes_of(shapely.Point(1, 2, 3), bow, nested, shapely.Polygon())
    )
    ring = np.array([[0, 0], [4, 0], [4, 3]], "<f8")  # not closed
    head = b"\x01\x03\x00\x00\x00\x01\x00\x00\x00"
    unclosed = head + (3).to_bytes(4, "little") + ring.tobytes()
    stub = head + (2).to_bytes(4, "little") + ring[:2].tobytes()
    wkb = np.empty(8, object)
    wkb[:] = [*good, unclosed, stub, b"\x01\x03\x00", None]
    parsed = parse(wkb)
    assert not parsed.shapes[0].has_z
    assert parsed.shapes[1].area == pytest.approx(2.0)
    assert parsed.shapes[2].area == pytest.approx(81)  # parts that overlap are joined
    assert parsed.shapes[4].area == pytest.approx(6.0)
    assert [shape is None for shape in parsed.shapes[[3, 5, 6, 7]]] == [True] * 4
    assert (parsed.n_repaired, parsed.n_dropped) == (3, 4)


def test_a_bad_ring_does_not_take_the_others_along():
    ring = np.array([[0, 0], [4, 0], [4, 3], [0, 0]], "<f8")
    parts = b""
    for n_points in (2, 4):
        head = b"\x01\x03\x00\x00\x00\x01\x00\x00\x00"
        parts += head + n_points.to_bytes(4, "little") + ring[:n_points].tobytes()
    wkb = np.empty(1, object)
    wkb[0] = b"\x01\x06\x00\x00\x00\x02\x00\x00\x00" + parts
    parsed = parse(wkb)
    assert parsed.shapes[0].area == pytest.approx(6.0)
    assert parsed.n_repaired == 1


def test_mixed_collections_are_sorted_into_areas_and_lines():
    mixed = shapely.GeometryCollection(
        [
            shapely.Point(0, 0),
            shapely.GeometryCollection([shapely.box(0, 0, 1, 1)]),
            shapely.MultiLineString([[(0, 0), (1, 1)], [(2, 2), (3, 3)]]),
        ]
    )
    areas, of_area, lines, of_line = split_kinds(shapes_of(shapely.Point(5, 5), mixed))
    assert [a.geom_type for a in areas] == ["Polygon"]
    assert of_area.tolist() == [1]
    assert {line.geom_type for line in lines} <= {"LineString", "MultiLineString"}
    assert set(of_line.tolist()) == {1}


def test_clipping_keeps_what_is_inside_and_drops_what_is_not():
    shapes = shapes_of(
        shapely.box(0, 0, 1, 1), shapely.box(-5, -5, 5, 5), shapely.box(90, 90, 91, 91)
    )
    clipped = clip(shapes, (-1, -1, 2, 2))
    assert clipped[0] is shapes[0]
    assert clipped[1].area == pytest.approx(9.0)
    assert clipped[2] is None


def test_the_footprint_is_two_boxes_at_the_antimeridian():
    import pyproj

    degrees = pyproj.CRS.from_epsg(4326)
    utm60 = Grid(CRS.from_epsg(32660), Affine(10, 0, 815000, 0, -10, 2e6), 1000, 3000)
    west, east = PixelPlane(utm60, 0).boxes_in(degrees)
    assert west[2] == 180.0
    assert east[0] == -180.0
    assert west[0] < 180.0
    assert east[2] > -180.0
    beyond = Grid(CRS.from_epsg(4326), Affine(0.001, 0, 179.9, 0, -0.001, 1), 100, 300)
    assert len(PixelPlane(beyond, 0).boxes_in(degrees)) == 2
    shape = shapes_of(shapely.box(-179.95, 0.95, -179.94, 0.96))
    x0 = PixelPlane(beyond, 0).to_pixels(shape, degrees)[0].bounds[0]
    assert x0 == pytest.approx(150, abs=0.01)


def test_many_polygons_are_burned_in_order_though_in_parts(monkeypatch):
    import rsupres.vector.burn as module

    shapes = [shapely.box(i % 40, i % 7, i % 40 + 9, i % 7 + 9) for i in range(300)]
    inks = [i // 3 for i in range(300)]
    whole = burner_of(shapes, inks).burn(PixelWindow(0, 0, 20, 50))
    monkeypatch.setattr(module, "BATCH_POLYGONS", 7)
    parts = burner_of(shapes, inks).burn(PixelWindow(0, 0, 20, 50))
    assert np.array_equal(whole, parts)
    assert len(np.unique(whole)) > 10
