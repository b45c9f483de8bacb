"""Draw pairs of dates with known change, to train the detector of change.

`change_pairs.py DATA TOWNS OUT` reads the towns that `change_towns.py` wrote and real
images below DATA ($RSUPRES_DATA), and writes pairs as OUT/KIND_NUMBER.npz: what the
network sees (`inputs`, float16) and the changed share of each pixel (`share`).

- town: invented towns, seen by drawn optics at 2.5 to 10 m, whose change is known;
- city: Sentinel-2 images of one date, with a second date made of it by
  `change_edits.season`, and edits: parts of built-up ground of another place;
- dates: real pairs of dates without a map of change (Rio, Valencia, North Dakota, chips
  of California), with edits; all else counts as unchanged;
- check: towns that are trained on by nothing, at 10 m, to choose the threshold by.

No place that the README of DATA keeps for validation is read, and no OSCD label.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from change_edits import Floats, edited, season, sensed, toned
from rasterio.warp import Resampling, reproject

from rsupres.change.detection import fit_differences
from rsupres.change.learned import PairLevels

SIDE = 192  # pixels of a city's part
HELD = ("nantes", "hongkong", "saclay", "paris")  # Paris is a pair of OSCD, too
NEW = 0.75  # share of the pairs in which the later date has what is new
COUNTS = {"town": 260, "city": 108, "dates": 140, "check": 10}
FIRST_TRAINED = 110  # towns before it are for "check"
Pair = tuple[Floats, Floats, Floats]  # earlier, later (4, h, w); share (h, w)


def main() -> None:
    """Write the pairs that are not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("towns", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", default=",".join(COUNTS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    towns = sorted(given.towns.glob("*.npz"))
    for kind in given.kinds.split(","):
        draw = drawers(given.data, towns)[kind]
        for number in range(COUNTS[kind]):
            path = given.out / f"{kind}_{number:03d}.npz"
            if not path.exists():
                write(path, draw, np.random.default_rng([ord(kind[0]), number]))


def drawers(
    data: Path, towns: list[Path]
) -> dict[str, Callable[[np.random.Generator], Pair]]:
    """Return what draws a pair, by kind."""
    cities = [
        read(path)[[2, 1, 0, 3]]
        for path in sorted((data / "sentinel2_10band").glob("*10m_4band.tif"))
        if not any(place in path.name for place in HELD)
    ]
    trained = [path for path in towns if int(path.stem) >= FIRST_TRAINED]
    checked = [path for path in towns if int(path.stem) < FIRST_TRAINED]
    dates = real_dates(data)
    chips = three_dates(data)
    return {
        "town": lambda random: town_pair(trained, random),
        "check": lambda random: town_pair(checked, random, 4),
        "city": lambda random: city_pair(cities, random),
        "dates": lambda random: dates_pair(dates, chips, cities, random),
    }


def write(
    path: Path,
    draw: Callable[[np.random.Generator], Pair],
    random: np.random.Generator,
) -> None:
    """Draw a pair, prepare it as `rsupres change` does, and write it."""
    earlier, later, share = draw(random)
    if random.random() > NEW:
        earlier, later = later, earlier
    kept = (
        [0, 1, 2, 3]
        if len(earlier) == 4 and random.random() < 0.65
        else [0, 1, 2]
        if random.random() < 0.75 or len(earlier) < 4
        else [0, 1, 3]
    )
    x, y = toned(earlier[kept], random), toned(later[kept], random)
    flat = x.reshape(len(x), -1), y.reshape(len(y), -1)
    differences = fit_differences(*flat, "auto", path.name)
    roles = [kept.index(k) if k in kept else None for k in range(4)]
    levels = PairLevels.fit(*flat, differences, roles)
    inputs = levels.inputs(np.concatenate([x, y]))
    with path.open("wb") as file:
        np.savez(file, inputs=inputs.astype("f2"), share=share.astype("f2"))


def town_pair(
    paths: list[Path], random: np.random.Generator, factor: int | None = None
) -> Pair:
    """Return a town as a sensor of so many times 2.5 m sees it at both dates."""
    with np.load(paths[random.integers(len(paths))]) as town:
        dates = [town[name].astype("f4") for name in ("earlier", "now")]
        share = town["share"].astype("f4")
    factor = factor or int(random.choice([4, 4, 4, 4, 2, 3, 1]))
    side = min(share.shape[0], 160 * factor) // factor * factor
    row, col = random.integers(0, share.shape[0] - side + 1, 2)
    part = np.s_[..., row : row + side, col : col + side]
    n = side // factor
    shift = random.uniform(-1, 1, 2) * (random.random() < 0.5)
    seen = [
        sensed(image[part], n, by, random)
        for image, by in zip(dates, (shift, np.zeros(2)), strict=True)
    ]
    return seen[0], seen[1], share[part].reshape(n, factor, n, factor).mean((1, 3))


def city_pair(cities: list[Floats], random: np.random.Generator) -> Pair:
    """Return a part of a city, and a second date that is made of it."""
    earlier = cut(cities[random.integers(len(cities))], SIDE, random)
    later = season(earlier, random)
    later, share = edited(later, donor(cities, random), random)
    earlier = sensed(earlier, SIDE, random.uniform(-0.7, 0.7, 2), random)
    return earlier, sensed(later, SIDE, np.zeros(2), random), share


def dates_pair(
    dates: list[tuple[Floats, Floats]],
    chips: list[list[Path]],
    cities: list[Floats],
    random: np.random.Generator,
) -> Pair:
    """Return two real dates, most of them with edits."""
    if random.random() < 0.5:
        both = np.concatenate(dates[random.integers(len(dates))])
        earlier, later = np.split(cut(both, SIDE, random), 2)
        other = donor(cities, random)
    else:
        places = random.choice(len(chips), 2, replace=False)
        named = random.choice(3, 2, replace=False)
        n = int(random.choice([64, 85, 128]))
        earlier, later, other = (
            sensed(read(chips[place][k]), n, np.zeros(2), random)
            for place, k in (
                (places[0], named[0]),
                (places[0], named[1]),
                (places[1], 0),
            )
        )
    if random.random() < 0.5:
        earlier, later = later, earlier
    if random.random() < 0.2:
        return earlier, later, np.zeros(later.shape[1:], np.float32)
    later, share = edited(later, other, random)
    return earlier, later, share


def donor(cities: list[Floats], random: np.random.Generator) -> Floats:
    """Return a part of any city that has built-up ground to give."""
    parts = [cut(cities[random.integers(len(cities))], SIDE, random) for _ in range(3)]
    return max(parts, key=lambda part: float(np.std(np.diff(part[0]))))


def cut(image: Floats, side: int, random: np.random.Generator) -> Floats:
    """Return a square part of an image, turned at random."""
    row, col = (random.integers(0, max(1, n - side + 1)) for n in image.shape[1:])
    part = image[:, row : row + side, col : col + side]
    return np.rot90(part, int(random.integers(4)), (1, 2)).copy()


def read(path: Path) -> Floats:
    """Return the bands of a file."""
    with rasterio.open(path) as file:
        pixels: Floats = file.read(out_dtype="float32")
    return pixels


def real_dates(data: Path) -> list[tuple[Floats, Floats]]:
    """Return real pairs of dates on one grid: red, green, blue, near infrared."""
    pairs = []
    for place in ("rio", "valencia"):
        (one,) = (data / "sentinel2").glob(f"oscd_{place}_*.tif")
        (other,) = (data / "sentinel2_10band").glob(f"oscd_{place}_*_10m_4band.tif")
        pairs.append(common(other, one, [3, 2, 1, 4], [1, 2, 3, 4]))
    dakota = sorted((data / "aerial" / "naip_nd").glob("*.tif"))
    dakota = [path for path in dakota if "_2017" not in path.name]
    numbers = [1, 2, 3, 4]
    for one, other in itertools.pairwise(dakota):
        pairs.append(common(one, other, numbers, numbers))
    return pairs


def common(
    one: Path, other: Path, bands: list[int], others: list[int]
) -> tuple[Floats, Floats]:
    """Return both files on the grid of the first, where both have pixels."""
    with rasterio.open(one) as file, rasterio.open(other) as second:
        first = file.read(bands, out_dtype="float32")
        warped = np.zeros_like(first)
        reproject(
            second.read(others, out_dtype="float32"),
            warped,
            src_transform=second.transform,
            src_crs=second.crs,
            dst_transform=file.transform,
            dst_crs=file.crs,
            resampling=Resampling.cubic,
        )
    known = (warped > 0).all(0) & (first > 0).all(0)
    rows, cols = (np.flatnonzero(known.mean(axis) > 0.9) for axis in (1, 0))
    part = np.s_[:, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return first[part], warped[part]


def three_dates(data: Path) -> list[list[Path]]:
    """Return the chips of California by place, three dates each."""
    places: dict[str, list[Path]] = {}
    for path in sorted((data / "aerial" / "naip_ca").glob("*.tif")):
        if not path.name.startswith("riverside"):
            *city, _, index = path.stem.split("_")
            places.setdefault("_".join([*city, index]), []).append(path)
    return [paths for paths in places.values() if len(paths) == 3]


if __name__ == "__main__":
    main()
