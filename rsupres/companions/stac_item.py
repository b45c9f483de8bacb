"""A STAC item of an output: place, bands, processing, model and inputs.

Items follow STAC 1.1 with the extensions projection, raster, processing and, where a
model has weights, file and machine learning models (mlm).
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasterio.warp import transform_geom

from rsupres.checkpoints.catalogue import Card, read_card
from rsupres.errors import CheckpointError, ResourceError
from rsupres.grid import Grid
from rsupres.output.tiff.geotiff import is_cog
from rsupres.products.model import Product
from rsupres.products.sentinel2 import BANDS
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_in, date_of
from rsupres.raster.product.find import find_product
from rsupres.version import __version__

if TYPE_CHECKING:
    from pystac import Asset, Item
    from pystac.extensions.raster import NoDataStrings

_GEOTIFF = "image/tiff; application=geotiff"
_COG = f"{_GEOTIFF}; profile=cloud-optimized"
_PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_KEPT = ("platform", "constellation", "instruments", "license", "providers")
_EDGE_POINTS = 21  # along each side of the footprint

logger = logging.getLogger(__name__)


def make_item(
    output: Path, scenes: Sequence[str], picture: Path | None
) -> dict[str, Any]:
    """Return the item of an output as JSON.

    Args:
        output: the upscaled scene.
        scenes: the files that it was made of.
        picture: of it in true colours, None without one.

    Raises:
        ResourceError: pystac is not installed.
    """
    try:
        from pystac import Item, Link
    except ImportError as error:
        raise ResourceError(
            f"{output}: STAC items need pystac; install rsupres[stac]."
        ) from error
    product = find_product(scenes[0]) if len(scenes) == 1 else None
    with Raster.open(output) as scene:
        geometry, bbox = footprint(scene.grid)
        item = Item(
            id=output.name.partition(".")[0],
            geometry=geometry,
            bbox=bbox,
            datetime=_date(scene, scenes[0]),
            properties=_properties(scene, product),
        )
        item.set_self_href(str(output.with_suffix(".json").absolute()))
        _add_projection(item, scene.grid)
        item.add_asset("data", _data_asset(item, output, scene))
        if picture is not None:
            item.add_asset("visual", _picture_asset(picture))
        _add_model(item, scene)
    for link in _origins(scenes, product):
        item.add_link(Link("derived_from", link))
    item.make_asset_hrefs_relative()
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _date(scene: Raster, source: str) -> datetime:
    """Return when a scene was taken, to the second where its product tells."""
    with suppress(ValueError):
        taken = datetime.fromisoformat(scene.tags.get("PRODUCT_START_TIME", ""))
        return taken if taken.tzinfo else taken.replace(tzinfo=UTC)
    date, known_by = date_of(scene)
    if known_by != "file time":
        return date
    if (named := date_in(os.path.basename(source))) is not None:
        return named
    logger.warning("%s: no date; its item has that of the file.", scene.path)
    return date


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """Return a grid's outline and bounds in longitude and latitude (RFC 7946).

    An outline across the antimeridian becomes two polygons, and west is then larger
    than east.
    """
    steps = [index / _EDGE_POINTS for index in range(_EDGE_POINTS)]
    sides = (
        *((grid.width * t, 0) for t in steps),
        *((grid.width, grid.height * t) for t in steps),
        *((grid.width * (1 - t), grid.height) for t in steps),
        *((0, grid.height * (1 - t)) for t in steps),
    )
    ring = [grid.transform @ place for place in sides]
    outline = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    found: dict[str, Any] = dict(
        transform_geom(grid.crs, "EPSG:4326", outline, antimeridian_cutting=True)
    )
    polygons = found["coordinates"]
    parts = [polygons] if found["type"] == "Polygon" else list(polygons)
    boxes = [_box(part[0]) for part in parts]
    east_part = [box for box in boxes if box[2] > 179.999] if len(boxes) > 1 else []
    west = min(box[0] for box in east_part or boxes)
    others = [box for box in boxes if box not in east_part] or boxes
    east = max(box[2] for box in others)
    south, north = min(box[1] for box in boxes), max(box[3] for box in boxes)
    return found, [west, south, east, north]


def _box(ring: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    x, y = zip(*(point[:2] for point in ring), strict=True)
    return min(x), min(y), max(x), max(y)


def _properties(scene: Raster, product: Product | None) -> dict[str, Any]:
    parent: Mapping[str, Any] = product.item or {} if product else {}
    given: Mapping[str, Any] = parent.get("properties", {})
    craft = scene.tags.get("SPACECRAFT_NAME", "").lower()
    kept = {"license": "other", **{n: given[n] for n in _KEPT if n in given}}
    if craft:
        kept.setdefault("platform", craft)
    mask = scene.any_tag("RSUPRES_MASK")
    return {
        **kept,
        "gsd": round(scene.grid.gsd_m, 6),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "processing:software": {"rsupres": __version__},
        "processing:lineage": (
            f"Upscaled {scene.any_tag('RSUPRES_SCALE')} times by "
            f"{scene.any_tag('RSUPRES_MODEL')}; numbers mean what those of the input "
            "mean." + (f" Hidden: {mask}." if mask else "")
        ),
    }


def _add_projection(item: Item, grid: Grid) -> None:
    from pystac.extensions.projection import ProjectionExtension

    assert grid.crs is not None
    code = grid.crs.to_authority()
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=":".join(code) if code else None,
        wkt2=None if code else grid.crs.to_wkt(version="WKT2_2019"),
        shape=[grid.height, grid.width],
        transform=list(grid.transform)[:9],
    )


def _data_asset(item: Item, output: Path, scene: Raster) -> Asset:
    from pystac import Asset
    from pystac.extensions.raster import DataType, RasterBand, RasterExtension

    item.stac_extensions.append(RasterExtension.get_schema_uri())
    kind = _COG if is_cog(output) else _GEOTIFF
    asset = Asset(str(output.absolute()), media_type=kind, roles=["data"])
    asset.set_owner(item)
    RasterExtension.ext(asset).apply(
        [
            RasterBand.create(
                nodata=_nodata(scene.nodata_of(band)),
                data_type=DataType(scene.dtype),
                spatial_resolution=round(scene.grid.gsd_m, 6),
                scale=scene.scales[band - 1],
                offset=scene.offsets[band - 1],
            )
            for band in scene.data_bands
        ]
    )
    asset.extra_fields["bands"] = [
        _named(scene.descriptions[band - 1] or str(band)) for band in scene.data_bands
    ]
    return asset


def _nodata(value: float | None) -> float | NoDataStrings | None:
    """Return a nodata value as JSON can hold it: words for what is not finite."""
    from pystac.extensions.raster import NoDataStrings

    if value is None or math.isfinite(value):
        return value
    return NoDataStrings(str(value))


def _named(name: str) -> dict[str, Any]:
    facts = BANDS.get(name)
    if facts is None:
        return {"name": name}
    return {"name": name, "description": facts.common}


def _picture_asset(picture: Path) -> Asset:
    from pystac import Asset

    kind = "image/png" if picture.suffix.lower() == ".png" else _COG
    return Asset(str(picture.absolute()), media_type=kind, roles=["visual", "overview"])


def _add_model(item: Item, scene: Raster) -> None:
    """Say which model made the output, with the hash of its weights and its licence."""
    name = scene.any_tag("RSUPRES_MODEL")
    sha256 = scene.any_tag("RSUPRES_MODEL_SHA256") or "no weights"
    item.properties["processing:software"] |= {f"model {name}": sha256}
    item.stac_extensions.append(_PROCESSING)
    try:
        card = read_card(name)
    except CheckpointError:
        return  # a checkpoint by its path, which may be gone
    if card.file is not None:
        _add_weights(item, scene, card, card.file)


def _add_weights(item: Item, scene: Raster, card: Card, file: Path) -> None:
    from pystac import Asset
    from pystac.extensions.file import FileExtension
    from pystac.extensions.mlm import (
        InputStructure,
        MLMExtension,
        ModelInput,
        ModelOutput,
        ResultStructure,
        TaskType,
    )
    from pystac.extensions.raster import DataType

    order = ["batch", "bands", "height", "width"]
    names = [scene.descriptions[band - 1] or str(band) for band in scene.data_bands]
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=card.name,
        architecture=card.spec.family,
        tasks=[TaskType.SUPER_RESOLUTION],
        framework="PyTorch",
        input=[
            ModelInput.create(
                name="scene, in units of its stretch",
                bands=list(names),
                input=InputStructure.create([-1] * 4, order, DataType.FLOAT32),
            )
        ],
        output=[
            ModelOutput.create(
                name="scene with smaller pixels",
                tasks=[TaskType.SUPER_RESOLUTION],
                result=ResultStructure.create([-1] * 4, order, DataType.FLOAT32),
            )
        ],
    )
    # The extension asks that the bands of a model's input are described, too.
    item.properties["bands"] = [_named(name) for name in names]
    item.stac_extensions.append(FileExtension.get_schema_uri())
    asset = Asset(
        str(file.absolute()),
        title=f"Weights of {card.name}",
        media_type="application/octet-stream; application=safetensors",
        roles=["mlm:model"],
        extra_fields={"license": card.licence, "mlm:artifact_type": "safetensors"},
    )
    if digest := scene.any_tag("RSUPRES_MODEL_SHA256"):
        asset.extra_fields["file:checksum"] = "1220" + digest  # a multihash of sha256
    item.add_asset("model", asset)


def _origins(scenes: Sequence[str], product: Product | None) -> Iterator[str]:
    """Yield the addresses of an output's inputs; of a STAC item, the item's own."""
    if product is not None and product.item is not None:
        yield product.item_address
        return
    for scene in scenes:
        is_local = os.path.exists(scene)
        yield str(Path(scene).absolute()) if is_local else scene
