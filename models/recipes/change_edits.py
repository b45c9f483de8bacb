"""Make second dates of images: other seasons, other sensors, and edits of the ground.

Bands are red, green, blue and, if there is a fourth, near infrared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rsupres.degradations.optics import gaussian_of, sample, sampling_matrix

Floats = NDArray[np.float32]
FINE = 4  # parts of a pixel, along each side, in which edits are drawn
MIN_FIELD = 30  # pixels


def sensed(
    image: Floats, n: int, shift: NDArray[np.float64], random: np.random.Generator
) -> Floats:
    """Return an image (c, H, W) as a sensor of n x n pixels sees it, with noise."""
    mtf = random.uniform(0.15, 0.4)
    made = []
    for band in image:
        kernel = gaussian_of(float(np.clip(mtf + random.normal(0, 0.02), 0.1, 0.45)))
        if band.shape[0] == n:  # seen by a sensor before: blurred little more
            kernel = gaussian_of(float(random.uniform(0.45, 0.7)))
        rows, cols = (
            sampling_matrix(n, whole, kernel, float(by))
            for whole, by in zip(band.shape, shift, strict=True)
        )
        made.append(sample(band[None], rows, cols)[0])
    seen = np.stack(made)
    noise = random.uniform(0.003, 0.04) * seen.std((1, 2), keepdims=True)
    return (seen + noise * random.normal(size=seen.shape)).astype(np.float32)


def toned(image: Floats, random: np.random.Generator) -> NDArray[np.float64]:
    """Return an image in other units: gains, gamma, a little of other bands, 8 bits."""
    mix = np.eye(len(image)) + 0.06 * random.normal(size=(len(image), len(image)))
    bands = np.tensordot(mix, image.astype(np.float64), 1)
    low, high = np.percentile(bands, (0.2, 99.8), axis=(1, 2))
    span = np.maximum(high - low, 1e-9)[:, None, None]
    unit = ((bands - low[:, None, None]) / span).clip(-0.1, 1.3)
    if random.random() < 0.5:
        unit = np.sign(unit) * np.abs(unit) ** random.uniform(0.7, 1.3)
    if random.random() < 0.5:
        unit = np.rint(unit * 200) / 200
    return np.asarray(unit + 1e-4 * random.normal(size=unit.shape))


def season(image: Floats, random: np.random.Generator) -> Floats:
    """Return another date of an image (4, h, w) on which nothing was built.

    Vegetation, bare ground and single fields get other tones, light comes from another
    side, haze varies, and some dates have clouds with shadows.
    """
    spread = image.std((1, 2), keepdims=True)
    green = (image[3] - image[0]) / np.maximum(image[3] + image[0], 1e-6)
    green = 1 / (1 + np.exp(-6 * (green - np.median(green)) / (green.std() + 1e-6)))
    strength = random.uniform(0.1, 1.0)
    made = image.copy()
    for part, amount in ((green, 0.6), (1 - green, 0.25)):
        tone = amount * strength * random.normal(size=(4, 1, 1)) * spread
        made += tone * part * (1 + 0.5 * smooth(part.shape, 12, random))
    made = fields(made, green, random, strength)
    fine = image - ndimage.gaussian_filter(image, (0, 1.5, 1.5))
    by = random.uniform(-1.2, 1.2, 2)
    light = ndimage.shift(fine, (0, *by), order=1, mode="nearest")
    made += strength * (random.uniform(-0.4, 0.3) * fine - 0.35 * light)
    made += 0.15 * strength * spread * smooth(green.shape, 25, random)
    return clouded(made, spread, random) if random.random() < 0.25 else made


def fields(
    image: Floats, green: Floats, random: np.random.Generator, strength: float
) -> Floats:
    """Give flat parts of the ground the tones of other flat parts, as harvests do."""
    soft = ndimage.gaussian_filter(image, (0, 1, 1))
    steps = ndimage.gaussian_gradient_magnitude(soft[3], 1) + (
        ndimage.gaussian_gradient_magnitude(soft[0], 1)
    )
    flat = steps < np.quantile(steps, random.uniform(0.3, 0.6))
    labels, count = ndimage.label(flat)
    sizes = ndimage.sum(flat, labels, np.arange(1, count + 1))
    large = np.flatnonzero(sizes >= MIN_FIELD) + 1
    if len(large) < 2:
        return image
    tones = np.stack([ndimage.mean(band, labels, large) for band in image])
    made, share = image.copy(), random.uniform(0.1, 0.8)
    for k, label in enumerate(large):
        if random.random() > share:
            continue
        inside = ndimage.binary_dilation(labels == label, iterations=1)
        other = tones[:, random.integers(len(large))] - tones[:, k]
        weight = ndimage.uniform_filter(inside.astype(np.float32), 2)
        made += strength * random.uniform(0.4, 1.0) * other[:, None, None] * weight
    return made


def clouded(image: Floats, spread: Floats, random: np.random.Generator) -> Floats:
    """Lay soft clouds and their shadows over an image."""
    field = smooth(image.shape[1:], random.uniform(6, 20), random)
    cloud = ((field - random.uniform(0.8, 1.8)) / 0.6).clip(0, 1)
    cloud = np.asarray(cloud * cloud * (3 - 2 * cloud), np.float32)
    away = random.integers(-25, 26, 2)
    shadow = np.roll(cloud, away, (0, 1))
    dark = image.min((1, 2), keepdims=True)
    made = image - 0.5 * shadow * (image - dark)
    return np.asarray(made + cloud * random.uniform(2, 6) * spread, np.float32)


def smooth(shape: tuple[int, ...], width: float, random: np.random.Generator) -> Floats:
    """Return a smooth random field of unit variance."""
    field = ndimage.gaussian_filter(random.normal(size=shape), width, mode="wrap")
    return np.asarray(field / field.std(), np.float32)


def edited(
    image: Floats, other: Floats, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Build on an image: return it, and the changed share of each pixel.

    Single houses, blocks, sites and roads get the pixels of built-up or bare ground of
    another place; taller ones a shadow.
    """
    height, width = image.shape[1:]
    made, total = image.copy(), np.zeros((height, width), np.float32)
    looks = gains(image, other)
    for _ in range(int(random.integers(1, 16))):
        fine = outline(height, width, random)
        share = shares(fine)
        if share.max() < 0.3 or (share > 0).mean() > 0.08:
            continue
        edge = random.uniform(0.35, 0.6)
        seen = ndimage.gaussian_filter(share, edge)
        if random.random() < 0.4:
            by = tuple(int(k) for k in random.integers(-1, 2, 2) * FINE // 2)
            cast = shares(np.roll(fine, by, (0, 1)) & ~fine)
            low = np.percentile(made, 2, axis=(1, 2))[:, None, None]
            made += 0.5 * ndimage.gaussian_filter(cast, edge) * (low - made)
        made = made + seen * (texture(looks, made.shape, random) - made)
        total = np.maximum(total, share)
    return made.astype(np.float32), total


def gains(image: Floats, other: Floats) -> Floats:
    """Return another place in the tones of this one, those of both dark and bright."""
    own, foreign = (np.percentile(k, (5, 95), axis=(1, 2)) for k in (image, other))
    span = np.maximum(foreign[1] - foreign[0], 1e-6)
    factor = ((own[1] - own[0]) / span)[:, None, None]
    made = (other - foreign[0][:, None, None]) * factor + own[0][:, None, None]
    return np.asarray(made, np.float32)


def outline(height: int, width: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return where something is built, on `FINE` x `FINE` parts of each pixel."""
    rows, cols = np.mgrid[: height * FINE, : width * FINE].astype(np.float32) / FINE
    middle = random.uniform(0, (height, width))
    angle = random.uniform(0, np.pi)
    u = (rows - middle[0]) * np.cos(angle) + (cols - middle[1]) * np.sin(angle)
    v = (cols - middle[1]) * np.cos(angle) - (rows - middle[0]) * np.sin(angle)
    kind = random.choice(["houses", "block", "site", "road"], p=[0.4, 0.25, 0.2, 0.15])
    if kind == "road":
        bend = random.uniform(-0.02, 0.02)
        along = np.abs(u) < random.uniform(6, 40)
        return np.asarray(along & (np.abs(v - bend * u**2) < random.uniform(0.4, 1.2)))
    if kind == "houses":
        step, wide = random.uniform(1.6, 4, 2), random.uniform(0.7, 2.2, 2)
        reach = random.uniform(1, 9, 2)
        near = (np.abs(u) < reach[0]) & (np.abs(v) < reach[1])
        on = (u % step[0] < wide[0] * 0.8) & (v % step[1] < wide[1] * 0.8)
        keep = random.random((99, 99)) < random.uniform(0.5, 1)
        there = keep[(u // step[0]).astype(int) % 99, (v // step[1]).astype(int) % 99]
        return np.asarray(near & on & there)
    reach = np.exp(random.uniform(*np.log((0.6, 4) if kind == "block" else (2, 12)), 2))
    return np.asarray((np.abs(u) < reach[0]) & (np.abs(v) < reach[1]))


def shares(fine: NDArray[np.bool_]) -> Floats:
    """Return shares of pixels from their parts."""
    rows, cols = (side // FINE for side in fine.shape)
    cells = fine.reshape(rows, FINE, cols, FINE)
    return np.asarray(cells.mean((1, 3)), np.float32)


def texture(
    looks: Floats, shape: tuple[int, ...], random: np.random.Generator
) -> Floats:
    """Return (c, h, w) filled with built-up ground of another place.

    Half of the fillings are a piece of it as it is, one that has fine structure or
    little vegetation; the others are one tone of it with a little grain.
    """
    count, height, width = shape
    looks = looks[:count]
    rough = ndimage.gaussian_gradient_magnitude(looks.mean(0), 1.0)
    bare = looks[0] / looks[0].std() - looks[-1] / looks[-1].std()
    worth = rough / rough.std() + bare / bare.std()
    places = np.argwhere(worth > np.quantile(worth, 0.9))
    row, col = places[random.integers(len(places))]
    if random.random() < 0.5:
        rolled = np.roll(looks, (-row, -col), (1, 2))
        turns = int(random.integers(4))
        piece = np.rot90(
            np.roll(rolled, (height // 2, width // 2), (1, 2)), turns, (1, 2)
        )
        reps = [
            -(-n // m) for n, m in zip((height, width), piece.shape[1:], strict=True)
        ]
        return np.asarray(np.tile(piece, (1, *reps))[:, :height, :width], np.float32)
    tone = looks[:, row, col] * random.uniform(0.8, 1.25)
    grain = random.normal(size=shape) * random.uniform(0.02, 0.2)
    spread = looks.std((1, 2))[:, None, None]
    return np.asarray(tone[:, None, None] + spread * grain, np.float32)
