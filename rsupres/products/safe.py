"""Read the metadata of Sentinel-2 products: `MTD_MSIL1C.xml`, `MTD_MSIL2A.xml`.

Scale, offsets, nodata and saturation are taken from the elements that hold them and
from nothing else: neither the date nor the baseline implies an offset. The metadata of
a band file that is given alone are looked for in the folders above it.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from xml.etree import ElementTree

from rsupres.errors import InputError
from rsupres.products.model import BandFile, Product, Radiometry
from rsupres.products.reading import names_in, read_bytes, split_zip
from rsupres.products.sentinel2 import BANDS, band_code, code_in_file_name

METADATA_NAMES = (
    "MTD_MSIL*.xml",
    "S2?_OPER_MTD_SAFL*.xml",  # before 2016-12
    "S2?_USER_MTD_SAFL*.xml",  # the same, by Sen2Cor
    "product_metadata.xml",
)
MAX_FOLDERS_UP = 5  # from a band file to the metadata of its product
_QUANTIFICATION = (
    "QUANTIFICATION_VALUE",
    "BOA_QUANTIFICATION_VALUE",
    "L2A_BOA_QUANTIFICATION_VALUE",
    "L1C_QUANTIFICATION_VALUE",
)
_OFFSET = ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET")
_IMAGE = re.compile(r"IMAGE_(FILE|ID)(_2A)?")  # elements
_CLOUDS = (  # masks of Level 1C, the older ones last
    (re.compile(r"MSK_CLASSI_B00\.jp2"), "CLASSI"),
    (re.compile(r"(S2\w+_)?MSK_CLOUDS_(\w+_)?B00(_MSIL1C)?\.gml"), "CLOUDS"),
)
_KEPT = (
    "PRODUCT_URI",
    "PROCESSING_LEVEL",
    "PRODUCT_TYPE",
    "PROCESSING_BASELINE",
    "PRODUCT_START_TIME",
    "GENERATION_TIME",
    "SPACECRAFT_NAME",
    "SENSING_ORBIT_NUMBER",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SafeMetadata:
    """The metadata file of a Sentinel-2 product.

    Attributes:
        path: of the file.
        tags: facts that outputs keep, by the names of their elements.
        quantification: DN of reflectance 1; None = the file does not say.
        offsets: DN added before the division, by band; empty = none are declared.
        nodata: DN; None = the file does not say.
        saturated: DN; None = the file does not say.
        images: paths of the band files below the product, without their suffix.
    """

    path: str
    tags: Mapping[str, str]
    quantification: float | None
    offsets: Mapping[str, float]
    nodata: float | None
    saturated: float | None
    images: tuple[str, ...]

    @property
    def granules(self) -> tuple[str, ...]:
        """Folders of the granules below the product, such as GRANULE/L2A_T32UNU_A1."""
        return tuple(dict.fromkeys("/".join(i.split("/")[:2]) for i in self.images))

    def of_granule(self, granule: str) -> SafeMetadata:
        """Return the metadata of one granule of `granules`."""
        own = tuple(i for i in self.images if i.startswith(f"{granule}/"))
        return replace(self, images=own)

    def radiometry(self, band: str) -> Radiometry | None:
        """Return scale and offset of a band; None where the file does not state them.

        A product without any offset has none; one that lists some has no default.
        """
        if not self.quantification:
            return None
        offset = self.offsets.get(band) if self.offsets else 0.0
        if offset is None:
            return None
        return Radiometry(1 / self.quantification, offset / self.quantification)


def read_metadata(path: str) -> SafeMetadata | None:
    """Read the metadata of a product; None when a file holds those of a granule.

    Raises:
        InputError: the file cannot be read, or is no XML.
    """
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: damaged metadata ({error}).") from error
    if not _local(root).endswith("_User_Product"):
        return None
    found = {_local(element): element for element in root.iter()}
    special = _special_values(root)
    quantification = next((found[n] for n in _QUANTIFICATION if n in found), None)
    return SafeMetadata(
        path=path,
        tags={name: text for name in _KEPT if (text := _text(found.get(name)))},
        quantification=_number(quantification, path),
        offsets=_offsets(root, path),
        nodata=special.get("NODATA"),
        saturated=special.get("SATURATED"),
        images=tuple(_images(root)),
    )


def _images(root: ElementTree.Element) -> Iterator[str]:
    """Yield paths of images below the product, without suffix; names before 2016-12."""
    for granule in root.iter():
        if _local(granule) not in ("Granule", "Granules"):
            continue
        folder = f"GRANULE/{granule.get('granuleIdentifier', '')}/IMG_DATA"
        for element in granule:
            name = _text(element)
            if not name or not _IMAGE.fullmatch(_local(element)):
                continue
            size = _size_in_name(name)
            place = f"{folder}/R{size}m" if size else folder
            yield name if "/" in name else f"{place}/{name}"


def find_metadata(band_file: str) -> SafeMetadata | None:
    """Return the metadata of the product that a band file belongs to, or None."""
    name = band_file
    if split_zip(band_file) is None:
        if not os.path.isfile(band_file):
            return None
        name = os.path.abspath(band_file)
    stem = posixpath.basename(name).rsplit(".", 1)[0]
    for _ in range(MAX_FOLDERS_UP):
        name = posixpath.dirname(name)
        for path in metadata_in(name):
            metadata = read_metadata(path)
            if metadata is not None and _holds(metadata, stem):
                return metadata
    return None


def metadata_in(folder: str) -> Iterator[str]:
    """Yield the files of a folder that are named as metadata of a product."""
    for name in names_in(folder):
        if is_metadata_name(name):
            yield f"{folder.rstrip('/')}/{name}"


def is_metadata_name(name: str) -> bool:
    """Return whether a file is named as the metadata of a product."""
    return any(fnmatch(name.lower(), pattern.lower()) for pattern in METADATA_NAMES)


def _holds(metadata: SafeMetadata, stem: str) -> bool:
    """Return whether a band file is one of a product: listed, or named "B02" alone."""
    listed = {image.rsplit("/", 1)[-1] for image in metadata.images}
    return stem in listed or band_code(stem) == stem


def open_safe(path: str, metadata: SafeMetadata) -> Product:
    """Return the description of a product with the files of its metadata.

    Args:
        path: as the user gave it.
        metadata: of it.

    Raises:
        InputError: files that the metadata list are missing.
    """
    root = posixpath.dirname(metadata.path)
    bands: dict[str, BandFile] = {}
    layers: dict[str, BandFile] = {}
    lost: dict[str, str] = {}
    # The finest of each band first, else in their order.
    for image in sorted(metadata.images, key=lambda image: _size_in_name(image) or 0):
        name = code_in_file_name(image.rsplit("/", 1)[-1])
        if name is None or name in bands or name in layers:
            continue
        file = _image_file(root, image)
        if file is None:
            lost.setdefault(name, image)
            continue
        found = BandFile(name, file, 1, metadata.radiometry(name), _gsd(image, name))
        (bands if name in BANDS else layers)[name] = found
    if metadata.images and not bands:
        raise InputError(
            f"{path}: none of the {len(metadata.images)} image files that "
            f"{posixpath.basename(metadata.path)} lists is there."
        )
    if partial := sorted(lost.keys() & BANDS.keys()):
        logger.warning(
            "%s: the image of %s is missing, such as %s, though the metadata list it; "
            "was the product downloaded in part? The rest is used.",
            path,
            ", ".join(partial),
            lost[partial[0]],
        )
    for image in metadata.images[:1]:
        layers |= _cloud_masks(root, image)
    return Product(
        path=path,
        bands=tuple(bands.values()),
        layers=layers,
        nodata=metadata.nodata,
        saturated=metadata.saturated,
        tags=metadata.tags,
        sources=(metadata.path,),
    )


def _cloud_masks(root: str, image: str) -> dict[str, BandFile]:
    """Return the cloud mask of Level 1C, as an image or as polygons."""
    folder = re.sub(r"/IMG_DATA/.*", "/QI_DATA", f"{root}/{image}")
    names = names_in(folder)
    for pattern, layer in _CLOUDS:
        if found := next(filter(pattern.fullmatch, names), None):
            return {layer: BandFile(layer, f"{folder}/{found}")}
    return {}


def _size_in_name(image: str) -> int | None:
    found = re.search(r"_(10|20|60)m$", image)
    return int(found.group(1)) if found else None


def _gsd(image: str, name: str) -> float | None:
    size = _size_in_name(image)
    facts = BANDS.get(name)
    return float(size) if size else float(facts.gsd) if facts else None


def _image_file(root: str, image: str) -> str | None:
    folder, name = posixpath.split(f"{root}/{image}")
    for there in names_in(folder):
        if there in (f"{name}.jp2", f"{name}.tif"):
            return f"{folder}/{there}"
    return None


def _special_values(root: ElementTree.Element) -> dict[str, float]:
    values: dict[str, float] = {}
    for element in root.iter():
        if _local(element) == "Special_Values":
            parts = {_local(child): _text(child) for child in element}
            name, value = (
                parts.get(f"SPECIAL_VALUE_{part}") for part in ("TEXT", "INDEX")
            )
            if name and value:
                values[name.upper()] = float(value)
    return values


def _offsets(root: ElementTree.Element, path: str) -> dict[str, float]:
    """Return the offsets in DN by band; `band_id` is the place in the band list."""
    by_number = {str(facts.number): name for name, facts in BANDS.items()}
    offsets: dict[str, float] = {}
    for element in root.iter():
        if _local(element) in _OFFSET:
            value = _number(element, path)
            name = by_number.get(element.get("band_id", ""))
            if name is None or value is None:
                raise InputError(f"{path}: an offset without a known band.")
            offsets[name] = value
    return offsets


def _number(element: ElementTree.Element | None, path: str) -> float | None:
    text = _text(element)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: {text!r} is no number.") from None


def _local(element: ElementTree.Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


def _text(element: ElementTree.Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""
