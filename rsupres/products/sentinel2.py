"""The bands of Sentinel-2, their pixel sizes and names, and lists of bands for output.

The names are those of the products (B02, B8A); other spellings are translated.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rsupres.errors import BandError


class BandFacts(NamedTuple):
    """A band, as it is in every product.

    Attributes:
        number: `band_id` in the metadata.
        gsd: side of a pixel, metres.
        common: common name of STAC.
        colour: name of rasterio's ColorInterp.
    """

    number: int
    gsd: int
    common: str
    colour: str


FINEST_GSD = 10.0
# Smallest transfer at Nyquist that the 10 m bands of products have. ESA's reports give
# the instrument 0.24 to 0.28; files of products look sharper (0.35 to 0.56 in 16
# scenes), and where the truth is known, models that take 0.45 as input agree best with
# it. A scene that looks softer was interpolated onto another grid, which sharpening
# does not undo.
MIN_MTF = 0.45
BANDS = {
    "B01": BandFacts(0, 60, "coastal", "coastal"),
    "B02": BandFacts(1, 10, "blue", "blue"),
    "B03": BandFacts(2, 10, "green", "green"),
    "B04": BandFacts(3, 10, "red", "red"),
    "B05": BandFacts(4, 20, "rededge071", "rededge"),
    "B06": BandFacts(5, 20, "rededge075", "rededge"),
    "B07": BandFacts(6, 20, "rededge078", "rededge"),
    "B08": BandFacts(7, 10, "nir", "nir"),
    "B8A": BandFacts(8, 20, "nir08", "nir"),
    "B09": BandFacts(9, 60, "nir09", "nir"),
    "B10": BandFacts(10, 60, "cirrus", "swir"),
    "B11": BandFacts(11, 20, "swir16", "swir"),
    "B12": BandFacts(12, 20, "swir22", "swir"),
}
TEN_METRES = ("B04", "B03", "B02", "B08")
ALL_TEN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
FINE = frozenset(TEN_METRES)

_CODE = re.compile(r"B(?:0?([1-9])|(1[0-2])|(8A))", re.IGNORECASE)
_IN_FILE_NAME = re.compile(
    r"(?:^|[_.])(B(?:0[1-9]|1[0-2]|8A)|SCL|MSK_CLASSI)(?:[_.]|$)", re.IGNORECASE
)
# Band files as the ground segment names them.
_ESA_BAND = re.compile(
    r"(?:(?:L2A_)?T\d\d[A-Z]{3}_\d{8}T\d{6}|"
    r"S2[A-D]_(?:OPER|USER)_MSI_L(?:1C|2A)_TL_\w+_T\d\d[A-Z]{3})"
    r"_(B(?:0[1-9]|1[0-2]|8A))(?:_[126]0m)?"
)


def band_code(name: str) -> str | None:
    """Return the name of a band as products spell it; None for other names.

    >>> band_code("b4"), band_code("B8a"), band_code("blue")
    ('B04', 'B8A', None)
    """
    found = _CODE.fullmatch(name.strip())
    if not found:
        return None
    one, two, narrow = found.groups()
    return "B8A" if narrow else f"B0{one}" if one else f"B{two}"


def code_in_file_name(stem: str) -> str | None:
    """Return the band or layer that the name of a file tells, None without one.

    >>> code_in_file_name("T33UWP_20250330T100051_B02_10m")
    'B02'
    """
    found = _IN_FILE_NAME.search(stem)
    return found.group(1).upper() if found else None


def is_esa_band_file(stem: str) -> bool:
    """Return whether a file is named as a band of a product of the ground segment.

    >>> is_esa_band_file("T30UWU_20170621T110651_B02"), is_esa_band_file("B02")
    (True, False)
    """
    return _ESA_BAND.fullmatch(stem) is not None


def bands_of(choice: str) -> tuple[str, ...]:
    """Return the bands that a list for the output names, in its order.

    Args:
        choice: "10m", "all", or names with commas, among which these may stand.

    Raises:
        BandError: a name is no band, or one is named twice.

    >>> bands_of("10m,B11")
    ('B04', 'B03', 'B02', 'B08', 'B11')
    """
    names: list[str] = []
    for part in choice.split(","):
        word = part.strip()
        code = band_code(word)
        if word.lower() == "10m":
            names += TEN_METRES
        elif word.lower() == "all":
            names += ALL_TEN
        elif code or word.upper() == "SCL":
            names.append(code or "SCL")
        else:
            raise BandError(
                f"{word!r} is no band of Sentinel-2; give 10m, all, or names such as "
                "B02,B8A,SCL.",
                argument="bands_out",
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BandError(f"{choice!r} names {twice} twice.", argument="bands_out")
    return tuple(names)
