"""Describe a product in plain values: its bands, its layers of classes, its radiometry.

Every kind of metadata is read into the same `Product`, so that nothing above this
package knows which kind it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rsupres.errors import BandError, InputError


@dataclass(frozen=True)
class Radiometry:
    """Scale and offset of digital numbers: physical value = DN * scale + offset.

    Attributes:
        scale: such as 0.0001.
        offset: such as -0.1, in units of the physical value.
    """

    scale: float
    offset: float


@dataclass(frozen=True)
class BandFile:
    """One band of a product.

    Attributes:
        name: "B02", "B8A", "SCL".
        path: as GDAL opens it.
        band: of that file, from 1.
        radiometry: None where the product does not tell it.
        gsd: side of a pixel in metres; None = unknown before the file is opened.
    """

    name: str
    path: str
    band: int = 1
    radiometry: Radiometry | None = None
    gsd: float | None = None


@dataclass(frozen=True)
class Product:
    """The metadata of a product.

    Attributes:
        path: as the user gave it.
        bands: the measured bands, each at its finest pixel size.
        layers: bands of classes or bits, by name: "SCL", "QA60".
        nodata: DN that stands for no measurement; None = the file does not say.
        saturated: DN of a saturated detector; None = the file does not say.
        tags: facts that the output keeps.
        item: the STAC item as JSON; None without.
        item_address: where the item is; "" without.
        sources: files that were read, beside those of the bands.
    """

    path: str
    bands: tuple[BandFile, ...]
    layers: Mapping[str, BandFile] = field(default_factory=dict)
    nodata: float | None = None
    saturated: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    item: Mapping[str, object] | None = None
    item_address: str = ""
    sources: tuple[str, ...] = ()

    def find(self, name: str) -> BandFile:
        """Return a band or a layer by its name.

        Raises:
            BandError: the product has none of this name.
        """
        wanted = name.upper()
        for band in (*self.bands, *self.layers.values()):
            if band.name.upper() == wanted:
                return band
        names = ", ".join([*(band.name for band in self.bands), *self.layers])
        raise BandError(f"{self.path}: no band {name}; the product has {names}.")


def overridden(
    path: str,
    stated: Radiometry | None,
    scale: float | None,
    offset: float | None,
    is_undecided: bool,
) -> Radiometry:
    """Return scale and offset, where a user gives one or both of them.

    Args:
        path: of the scene, for messages.
        stated: scale and offset of the file; None = it has none.
        scale: physical value of one DN; None = as the file says.
        offset: in DN, added before the multiplication; None = as the file says.
        is_undecided: it is a product that should say it, so neither part has a
            default.

    Raises:
        InputError: a part is neither given nor in the file.
    """
    if stated is None and (scale is None or (offset is None and is_undecided)):
        raise undecided(path, ("the bands",))
    unit = scale if scale is not None else stated.scale if stated else 1.0
    if offset is None:
        offset = stated.offset / stated.scale if stated else 0.0
    return Radiometry(unit, offset * unit)


def undecided(path: str, bands: Sequence[str]) -> InputError:
    """Return the error that scale and offset of bands are unknown.

    Args:
        path: of the product.
        bands: of it, whose scale and offset are unknown.
    """
    return InputError(
        f"{path}: scale and offset of {', '.join(bands)} are unknown; they do not "
        "follow from the date or the name. Keep the product's metadata beside its "
        "files, or say what the numbers mean: reflectance = (DN + offset) * scale.",
        remedies=("dn_scale=0.0001", "dn_offset=-1000", "stretch=1000,4000"),
    )
