"""Build miniature products of before December 2016: long names, several granules.

Such a product is one folder with the granules of a datatake. Metadata list images by
their names without folders, and each granule has its own metadata and masks. The pixels
are those of `tests.miniature_safe`, in two granules that overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsupres.products.sentinel2 import BANDS
from tests.miniature_safe import Miniature, clouds_gml, frame_of, write_jp2

TIMES = "20151217T160258_A002549"
# Tile and rows of 10 m of each granule.
GRANULES = {"T32UNU": (0, 60), "T32UNV": (36, 96)}


@dataclass(frozen=True)
class OldMiniature:
    """What an old product is to be.

    Attributes:
        level: "L1C", or "L2A" as Sen2Cor wrote it then.
        tiles: its granules, keys of `GRANULES`.
        zones: UTM zones of the tiles; None = 32 for all.
    """

    level: str = "L1C"
    tiles: tuple[str, ...] = ("T32UNU", "T32UNV")
    zones: tuple[int, ...] | None = None

    @property
    def owner(self) -> str:
        """The word in names that says who wrote the product."""
        return "OPER" if self.level == "L1C" else "USER"

    @property
    def name(self) -> str:
        """Name of the folder."""
        stamps = "PDMC_20151218T004253_R065_V20151217T102745_20151217T102745"
        return f"S2A_{self.owner}_PRD_MSI{self.level}_{stamps}.SAFE"

    @property
    def metadata(self) -> str:
        """Name of the metadata file."""
        name = self.name.replace("PRD_MSI", "MTD_SAF")
        return name.replace(".SAFE", ".xml")

    def granule(self, tile: str) -> str:
        """Return the name of a granule's folder."""
        return f"S2A_{self.owner}_MSI_{self.level}_TL_SGS__{TIMES}_{tile}_N02.01"

    @property
    def pixels(self) -> Miniature:
        """What the granules hold."""
        return Miniature(self.level, "02.01", None)

    def build(self, folder: Path) -> Path:
        """Write the product into a folder and return its own folder."""
        product = folder / self.name
        listed = "".join(
            f'<Granule_List><Granules datastripIdentifier="D" imageFormat="JPEG2000" '
            f'granuleIdentifier="{self.granule(tile)}">{self._write(product, tile)}'
            "</Granules></Granule_List>"
            for tile in self.tiles
        )
        bands = "".join(
            f"<BAND_NAME>{name.replace('B0', 'B')}</BAND_NAME>"
            for name in self.pixels.bands
        )
        text = _PRODUCT.format(
            n=self.level[1:], granules=listed, uri=self.name, bands=bands
        )
        (product / self.metadata).write_text(text)
        return product

    def _write(self, product: Path, tile: str) -> str:
        """Write a granule, and return the list of its images."""
        folder = product / "GRANULE" / self.granule(tile)
        start, stop = GRANULES[tile]
        zone = 32 if self.zones is None else self.zones[self.tiles.index(tile)]
        stem = self.granule(tile).removesuffix("_N02.01")
        listed = ""
        for name, pixels in self.pixels.bands.items():
            gsd = BANDS[name].gsd
            place, image = folder / "IMG_DATA", f"{stem}_{name}"
            tag = "IMAGE_ID"
            if self.level == "L2A":
                place, image, tag = place / f"R{gsd}m", f"{image}_{gsd}m", "IMAGE_ID_2A"
            factor = gsd // 10
            part = pixels[start // factor : stop // factor]
            write_jp2(place / f"{image}.jp2", part, gsd, south_m=start * 10, zone=zone)
            listed += f"<{tag}>{image}</{tag}>"
        masks = folder / "QI_DATA"
        masks.mkdir()
        name = f"S2A_OPER_MSK_CLOUDS_SGS__{TIMES}_{tile}_B00_MSIL1C.gml"
        (masks / name).write_text(clouds_gml())
        (folder / f"{stem.replace('_MSI_', '_MTD_')}.xml").write_text(
            self._granule_xml(stop - start, start, zone)
        )
        return listed

    def _granule_xml(self, rows: int, start: int, zone: int) -> str:
        frame = frame_of(10)
        sizes = "".join(
            f'<Size resolution="{side}"><NROWS>{rows * 10 // side}</NROWS>'
            f"<NCOLS>{960 // side}</NCOLS></Size>"
            f'<Geoposition resolution="{side}"><ULX>{frame.c:.0f}</ULX>'
            f"<ULY>{frame.f - 10 * start:.0f}</ULY><XDIM>{side}</XDIM>"
            f"<YDIM>-{side}</YDIM></Geoposition>"
            for side in (10, 20, 60)
        )
        return _GRANULE.format(n=self.level[1:], sizes=sizes, zone=zone)


_PRODUCT = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{n}_User_Product
xmlns:n1="https://psd-12.sentinel2.eo.esa.int/PSD/User_Product_Level-{n}.xsd">
<n1:General_Info><Product_Info>
<PRODUCT_START_TIME>2015-12-17T10:27:45.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>{uri}</PRODUCT_URI>
<PROCESSING_LEVEL>Level-{n}</PROCESSING_LEVEL><PRODUCT_TYPE>S2MSI{n}</PRODUCT_TYPE>
<PROCESSING_BASELINE>02.01</PROCESSING_BASELINE>
<GENERATION_TIME>2015-12-18T00:42:53.000Z</GENERATION_TIME>
<Datatake datatakeIdentifier="GS2A_20151217T102745_002549_N02.01">
<SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME></Datatake>
<Query_Options><Band_List>{bands}</Band_List>
<PRODUCT_FORMAT>SAFE</PRODUCT_FORMAT></Query_Options>
<Product_Organisation>{granules}</Product_Organisation></Product_Info>
<Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>
</Product_Image_Characteristics>
</n1:General_Info></n1:Level-{n}_User_Product>
"""
_GRANULE = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{n}_Tile_ID
xmlns:n1="https://psd-12.sentinel2.eo.esa.int/PSD/S2_PDI_Level-{n}_Tile_Metadata.xsd">
<n1:Geometric_Info><Tile_Geocoding metadataLevel="Brief">
<HORIZONTAL_CS_NAME>WGS84 / UTM zone {zone}N</HORIZONTAL_CS_NAME>
<HORIZONTAL_CS_CODE>EPSG:326{zone}</HORIZONTAL_CS_CODE>{sizes}
</Tile_Geocoding></n1:Geometric_Info></n1:Level-{n}_Tile_ID>
"""
