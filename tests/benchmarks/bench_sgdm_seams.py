"""Where tiles should meet: in the latent, at every step, or in the finished picture.

``python tests/benchmarks/bench_sgdm_seams.py [MODEL] [--norm group]`` enlarges a part
of the Sentinel-2 scene of Rio in one piece and in tiles of 64 LR pixels, and prints for
each way the seam ratio (`rsupres.evaluation.measures.seams.seam_ratio` at the borders
of the tiles; that of one piece is what the ground itself has there), the RMS difference
from one piece, and CPU seconds, everything in one process.

* ``cut``: tiles side by side, each with its own result; what the others must beat.
* ``image``: tiles overlap and are blended after decoding, as `rsupres upscale` does.
  With the model's halo, and without.
* ``latent``: one latent of the scene; at every step, what the denoiser says of each
  tile is blended on the latent grid (Bar-Tal et al. 2023, MultiDiffusion), and the
  finished latent is decoded in tiles. With the model's halo, and without.

All ways use the same noise, which belongs to the ground. ``--norm group`` reads the
same weights into Stable Diffusion's group normalisation, which sees a whole tile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rasterio
import torch
from affine import Affine
from data_root import data_folder
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsupres.blend import Mosaic, join
from rsupres.blocks.stable_diffusion_run import ContextKeys, StepShifts
from rsupres.checkpoints.catalogue import load_model, read_card
from rsupres.checkpoints.file import read_checkpoint, write_checkpoint
from rsupres.diffusion.noise import NoiseField
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.families.base import Conditions, SamplerOptions, SceneContext, TileBatch
from rsupres.families.levels import band_levels
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.resolver import Sgdm
from rsupres.families.sgdm.sampling import sample_latent
from rsupres.grid import Grid, PixelWindow
from rsupres.tile_grid import Tile, TileGrid
from rsupres.upscaling.memory import ArrayReader

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

ROOT = Path(__file__).parents[2]
SCENE = "sentinel2/oscd_rio_20160424_S2L1C_4band_utm32723.tif"
ROWS, COLS = 112, 112  # LR pixels of the scene's lower left: two by two tiles
CPU = torch.device("cpu")
Picture = NDArray[np.float32]


def main() -> None:
    """Print the table for the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="sgdm-mini")
    parser.add_argument("--norm", choices=("group", "pixel"))
    parser.add_argument("--tile", type=int, default=64, help="LR pixels")
    parser.add_argument("--overlap", type=int, default=16, help="LR pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = given.model
        if given.norm is not None:
            path = str(with_norm(given.model, given.norm, Path(folder)))
        model = load_model(path, CPU, SamplerOptions())
    assert isinstance(model, Sgdm)
    with torch.inference_mode():
        compare(Scene.read(model, given.seed), given)


@dataclass(frozen=True)
class Scene:
    """What all ways start from.

    Attributes:
        model: on the CPU.
        lr: (3, h, w) in [0, 1].
        noise: of the ground.
        context: what tiles share.
    """

    model: Sgdm
    lr: Picture
    noise: NoiseField
    context: SceneContext

    @classmethod
    def read(cls, model: Sgdm, seed: int) -> Scene:
        """Read the part of the scene; 1 is the percentile 99.5."""
        with rasterio.open(data_folder() / SCENE) as source:
            dn = source.read([1, 2, 3])[:, -ROWS:, :COLS].astype(np.float32)
        lr = np.clip(dn / np.percentile(dn, 99.5), 0, 1)
        noise = NoiseField(seed)
        return cls(
            model, lr, noise, model.prepare(ArrayReader(lr), cls.by(model), noise)
        )

    @staticmethod
    def by(model: Sgdm) -> Fraction:
        """Return the only scale that the model offers."""
        (scale,) = model.spec.scales.values  # type: ignore[union-attr]
        return scale

    @property
    def scale(self) -> Fraction:
        """SR pixels along an LR pixel."""
        return self.by(self.model)

    def tiles(self, scale: Fraction, way: Way) -> TileGrid:
        """Cut the scene into tiles that meet on a grid `scale` times finer than LR."""
        height, width = self.lr.shape[1:]
        frame = Grid(None, Affine.identity(), height, width)
        multiple = int(self.model.spec.multiple * scale / self.scale)
        sizes = way.size, way.overlap, way.halo
        return TileGrid.plan(frame, scale, *sizes, multiple)

    def batch(self, tile: Tile) -> TileBatch:
        """Return a tile of the SR grid as the pipeline hands it over."""
        part = torch.from_numpy(self.lr[:, *tile.lr.slices()].copy())[None]
        valid = torch.ones_like(part[:, :1], dtype=torch.bool)
        windows = [tile.lr], [tile.sr]
        return TileBatch(part, valid, Conditions(), self.noise, *windows, self.context)

    def features(self, window: PixelWindow) -> list[Tensor]:
        """Return what the adapter makes of a part of the scene, LR pixels."""
        part = torch.from_numpy(self.lr[:, *window.slices()].copy())[None]
        low, high = band_levels(self.context.numbers, CPU)
        enlarged = self.model._enlarge((part - low) / (high - low), self.scale)
        return self.model.networks.features(enlarged, self.model._chart(None, enlarged))

    def shown(self, image: Tensor) -> Picture:
        """Undo the levels of the scene, as the model does."""
        low, high = band_levels(self.context.numbers, CPU)
        return (low + (high - low) * image).clamp(0, 1)[0].numpy()


class Way(NamedTuple):
    """Sizes of tiles in LR pixels."""

    size: int
    overlap: int
    halo: int


@dataclass(frozen=True)
class Blended:
    """Networks whose denoiser sees a scene's latent tile by tile, and blends.

    What `sample_latent` takes for networks.
    """

    scene: Scene
    tiles: TileGrid
    parts: Sequence[Sequence[Tensor]]

    @property
    def config(self) -> SgdmConfig:
        """The architecture."""
        return self.scene.model.config

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoiser itself."""
        return self.scene.model.networks.unet

    def predict(
        self,
        z: Tensor,
        t: Tensor | StepShifts,
        context: Tensor | ContextKeys | None,
        features: Sequence[Tensor],
    ) -> Tensor:
        """Return the blended prediction for the latent of the scene."""
        networks = self.scene.model.networks

        def predicted(k: int, tile: Tile) -> Picture:
            rows, cols = tile.sr.slices()
            said = networks.predict(z[..., rows, cols], t, context, self.parts[k])
            return said[0].numpy()

        return torch.from_numpy(blend(self.tiles, z.shape[1], predicted))[None]


def blend(
    tiles: TileGrid, channels: int, make: Callable[[int, Tile], Picture]
) -> Picture:
    """Return the weighted sum of what is made of each tile."""
    mosaic, pieces = Mosaic(tiles, channels), []
    for k, tile in enumerate(tiles):
        mosaic.add(tile, make(k, tile))
        pieces += mosaic.finished()
    return join(pieces)


def in_one_piece(scene: Scene) -> Picture:
    """Return the scene as one tile."""
    height, width = scene.lr.shape[1:]
    (tile,) = scene.tiles(scene.scale, Way(max(height, width), 0, 0))
    return scene.model.upscale(scene.batch(tile), scene.scale)[0].numpy()


def in_the_image(scene: Scene, way: Way) -> Picture:
    """Return tiles blended when they are finished."""
    return blend(
        scene.tiles(scene.scale, way),
        3,
        lambda k, tile: scene.model.upscale(scene.batch(tile), scene.scale)[0].numpy(),
    )


def in_the_latent(scene: Scene, way: Way) -> Picture:
    """Return tiles blended at every step, and again when they are decoded."""
    model, config = scene.model, scene.model.config
    tiles = scene.tiles(scene.scale / config.autoencoder.factor, way)
    parts = [scene.features(tile.lr) for tile in tiles]
    cells = [tiles.sr.window]
    z = sample_latent(
        Blended(scene, tiles, parts),  # type: ignore[arg-type]  # acts like networks
        model._noise(scene.noise, 0, cells),
        (),
        model._context(scene.context.numbers),
        model.sampling,
        lambda t: model._noise(scene.noise, t, cells),
    )

    def decoded(k: int, tile: Tile) -> Picture:
        rows, cols = model._cells(tile.sr).slices()
        return scene.shown(model.networks.decode(z[..., rows, cols]))

    return blend(scene.tiles(scene.scale, way), 3, decoded)


def compare(scene: Scene, given: argparse.Namespace) -> None:
    """Print a row for every way."""
    size, overlap, halo = given.tile, given.overlap, scene.model.spec.halo
    with_halo, without = Way(size, overlap, halo), Way(size, overlap, 0)
    ways: list[tuple[str, Way, Callable[[], Picture]]] = [
        ("one piece", with_halo, lambda: in_one_piece(scene)),
        ("cut", Way(size, 0, 0), lambda: in_the_image(scene, Way(size, 0, 0))),
        ("image, no halo", without, lambda: in_the_image(scene, without)),
        ("latent, no halo", without, lambda: in_the_latent(scene, without)),
        (f"image, halo {halo}", with_halo, lambda: in_the_image(scene, with_halo)),
        (f"latent, halo {halo}", with_halo, lambda: in_the_latent(scene, with_halo)),
    ]
    print(f"tiles of {size}, overlap {overlap}, {scene.model.sampling}")
    print("| way | seam ratio | one piece, same lines | RMS from one piece | CPU s |")
    print("|---|---|---|---|---|")
    whole: Picture | None = None
    for name, way, make in ways:
        began = time.process_time()
        got = make()
        seconds = time.process_time() - began
        whole = got if whole is None else whole
        rows, cols = tile_borders(scene.tiles(scene.scale, way))
        seams = [seam_ratio(picture, rows, cols) for picture in (got, whole)]
        rms = float(np.sqrt(np.square(got - whole).mean()))
        figures = f"{seams[0]:.4f} | {seams[1]:.4f} | {rms:.5f} | {seconds:.1f}"
        print(f"| {name} | {figures} |", flush=True)
        if given.pictures is not None:
            save(
                given.pictures / f"{name.replace(', ', '_').replace(' ', '_')}.png", got
            )


def save(path: Path, picture: Picture) -> None:
    """Write a picture for looking at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tones = (np.sqrt(picture.clip(0, 1)) * 255).round().astype(np.uint8)
    Image.fromarray(tones.transpose(1, 2, 0)).save(path)


def with_norm(model: str, norm: str, folder: Path) -> Path:
    """Write a checkpoint whose networks normalise in another way; return its path."""
    stored = read_checkpoint(Path(read_card(model).file or model))
    changed = {
        key: {**value, "norm": norm}
        if isinstance(value, dict) and "norm" in value
        else value
        for key, value in stored.architecture.items()
    }
    path = folder / "changed.safetensors"
    write_checkpoint(path, stored.tensors, stored.spec, changed, "other norms")
    return path


if __name__ == "__main__":
    main()
