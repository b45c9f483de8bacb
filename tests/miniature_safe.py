"""Build miniature Sentinel-2 products from the pixels of the sample data.

They have the folders, names and metadata of real products, as far as readers look at
them: L1C and L2A, before baseline 04.00 (no offset) and after it (an offset of -1000).
A tile of 960 m has 96 x 96 pixels of 10 m; the bands of 20 and 60 m are mixtures of the
four that the sample holds.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from rsupres.products.sentinel2 import BANDS

SAMPLE = Path(__file__).parents[1] / "sample_data" / "town_s2.tif"
STAMP = "20230712T101601"
TILE = "T32UNU"
# Weights of B02, B03, B04, B08 in the bands that the sample does not hold.
MIXTURES = {
    "B01": (0.9, 0.1, 0, 0),
    "B05": (0, 0.2, 0.6, 0.2),
    "B06": (0, 0.1, 0.2, 0.7),
    "B07": (0, 0, 0.1, 0.9),
    "B8A": (0, 0, 0, 1.05),
    "B09": (0, 0, 0.1, 0.5),
    "B10": (0.02, 0, 0, 0),
    "B11": (0, 0.3, 0.9, 0.1),
    "B12": (0, 0.2, 0.9, 0),
}
CLOUD, SHADOW, CIRRUS = 9, 3, 10  # classes of SCL; rows and columns are of 20 m
PATCHES = {
    CLOUD: (slice(4, 14), slice(6, 18)),
    SHADOW: (slice(16, 20), slice(10, 20)),
    CIRRUS: (slice(30, 36), slice(30, 44)),
}


@dataclass(frozen=True)
class Miniature:
    """What a product is to be.

    Attributes:
        level: "L1C" or "L2A".
        baseline: such as "05.09".
        offset: DN that the metadata add to every band; None = none are listed.
        quantification: DN of reflectance 1.
        rows: of 10 m, a multiple of 6.
    """

    level: str = "L2A"
    baseline: str = "05.09"
    offset: int | None = -1000
    quantification: int = 10_000
    rows: int = 96

    @property
    def name(self) -> str:
        """Name of the folder."""
        number = self.baseline.replace(".", "")
        return f"S2A_MSI{self.level}_{STAMP}_N{number}_R065_{TILE}_{STAMP}.SAFE"

    @property
    def granule(self) -> str:
        """Name of the granule's folder."""
        return f"{self.level}_{TILE}_A042061_{STAMP}"

    @cached_property
    def bands(self) -> dict[str, NDArray[np.uint16]]:
        """Numbers of every band, with its own pixel size."""
        with rasterio.open(SAMPLE) as dataset:
            red, green, blue, nir = dataset.read()[:, : self.rows].astype(np.float64)
        fine = {"B02": blue, "B03": green, "B04": red, "B08": nir}
        planes = np.stack(list(fine.values()))
        is_missing = (planes == 0).any(axis=0)
        for name, weights in MIXTURES.items():
            factor = BANDS[name].gsd // 10
            fine[name] = _mean(np.tensordot(weights, planes, 1), factor)
        return {
            name: self._stored(plane, is_missing)
            for name, plane in fine.items()
            if not (self.level == "L2A" and name == "B10")
        }

    def _stored(
        self, plane: NDArray[np.float64], is_missing: NDArray[np.bool_]
    ) -> NDArray[np.uint16]:
        """Return reflectance times 10,000 as the product stores it."""
        factor = is_missing.shape[0] // plane.shape[0]
        hidden = _mean(is_missing.astype(np.float64), factor) > 0
        stored = plane / 10_000 * self.quantification - (self.offset or 0)
        clipped = np.clip(np.rint(stored), 1, 65534)
        return np.where(hidden, 0, clipped).astype(np.uint16)

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """The scene classification, 20 m: vegetation, soil, and what hides them."""
        nir, red = (
            _mean(self.bands[name].astype(np.float64), 2) for name in ("B08", "B04")
        )
        scl = np.where(nir > 1.5 * red, 4, 5).astype(np.uint8)
        for value, place in PATCHES.items():
            scl[place] = value
        return scl

    def build(self, folder: Path) -> Path:
        """Put a copy of the product into a folder and return its own folder."""
        if "bands" in vars(self):  # a test may have changed them
            return self.write(folder)
        return Path(shutil.copytree(_written(self), folder / self.name))

    def write(self, folder: Path) -> Path:
        """Write the product into a folder and return its own folder."""
        product = folder / self.name
        images = product / "GRANULE" / self.granule / "IMG_DATA"
        listed = []
        for gsd, name, pixels in self._images():
            stem = f"{TILE}_{STAMP}_{name}"
            place = images
            if self.level == "L2A":
                place, stem = images / f"R{gsd}m", f"{stem}_{gsd}m"
            write_jp2(place / f"{stem}.jp2", pixels, gsd)
            listed.append(str((place / stem).relative_to(product)))
        self._write_masks(images.parent / "QI_DATA")
        text = _PRODUCT.format(
            n=self.level[1:],
            images="".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in listed),
            radiometry=self._radiometry(),
            **vars(self),
            uri=self.name,
            granule=self.granule,
            stamp=STAMP,
        )
        (product / f"MTD_MSI{self.level}.xml").write_text(text)
        (images.parent / "MTD_TL.xml").write_text(self._granule_xml())
        (product / "manifest.safe").write_text(_MANIFEST)
        return product

    def _images(self) -> list[tuple[int, str, NDArray[np.generic]]]:
        """Return pixel size, name and pixels of every image file."""
        found: list[tuple[int, str, NDArray[np.generic]]] = []
        for name, pixels in self.bands.items():
            own = BANDS[name].gsd
            found.append((own, name, pixels))
            if self.level == "L2A" and own == 10:
                # Level 2A holds fine bands with coarse pixels, too.
                coarse = np.rint(_mean(pixels.astype(float), 2)).astype(np.uint16)
                found.append((20, name, coarse))
        if self.level == "L2A":
            found += [(20, "SCL", self.classes), (20, "AOT", self.bands["B05"])]
        return found

    def _write_masks(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        if self.level == "L2A":
            return
        if self.baseline < "04.00":
            (folder / "MSK_CLOUDS_B00.gml").write_text(clouds_gml())
            return
        scl = self.classes[: self.rows // 2]
        masks = np.stack([scl == CLOUD, scl == CIRRUS, scl == 11])
        coarse = masks[:, ::3, ::3].astype(np.uint8)
        write_jp2(folder / "MSK_CLASSI_B00.jp2", coarse, 60)

    def _radiometry(self) -> str:
        add, group, tag = {
            "L1C": ("RADIO_ADD_OFFSET", "Radiometric_Offset_List", ""),
            "L2A": ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST", "BOA_"),
        }[self.level]
        name = f"{tag}QUANTIFICATION_VALUE"
        value = f'<{name} unit="none">{self.quantification}</{name}>'
        if self.level == "L2A":
            other = "<AOT_QUANTIFICATION_VALUE>1000.0</AOT_QUANTIFICATION_VALUE>"
            group_of_values = "QUANTIFICATION_VALUES_LIST"
            value = f"<{group_of_values}>{value}{other}</{group_of_values}>"
        if self.offset is None:
            return value
        offsets = "".join(
            f'<{add} band_id="{number}">{self.offset}</{add}>' for number in range(13)
        )
        return f"{value}<{group}>{offsets}</{group}>"

    def _granule_xml(self) -> str:
        frame = frame_of(10)
        sizes = "".join(
            f'<Size resolution="{side}"><NROWS>{self.rows * 10 // side}</NROWS>'
            f"<NCOLS>{960 // side}</NCOLS></Size>"
            f'<Geoposition resolution="{side}"><ULX>{frame.c:.0f}</ULX>'
            f"<ULY>{frame.f:.0f}</ULY><XDIM>{side}</XDIM><YDIM>-{side}</YDIM>"
            "</Geoposition>"
            for side in (10, 20, 60)
        )
        return _GRANULE.format(n=self.level[1:], sizes=sizes)


ALL = (
    Miniature("L1C", "02.09", None),
    Miniature("L1C", "05.09"),
    Miniature("L2A", "02.12", None),
    Miniature("L2A", "05.09"),
)


def _mean(plane: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    height, width = (side // factor for side in plane.shape)
    blocks = plane.reshape(height, factor, width, factor)
    return np.asarray(blocks.mean(axis=(1, 3)))


def frame_of(gsd: int) -> Affine:
    """Return the transform of the tile's pixels of a size."""
    with rasterio.open(SAMPLE) as dataset:
        return Affine(gsd, 0, dataset.transform.c, 0, -gsd, dataset.transform.f)


@cache
def _written(wanted: Miniature) -> Path:
    """Return where a product is written once for all tests that ask for it."""
    folder = tempfile.mkdtemp(prefix="miniature")
    atexit.register(shutil.rmtree, folder)
    return replace(wanted).write(Path(folder))


def write_jp2(
    path: Path,
    pixels: NDArray[np.generic],
    gsd: int,
    *,
    col: int = 0,
    south_m: int = 0,
    zone: int = 32,
) -> None:
    """Write (c, h, w) or (h, w) pixels of the tile without loss.

    Args:
        path: of the file.
        pixels: their upper left corner is that of the tile.
        gsd: metres.
        col: column of the tile in which they begin.
        south_m: metres by which they lie further south.
        zone: of UTM.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        count=len(planes),
        height=planes.shape[1],
        width=planes.shape[2],
        dtype=planes.dtype,
        crs=f"EPSG:326{zone}",
        transform=Affine.translation(0, -south_m)
        @ frame_of(gsd)
        @ Affine.translation(col, 0),
        QUALITY=100,
        REVERSIBLE="YES",
    ) as dataset:
        dataset.write(planes)


def clouds_gml() -> str:
    """Return the cloud mask of early Level 1C: polygons with a kind each."""
    members = ""
    for value, kind in ((CLOUD, "OPAQUE"), (CIRRUS, "CIRRUS")):
        rows, cols = PATCHES[value]
        corners = [
            frame_of(20) @ (col, row)
            for row, col in (
                (rows.start, cols.start),
                (rows.start, cols.stop),
                (rows.stop, cols.stop),
                (rows.stop, cols.start),
                (rows.start, cols.start),
            )
        ]
        text = " ".join(f"{x:.0f} {y:.0f}" for x, y in corners)
        members += (
            f'<eop:MaskFeature gml:id="{kind}.0"><eop:maskType>{kind}</eop:maskType>'
            f'<eop:extentOf><gml:Polygon gml:id="{kind}.0_Polygon"><gml:exterior>'
            f'<gml:LinearRing><gml:posList srsDimension="2">{text}</gml:posList>'
            "</gml:LinearRing></gml:exterior></gml:Polygon></eop:extentOf>"
            "</eop:MaskFeature>"
        )
    return _GML.format(members=members)


_GML = """<?xml version="1.0" encoding="UTF-8"?>
<eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0"
xmlns:gml="http://www.opengis.net/gml/3.2" gml:id="S2A_OPER_MSK_CLOUDS_B00">
<gml:name>MSK_CLOUDS_pixel level of the mask</gml:name>
<gml:boundedBy>
<gml:Envelope srsName="urn:ogc:def:crs:EPSG:8.7.1:32632"/></gml:boundedBy>
<eop:maskMembers>{members}</eop:maskMembers></eop:Mask>
"""
_PRODUCT = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{n}_User_Product
xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{n}.xsd">
<n1:General_Info><Product_Info>
<PRODUCT_START_TIME>2023-07-12T10:16:01.024Z</PRODUCT_START_TIME>
<PRODUCT_STOP_TIME>2023-07-12T10:16:01.024Z</PRODUCT_STOP_TIME>
<PRODUCT_URI>{uri}</PRODUCT_URI>
<PROCESSING_LEVEL>Level-{n}</PROCESSING_LEVEL><PRODUCT_TYPE>S2MSI{n}</PRODUCT_TYPE>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
<GENERATION_TIME>2023-07-12T16:39:01.000000Z</GENERATION_TIME>
<Datatake datatakeIdentifier="GS2A_{stamp}_042061_N{baseline}">
<SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
<SENSING_ORBIT_NUMBER>65</SENSING_ORBIT_NUMBER></Datatake>
<Query_Options completeSingleTile="true">
<PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT></Query_Options>
<Product_Organisation><Granule_List>
<Granule datastripIdentifier="D" granuleIdentifier="{granule}" imageFormat="JPEG2000">
{images}</Granule></Granule_List></Product_Organisation></Product_Info>
<Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
{radiometry}
</Product_Image_Characteristics>
</n1:General_Info></n1:Level-{n}_User_Product>
"""
_GRANULE = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{n}_Tile_ID
xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-{n}_Tile_Metadata.xsd">
<n1:Geometric_Info><Tile_Geocoding metadataLevel="Brief">
<HORIZONTAL_CS_NAME>WGS84 / UTM zone 32N</HORIZONTAL_CS_NAME>
<HORIZONTAL_CS_CODE>EPSG:32632</HORIZONTAL_CS_CODE>{sizes}
</Tile_Geocoding></n1:Geometric_Info></n1:Level-{n}_Tile_ID>
"""
_MANIFEST = """<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" version="esa/safe/sentinel/1.1"/>
"""
