"""What overlap keeps SlimDiffSR's tile borders invisible, with and without the scene.

Run it with ``python tests/benchmarks/bench_slimdiffsr_seams.py PICTURE [--model
slimdiffsr-mini] [--side N] [--tile N] [--halos 0 4 8 16]``. Without ``--model`` it is
the student of the released size with name-seeded weights, whose queries look at the
whole picture. A cut of the picture is upscaled in one tile and in several; for each
halo (pixels at a tile's edge that are not used; the overlap is twice that and a ramp of
eight) the table gives the excess gradient across borders (`seam_ratio` over that of the
untiled picture at the same places, less 1) and the largest and mean difference from the
untiled picture in 8-bit levels, once with gates, norms and queries found from the
scene, as the pipeline does, and once with each tile's own. All lengths are LR pixels.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import rasterio
import torch

from rsupres.blend import Mosaic, join
from rsupres.checkpoints.catalogue import load_model
from rsupres.diffusion.noise import NoiseField
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.families.base import Conditions, SamplerOptions, SceneContext, TileBatch
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig
from rsupres.families.slimdiffsr.network import SlimDiffSRNetwork
from rsupres.families.slimdiffsr.resolver import SlimDiffSR, make_spec
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.memory import ArrayReader
from tests.parity.golden import name_seeded_tensor
from tests.strategies import make_grid

CPU = torch.device("cpu")
SCALE = Fraction(4)
RAMP = 8


def load(name: str | None) -> SlimDiffSR:
    """Return a model by name, or the name-seeded student of the released size."""
    if name is not None:
        model = load_model(name, CPU, SamplerOptions())
        assert isinstance(model, SlimDiffSR)
        return model
    config = SlimDiffSRConfig(4)
    network = SlimDiffSRNetwork(config).eval().requires_grad_(False)
    for key, parameter in network.named_parameters():
        parameter.copy_(torch.from_numpy(name_seeded_tensor(key, parameter.shape)))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SlimDiffSR(make_spec(config, gsd=None), network, SamplerOptions(), CPU)


def upscale(
    model: SlimDiffSR, lr: np.ndarray, grid: TileGrid, scene: SceneContext | None
) -> np.ndarray:
    """Return SR blended from tiles; without a scene, each tile is its own."""
    noise, mosaic, pieces = NoiseField(0), Mosaic(grid, 3), []
    for tile in grid:
        part = np.ascontiguousarray(lr[:, *tile.lr.slices()])
        shared = scene or model.prepare(ArrayReader(part), SCALE, noise)
        valid = torch.ones(1, 1, *part.shape[1:], dtype=torch.bool)
        pixels = torch.from_numpy(part)[None]
        batch = TileBatch(
            pixels, valid, Conditions(), noise, [tile.lr], [tile.sr], shared
        )
        mosaic.add(tile, model.upscale(batch, SCALE)[0].numpy())
        pieces += mosaic.finished()
    return join(pieces)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--tile", type=int, default=96)
    parser.add_argument("--halos", type=int, nargs="*", default=[0, 4, 8, 16, 32])
    options = parser.parse_args()
    side = options.side
    with rasterio.open(options.picture) as source:
        lr = source.read([1, 2, 3])[:, :side, :side].astype(np.float32) / 255.0
    frame = make_grid(*lr.shape[1:])
    with torch.inference_mode():
        model = load(options.model)
        scene = model.prepare(ArrayReader(lr), SCALE, NoiseField(0))
        multiple = model.spec.multiple
        one = TileGrid.plan(frame, SCALE, max(lr.shape[1:]), 0, 0, multiple)
        whole = upscale(model, lr, one, scene)
        print("halo overlap tiles  found     excess  largest    mean")
        for halo in options.halos:
            overlap = 2 * halo + RAMP
            grid = TileGrid.plan(frame, SCALE, options.tile, overlap, halo, multiple)
            borders = tile_borders(grid)
            for found, shared in (("scene", scene), ("tile", None)):
                tiled = upscale(model, lr, grid, shared)
                excess = seam_ratio(tiled, *borders) / seam_ratio(whole, *borders) - 1
                levels = np.abs(tiled - whole) * 255
                print(
                    f"{halo:4} {overlap:7} {len(grid):5}  {found:6} {excess:+9.3%} "
                    f"{levels.max():8.3f} {levels.mean():7.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
