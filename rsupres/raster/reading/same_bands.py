"""Match the bands of files that are joined: by their names, colours or order."""

from __future__ import annotations

from rsupres.errors import InputError
from rsupres.raster.dataset import Raster
from rsupres.raster.open import usual_band_name


def match_bands(part: Raster, first: Raster) -> tuple[int, ...]:
    """Return the bands of a file in the order of another one that it is joined with.

    Bands with the same names, or colours, in another order are matched by them; the
    order in the file counts where names say nothing.

    Args:
        part: open, with as many data bands as `first`.
        first: open.

    Raises:
        InputError: some names are shared and others are not.
    """
    theirs, ours = _labels(first), _labels(part)
    bands = part.data_bands
    if theirs != ours and set(theirs) & set(ours):
        if sorted(theirs) != sorted(ours) or len(set(ours)) < len(ours):
            raise InputError(
                f"{part.path}: bands {', '.join(ours)} are not {', '.join(theirs)} of "
                f"{first.path}; files that are joined must have the same bands."
            )
        bands = tuple(bands[ours.index(label)] for label in theirs)
    return bands


def _labels(scene: Raster) -> list[str]:
    """Return names of the data bands, or else colours; empty when some have none."""
    names = [scene.descriptions[band - 1] or "" for band in scene.data_bands]
    if all(names):
        return [usual_band_name(name.strip().upper()) for name in names]
    colours = [scene.colorinterp[band - 1] for band in scene.data_bands]
    known = all(colour not in ("undefined", "gray") for colour in colours)
    return colours if known else []
