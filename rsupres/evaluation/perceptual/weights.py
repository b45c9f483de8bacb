"""Find the weights of perceptual measures in a folder, verify and load them.

Weights are looked for in one folder and its subfolders, by name, and compared with
their published hashes; nothing is downloaded. A measure whose files are missing is left
out, and a line names the files and where they come from.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rsupres.errors import CheckpointError
from rsupres.evaluation.measures.niqe import niqe, read_model
from rsupres.evaluation.perceptual.dists import Dists, dists_distance
from rsupres.evaluation.perceptual.features import (
    alex_features,
    fill_features,
    vgg_features,
)
from rsupres.evaluation.perceptual.inception import Features, Inception, features_of
from rsupres.evaluation.perceptual.lpips import (
    FEATURES_FILE,
    HEADS_FILE,
    Lpips,
    LpipsSqueeze,
    load_lpips,
    lpips_distance,
    read_weights,
)
from rsupres.evaluation.perceptual.musiq import Musiq, musiq_quality
from rsupres.raster.files import file_sha256

logger = logging.getLogger(__name__)

ENVIRONMENT = "RSUPRES_METRIC_WEIGHTS"

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


class WeightFile(NamedTuple):
    """A file that a measure needs: name, first digits of its SHA-256, source."""

    name: str
    sha256: str
    source: str


_ALEX = WeightFile("alexnet-owt-7be5be79.pth", "7be5be79", "torchvision's AlexNet")
_VGG = WeightFile("vgg16-397923af.pth", "397923af", "torchvision's VGG-16")
_SQUEEZE = WeightFile(
    FEATURES_FILE,
    "ddda4fdf55b45e87f5c47e694937c6bef192a54290f1cff326c589bd0412ffc1",
    "features of torchvision's SqueezeNet 1.1 in float16",
)
_LPIPS = "LPIPS v0.1 of its authors"
FILES: Mapping[str, tuple[WeightFile, ...]] = {
    "lpips_squeeze": (
        _SQUEEZE,
        WeightFile(
            HEADS_FILE,
            "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
            _LPIPS,
        ),
    ),
    "lpips_alex": (
        _ALEX,
        WeightFile(
            "lpips_lin_alex_v0.1.pth",
            "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            _LPIPS,
        ),
    ),
    "lpips_vgg": (
        _VGG,
        WeightFile(
            "lpips_lin_vgg_v0.1.pth",
            "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            _LPIPS,
        ),
    ),
    "dists": (
        _VGG,
        WeightFile(
            "dists_alpha_beta.pt",
            "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
            "weights.pt of DISTS' authors",
        ),
    ),
    "clip_iqa": (
        WeightFile(
            "ViT-B-16.pt",
            "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
            "CLIP ViT-B/16 of OpenAI",
        ),
    ),
    "musiq": (
        WeightFile(
            "musiq_koniq_ckpt-e95806b9.pth",
            "e95806b9",
            "MUSIQ for KonIQ-10k, of IQA-PyTorch",
        ),
    ),
    "niqe": (
        WeightFile(
            "niqe_pris_params.npz",
            "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
            "NIQE's model of photographs, of BasicSR",
        ),
    ),
    "fid": (
        WeightFile(
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d",
            "Inception v3 for FID, of pytorch-fid",
        ),
    ),
}
OF_SETS = {"fid": "FID and KID"}  # figures of all images of a test together


class Perceptual(NamedTuple):
    """Measures whose weights were found.

    Attributes:
        measures: by figure, functions of (sr, hr, valid): (3, H, W) in [0, 1] and
            (H, W) bool.
        features: of a picture of 8 bits, for FID and KID; None without their weights.
    """

    measures: dict[str, Measure]
    features: Features | None = None


def load_measures(
    folder: Path | None, lpips_folder: Path | None, device: str | torch.device
) -> Perceptual:
    """Return the perceptual measures whose weights are found, by figure.

    Args:
        folder: searched with its subfolders; None = the folder that the environment
            variable `RSUPRES_METRIC_WEIGHTS` names.
        lpips_folder: of LPIPS (squeeze) alone; None = `RSUPRES_LPIPS`.
        device: where the networks compute.

    Raises:
        CheckpointError: a file is not the published one, or the folder holds the
            weights of no measure.
    """
    named = os.environ.get(ENVIRONMENT)
    folder = folder or (Path(named) if named else None)
    found: dict[str, Measure] = {}
    if (lpips := load_lpips(lpips_folder, device)) is not None:
        found["lpips_squeeze"] = _lpips_measure(lpips)
    if folder is None:
        return Perceptual(found)
    paths = find_weights(folder)
    for figure, (first, *rest) in paths.items():
        if figure not in OF_SETS and figure not in found:
            found[figure] = _load(figure, first, rest, device)
    return Perceptual(found, _load_features(paths, device))


def find_weights(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files of each measure whose files are all there.

    A warning names the files that each of the other measures lacks.

    Raises:
        CheckpointError: a file is not the published one, or no measure has its files.
    """
    there = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}
    found = {}
    for figure, files in FILES.items():
        missing = [file for file in files if file.name not in there]
        if missing:
            names = " and ".join(f"{file.name} ({file.source})" for file in missing)
            named = OF_SETS.get(figure, figure)
            logger.warning("%s not measured: %s lacks %s.", named, folder, names)
            continue
        for file in files:
            _check(there[file.name], file)
        found[figure] = tuple(there[file.name] for file in files)
    if not found:
        raise CheckpointError(
            f"{folder}: holds the weights of no measure, such as {HEADS_FILE} and "
            f"{FEATURES_FILE}.",
            argument="metric_weights",
        )
    return found


def _check(path: Path, file: WeightFile) -> None:
    digest = file_sha256(path)
    if not digest.startswith(file.sha256):
        raise CheckpointError(
            f"{path}: is not {file.source}: its SHA-256 begins with {digest[:8]}, not "
            f"{file.sha256[:8]}.",
            argument="metric_weights",
        )


def _load(
    figure: str, first: Path, rest: Sequence[Path], device: str | torch.device
) -> Measure:
    """Return a measure; the hashes of its files were compared."""
    if figure == "niqe":
        model = read_model(first)
        return lambda sr, hr, valid: niqe(sr, valid, model)
    if figure == "clip_iqa":
        from rsupres.evaluation.perceptual.clip_iqa import ClipIqa, read_clip

        return ClipIqa(first, read_clip(first), device)
    if figure == "musiq":
        musiq = Musiq.load(first, read_weights(first)).to(device)
        return lambda sr, hr, valid: musiq_quality(musiq, sr, valid)
    (head,) = rest
    if figure == "lpips_squeeze":
        return _lpips_measure(LpipsSqueeze.load_files(first, head).to(device))
    weights = read_weights(first)
    if figure == "dists":
        dists = Dists()
        fill_features(dists.features, weights, first)
        dists.set_shares(read_weights(head))
        dists.requires_grad_(False)
        dists.to(device).eval()
        return lambda sr, hr, valid: dists_distance(dists, sr, hr, valid)
    net = Lpips(alex_features() if figure == "lpips_alex" else vgg_features())
    fill_features(net.backbone.features, weights, first)
    net.fill_heads(head)
    net.requires_grad_(False)
    return _lpips_measure(net.to(device).eval())


def _load_features(
    paths: Mapping[str, tuple[Path, ...]], device: str | torch.device
) -> Features | None:
    if "fid" not in paths:
        return None
    (path,) = paths["fid"]
    network = Inception.load(path, read_weights(path)).to(device)
    return lambda picture: features_of(network, picture)


def _lpips_measure(module: Lpips) -> Measure:
    return lambda sr, hr, valid: lpips_distance(module, sr, hr, valid)
