"""PatchGAN discriminator, hinge losses, and the adaptive weight between losses.

Isola et al. 2017 as in taming-transformers; parameter names are those of its public
code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PatchDiscriminator(nn.Module):
    """Classify 70 px patches of an image in [-1, 1] as real or generated.

    Args:
        width: channels of the first layer (64 in the paper).
        norm: "batch" as published; "spectral" where batches are too small for
            statistics (Miyato et al. 2018).
        channels: of the image, with those of a condition where it sees one.
    """

    def __init__(self, width: int = 64, norm: str = "batch", channels: int = 3) -> None:
        super().__init__()
        batch = norm == "batch"
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
        ]
        channels = width
        for stride in (2, 2, 1):
            conv = nn.Conv2d(channels, 2 * channels, 4, stride, 1, bias=not batch)
            if batch:
                layers += [conv, nn.BatchNorm2d(2 * channels)]
            else:
                layers += [nn.utils.parametrizations.spectral_norm(conv), nn.Identity()]
            layers.append(nn.LeakyReLU(0.2))
            channels *= 2
        layers.append(nn.Conv2d(channels, 1, 4, 1, 1))
        self.main = nn.Sequential(*layers)
        if batch:
            self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Map (b, c, H, W) to logits (b, 1, about H / 8, about W / 8)."""
        logits: Tensor = self.main(image)
        return logits


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's hinge loss: half the sum of both means.

    Args:
        real: answers of the discriminator to true pictures, any shape.
        fake: its answers to results.
    """
    losses = functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()
    return 0.5 * losses


def hinge_generator(fake: Tensor) -> Tensor:
    """Return the generator's hinge loss."""
    return -fake.mean()


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, last: Tensor
) -> Tensor:
    """Return the balance of both losses' gradients, 0 to 1e4 (Rombach et al. 2022).

    Args:
        reconstruction: scalar loss.
        adversarial: scalar loss.
        last: weight of the last layer.
    """
    target = torch.autograd.grad(reconstruction, last, retain_graph=True)[0].norm()
    found = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    weight: Tensor = (target / (found + 1e-4)).clamp(0.0, 1e4).detach()
    return weight


def _initialise(module: nn.Module) -> None:
    """Normal(0, 0.02) convolutions, batch-norm gains Normal(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
