"""Write invented towns at two dates with the share of each pixel that changed.

`change_towns.py OUT FIRST COUNT` writes OUT/SEED.npz for every seed from FIRST on:
`now` and `earlier`, reflectance (4, 480, 480) of red, green, blue and near infrared at
2.5 m, and `share`. Towns of odd seeds have a sun and a season of their own at each
date. `change_pairs.py` makes pairs of them. Towns to measure on begin at 900.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sample_data"))

from make_sample_data import SUN_EARLIER, SUN_NOW  # type: ignore[import-not-found]
from town_cover import land_cover  # type: ignore[import-not-found]
from town_layout import lay_out_town, park_cars  # type: ignore[import-not-found]
from town_render import Sun, render  # type: ignore[import-not-found]

SIZE_M, GSD_M = 1200.0, 2.5


def main() -> None:
    """Write the towns that the command line names; those that are there stay."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in range(given.first, given.first + given.count):
        path = given.out / f"{seed}.npz"
        if not path.exists():
            write_town(path, seed)


def write_town(path: Path, seed: int) -> None:
    """Write one town."""
    town = lay_out_town(seed, SIZE_M)
    eras = town.now(), town.earlier()
    suns, seasons = [SUN_NOW, SUN_EARLIER], ["summer", "spring"]
    random = np.random.default_rng([seed, 77])
    if seed % 2:
        suns = [Sun(random.uniform(120, 240), random.uniform(30, 62)) for _ in eras]
        seasons = [str(random.choice(["summer", "spring"])) for _ in eras]
    now, earlier = (
        render(era, GSD_M, sun, kind, park_cars(era, k))
        for k, (era, sun, kind) in enumerate(zip(eras, suns, seasons, strict=True), 1)
    )
    changed = np.not_equal(*(land_cover(era, GSD_M / 2) for era in eras))
    side = len(changed) // 2
    share = changed.reshape(side, 2, side, 2).mean((1, 3))
    np.savez(path, now=now.astype("f2"), earlier=earlier.astype("f2"), share=share)


if __name__ == "__main__":
    main()
