"""What the network that finds buildings sees, and what `--method learned` marks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rsupres
from rsupres.change import images
from rsupres.change.detection import fit_differences
from rsupres.change.learned import PairLevels, colours
from rsupres.change.options import choose_options
from rsupres.errors import BandError, InputError
from rsupres.raster.dataset import Raster
from tests.change.statistics.test_built_up import (
    BANDS,
    HOUSES,
    INSIDE,
    POND,
    marked,
    share,
    two_dates,
)
from tests.helpers import make_scene

ROLES = (0, 1, 2, 3)


def levels_of(before: np.ndarray, after: np.ndarray) -> PairLevels:
    x, y = (image.reshape(len(image), -1) for image in (before, after))
    return PairLevels.fit(x, y, fit_differences(x, y, "auto", "test"), ROLES)


def test_gains_and_offsets_of_a_date_do_not_show() -> None:
    before, after = two_dates()
    seen = levels_of(before, after).inputs(np.concatenate([before, after]))
    toned = after * np.array([2, 0.5, 1.3, 3])[:, None, None] - 70
    again = levels_of(before, toned).inputs(np.concatenate([before, toned]))
    assert seen.shape == (9, *before.shape[1:])
    np.testing.assert_allclose(seen, again, atol=0.05)
    meadow = np.s_[:8, :100, :8]  # nothing changed there
    assert np.abs(seen[:4, :100, :8] - seen[4:8, :100, :8]).mean() < 0.2
    assert np.abs(seen[meadow]).max() < 6
    assert seen[8][HOUSES[1:]].mean() > 4 * seen[8, :100, :8].mean()


def test_a_colour_that_the_images_lack_is_marked_as_missing() -> None:
    before, after = (image[:3] for image in two_dates())
    x, y = (image.reshape(3, -1) for image in (before, after))
    found = fit_differences(x, y, "auto", "test")
    levels = PairLevels.fit(x, y, found, (0, 1, 2, None))
    seen = levels.inputs(np.concatenate([before, after]))
    assert np.isnan(seen[[3, 7]]).all()
    assert np.isfinite(np.delete(seen, [3, 7], 0)).all()


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (("B02", "B03", "B04", "B08"), (2, 1, 0, 3)),
        (("red", "green", "blue"), (0, 1, 2, None)),
        (("green", "red", "nir"), (1, 0, None, 2)),
        (("a", "b", "c", "d", "e"), None),
    ],
)
def test_colours_are_found_by_the_names_of_bands(
    tmp_path: Path, names: tuple[str, ...], places: tuple[int | None, ...] | None
) -> None:
    pixels = np.arange(len(names) * 16, dtype="uint16").reshape(-1, 4, 4) + 1
    path = make_scene(tmp_path / "scene.tif", pixels=pixels, descriptions=names)
    with Raster.open(path) as scene:
        assert colours(scene, scene.data_bands) == places


def test_houses_and_ponds_are_found_and_fields_left_out(tmp_path: Path) -> None:
    found = marked(tmp_path, "learned")
    assert min(share(found, part) for part in (HOUSES, POND)) > 0.5
    assert share(found, INSIDE) < 0.05
    assert found.mean() < 0.03


def test_the_mask_does_not_depend_on_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = marked(tmp_path, "learned", sky=True)
    (tmp_path / "learned.tif").unlink()
    monkeypatch.setattr(images, "BLOCK_SIDE", 64)
    assert np.array_equal(marked(tmp_path, "learned", sky=True), whole)


def test_images_without_three_known_colours_are_refused(tmp_path: Path) -> None:
    names = ("red", "thermal", "b11", "b12")
    with pytest.raises(BandError, match="the network needs the same bands"):
        marked(tmp_path, "learned", descriptions=names)


@pytest.mark.parametrize("name", ["significance", "threshold"])
def test_options_of_the_statistic_have_no_effect(name: str) -> None:
    with pytest.raises(InputError, match="has no effect for the network"):
        choose_options(2, method="learned", **{name: 0.5})


def chosen(folder: Path, after: np.ndarray, **options: float) -> str | None:
    """Return the method that `auto` takes for the meadows and a later date."""
    paths = []
    for name, pixels in (("before", two_dates()[0]), ("after", after)):
        path = folder / f"{name}.tif"
        make_scene(path, pixels=pixels.clip(1).astype("uint16"), descriptions=BANDS)
        paths.append(str(path))
    out = folder / "mask.tif"
    given = {"like": paths[1], "scale": 1, **options}
    return rsupres.change_mask(paths, out, **given).method  # type: ignore[arg-type]


def test_auto_takes_the_network_where_something_was_built(tmp_path: Path) -> None:
    assert chosen(tmp_path, two_dates()[1]) == "learned"


def test_auto_takes_irmad_where_nothing_was_built(tmp_path: Path) -> None:
    before, _ = two_dates()
    noise = np.random.default_rng(2).normal(0, 15, before.shape)
    after = 1.1 * before + 50 + noise
    assert chosen(tmp_path, after) == "irmad"


def test_auto_takes_irmad_where_its_threshold_is_given(tmp_path: Path) -> None:
    assert chosen(tmp_path, two_dates()[1], threshold=3.0) == "irmad"
