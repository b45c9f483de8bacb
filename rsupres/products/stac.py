"""Read STAC items of Sentinel-2, Landsat and HLS: which asset is which band.

Scale and offset are those of the asset (`raster:bands`, or `raster:scale` since STAC
1.1). `earthsearch:boa_offset_applied` says that the numbers hold the offset that stands
beside it already. Items without a scale may link the product's own metadata.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rsupres.errors import InputError, ResourceError
from rsupres.products.landsat import OLI, mtl_radiometry
from rsupres.products.model import BandFile, Product, Radiometry
from rsupres.products.reading import read_bytes
from rsupres.products.safe import read_metadata
from rsupres.products.sentinel2 import BANDS, band_code, code_in_file_name

if TYPE_CHECKING:
    from pystac import Asset, Item

# Keys and common names that belong to one band of Sentinel-2.
_BY_NAME = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    **{facts.common: name for name, facts in BANDS.items()},
}
_LAYERS = ("SCL", "QA60", "QA_PIXEL", "FMASK")
_METADATA_KEYS = ("product_metadata", "product-metadata", "metadata")
_NO_BAND = frozenset({"visual", "overview", "thumbnail"})
_KEPT = {
    "s2:product_uri": "PRODUCT_URI",
    "s2:processing_baseline": "PROCESSING_BASELINE",
    "s2:product_type": "PRODUCT_TYPE",
    "processing:version": "PROCESSING_BASELINE",
    "platform": "SPACECRAFT_NAME",
    "datetime": "PRODUCT_START_TIME",
}
_OWN_ADDRESS = "rsupres:self"  # field of an item while it is read
_Rule = Callable[[BandFile], Radiometry | None]


def read_items(address: str) -> list[Item]:
    """Return the items of a JSON document at a path or URL: one, or an ItemCollection.

    Raises:
        InputError: it cannot be read, or is no STAC.
        ResourceError: pystac is not installed.
    """
    try:
        from pystac import Item
    except ImportError as error:
        raise ResourceError(
            f"{address}: STAC items need pystac; install rsupres[stac]."
        ) from error
    with _refusing_others(f"{address}: no STAC item and no collection of items"):
        document = json.loads(read_bytes(address))
        features = document.get("features", [document])
        items = [Item.from_dict(feature, href=address) for feature in features]
        for item, feature in zip(items, features, strict=True):
            item.extra_fields[_OWN_ADDRESS] = _self_link(feature)
            item.id = str(item.id)
    if not items:
        raise InputError(f"{address}: a collection without items.")
    return items


@contextmanager
def _refusing_others(message: str) -> Iterator[None]:
    """Turn errors of JSON of another shape than STAC's into `InputError`."""
    from pystac import STACError, STACTypeError

    wrong = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
    try:
        yield
    except (*wrong, STACError, STACTypeError) as error:
        raise InputError(f"{message} ({error}).") from error


def _self_link(feature: Mapping[str, Any]) -> str:
    """Return where an item says that it is, "" where it does not."""
    links = feature.get("links") or []
    return next((str(x["href"]) for x in links if x.get("rel") == "self"), "")


def open_item(item: Item, path: str) -> Product:
    """Return the product that a STAC item describes.

    Args:
        item: of `read_items`.
        path: as the user gave it, for messages.

    Raises:
        InputError: no asset is a band, or the item breaks the rules of STAC.
    """
    with _refusing_others(f"{path}: no valid STAC item"):
        return _described_product(item, path)


def _described_product(item: Item, path: str) -> Product:
    own = item.extra_fields.pop(_OWN_ADDRESS, "")
    bands: dict[str, BandFile] = {}
    layers: dict[str, BandFile] = {}
    for key, asset in item.assets.items():
        name = _band_name(item, key, asset)
        href = asset.get_absolute_href()
        if name is None or href is None:
            continue
        found = BandFile(
            name, href, 1, _radiometry(item, asset), _gsd(item, asset, name)
        )
        group = layers if name in _LAYERS else bands
        if name not in group or _is_better(found, group[name]):
            group[name] = found
    if not bands:
        raise InputError(f"{path}: no asset of item {item.id} is a band.")
    properties = {**item.properties, "datetime": item.datetime}
    tags = {tag: str(properties[k]) for k, tag in _KEPT.items() if properties.get(k)}
    product = Product(
        path=path,
        bands=tuple(bands.values()),
        layers=layers,
        nodata=_nodata(item),
        tags={"STAC_ID": item.id, **tags},
        item=item.to_dict(include_self_link=False, transform_hrefs=False),
        item_address=own or path,
    )
    return _with_metadata(product, item)


def _with_metadata(product: Product, item: Item) -> Product:
    """Complete an item from the product's own metadata, if linked."""
    for address in _linked_metadata(item):
        if all(band.radiometry for band in product.bands):
            break
        try:
            rule = _read_linked(address)
        except InputError:
            continue  # the bands stay undecided, which is refused where it matters
        if rule is not None:
            bands = tuple(
                band if band.radiometry else replace(band, radiometry=rule(band))
                for band in product.bands
            )
            product = replace(product, bands=bands, sources=(address,))
    return product


def _read_linked(address: str) -> _Rule | None:
    """Return the radiometry of bands in a metadata file, such as MTL; None without."""
    if address.lower().endswith(".xml"):
        metadata = read_metadata(address)
        return (lambda band: metadata.radiometry(band.name)) if metadata else None
    stated = mtl_radiometry(address)
    if stated is None:
        return None
    return lambda band: stated(posixpath.basename(band.path).rsplit(".", 1)[0])


def _linked_metadata(item: Item) -> Iterator[str]:
    for key, asset in item.assets.items():
        href = asset.get_absolute_href()
        if href and (key.lower() in _METADATA_KEYS or key in ("MTL.json", "MTL.txt")):
            yield href


def _band_name(item: Item, key: str, asset: Asset) -> str | None:
    """Return the band or layer that an asset is; None for pictures and other files."""
    plain = re.sub(r"[-_](10m|20m|60m|jp2)$", "", key)
    if plain.upper() in _LAYERS:
        return plain.upper()
    described = _described(item, asset)
    if _NO_BAND & set(asset.roles or ()) or len(described) > 1:
        return None
    common = [_common_name(band) for band in described]
    names = [plain, *(str(band.get("name", "")) for band in described)]
    if _is_landsat(item):
        return _landsat_name(common, names)
    codes = (band_code(name) for name in names)
    words = (_BY_NAME.get(word) for word in (plain.lower(), *common))
    stem = posixpath.basename(asset.href).rsplit(".", 1)[0]
    return next(filter(None, (*codes, *words)), None) or (
        code_in_file_name(stem) if "data" in (asset.roles or ("data",)) else None
    )


def _is_landsat(item: Item) -> bool:
    text = f"{item.id} {item.properties.get('platform', '')}"
    return bool(re.search(r"landsat|\bL[CETO]0\d_|HLS\.L30", text, re.IGNORECASE))


def _landsat_name(common: list[str], names: list[str]) -> str | None:
    """Return the common name of a band, as numbers differ between satellites."""
    if common and common[0]:
        return "nir" if common[0] == "nir08" else common[0]
    code = band_code(names[0])
    return OLI.get(int(code[1:])) if code and code != "B8A" else None


def _common_name(band: Mapping[str, Any]) -> str:
    return str(band.get("common_name") or band.get("eo:common_name") or "")


def _described(item: Item, asset: Asset) -> list[Mapping[str, Any]]:
    """Return an asset's descriptions of its bands; old items give places in a list."""
    fields = asset.extra_fields
    bands = fields.get("eo:bands") or fields.get("bands") or []
    listed = item.properties.get("eo:bands", [])
    known = (
        listed[band] if isinstance(band, int) and band < len(listed) else band
        for band in bands
    )
    return [band for band in known if isinstance(band, Mapping)]


def _first(item: Item, asset: Asset, name: str) -> Any:
    """Return a field of an asset, or of the first band that it describes."""
    fields = asset.extra_fields
    for place in (
        fields,
        *fields.get("raster:bands", [])[:1],
        *_described(item, asset)[:1],
    ):
        for spelled in (f"raster:{name}", name):
            if spelled in place:
                return place[spelled]
    return None


def _radiometry(item: Item, asset: Asset) -> Radiometry | None:
    """Return scale and offset of an asset; None where it has no scale."""
    scale, offset = _first(item, asset, "scale"), _first(item, asset, "offset")
    if scale is None:
        return None
    if item.properties.get("earthsearch:boa_offset_applied") is True:
        offset = 0.0
    return Radiometry(float(scale), float(offset or 0.0))


def _nodata(item: Item) -> float | None:
    """Return the nodata value that measured assets tell; None without a common one."""
    values = {
        _first(item, asset, "nodata")
        for key, asset in item.assets.items()
        if _band_name(item, key, asset) in BANDS
    }
    known = values - {None}
    return float(known.pop()) if len(known) == 1 else None


def _gsd(item: Item, asset: Asset, name: str) -> float | None:
    transform = asset.extra_fields.get("proj:transform")
    if transform:
        return float(abs(transform[0]))
    for field in ("gsd", "spatial_resolution"):
        if value := _first(item, asset, field):
            return float(value)
    return float(BANDS[name].gsd) if name in BANDS else None


def _is_better(found: BandFile, other: BandFile) -> bool:
    """Return whether an asset replaces another: finer, or else no JPEG 2000."""
    if found.gsd != other.gsd:
        return (found.gsd or 1e9) < (other.gsd or 1e9)
    return other.path.lower().endswith(".jp2") > found.path.lower().endswith(".jp2")
