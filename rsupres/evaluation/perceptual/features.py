"""Features of AlexNet and VGG-16, for LPIPS (alex, vgg) and DISTS.

Layers are built here from plain ones, numbered as torchvision numbers them, and filled
from its files. Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", version 0.1; Krizhevsky 2014; Simonyan, Zisserman 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from rsupres.evaluation.perceptual.lpips import Taps, fill


def fill_features(
    layers: nn.Sequential, stored: Mapping[str, Tensor], path: Path
) -> None:
    """Fill layers from a file of torchvision, which numbers them alike.

    Args:
        layers: to be filled.
        stored: tensors of the file by name.
        path: of the file, for messages.

    Raises:
        CheckpointError: the file has other layers.
    """
    own = {
        name.removeprefix("features."): value
        for name, value in stored.items()
        if name.startswith("features.")
    }
    fill(layers, own, path)


def alex_features() -> Taps:
    """Return the feature layers of AlexNet, numbered as torchvision does."""
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    )
    return Taps(layers, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256))


VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
VGG_TAPS = (3, 8, 15, 22, 29)


def vgg_layers() -> nn.Sequential:
    """Return the feature layers of VGG-16, numbered as torchvision does."""
    layers: list[nn.Module] = []
    n_in = 3
    for channels, n_convolutions in VGG_STAGES:
        for _ in range(n_convolutions):
            layers += [nn.Conv2d(n_in, channels, 3, padding=1), nn.ReLU()]
            n_in = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def vgg_features() -> Taps:
    """Return the layers of VGG-16 with the taps of LPIPS."""
    return Taps(vgg_layers(), VGG_TAPS, tuple(channels for channels, _ in VGG_STAGES))
