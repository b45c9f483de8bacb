"""Choose the bands of a file that fill the roles of a model.

Names count first (Sentinel-2, Landsat, plain words), then colour interpretation, then
the order in the file; the log says which was used. This module reads no pixels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsupres.errors import BandError
from rsupres.products.landsat import named_radiometry
from rsupres.products.masks import is_class_name
from rsupres.products.sentinel2 import band_code

if TYPE_CHECKING:
    from rsupres.raster.dataset import Raster
    from rsupres.raster.reading.header import Header

_SENTINEL2 = {"2": "blue", "3": "green", "4": "red", "8": "nir"}
_LANDSAT_OLI = {"2": "blue", "3": "green", "4": "red", "5": "nir"}  # 8 and 9
_LANDSAT_TM = {"1": "blue", "2": "green", "3": "red", "4": "nir"}  # 4, 5 and 7
_WORDS = {
    "red": "red",
    "r": "red",
    "green": "green",
    "g": "green",
    "blue": "blue",
    "b": "blue",
    "nir": "nir",
    "nir1": "nir",
    "n": "nir",
}
_OTHER_COLOURS = re.compile(r"edge|coastal|aerosol|green.?i\b|swir|short|yellow|pan")
_BAND_CODE = re.compile(r"(?:\w+_)?b(?:and)?[ _-]?0*(\d{1,2}|8a)(?![a-z0-9])")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BandChoice:
    """Bands of the file, counted from 1.

    Attributes:
        roles: the bands that fill the model's roles, in the model's order.
        others: the remaining bands that hold a picture, in the file's order.
    """

    roles: tuple[int, ...]
    others: tuple[int, ...]


def choose_bands(
    scene: Raster,
    roles: Sequence[str],
    bidx: Sequence[int] | None = None,
    named: Mapping[str, int] | None = None,
    remedies: Sequence[str] = (),
) -> BandChoice:
    """Return the bands that fill the roles of a model, and the other ones.

    Args:
        scene: an open scene.
        roles: such as ("red", "green", "blue"); empty for a model that takes any
            bands: all of them, or those of `bidx` or `named`.
        bidx: bands in the order of the roles, from 1.
        named: role to band; the other roles are found as without it.
        remedies: names of the arguments with which the user can choose the bands,
            for messages; empty when they can only be named in the file.

    Raises:
        BandError: bands missing, given twice, out of range, or of unknown roles.
    """
    if bidx and named:
        raise BandError(
            "Give the bands by number or by role, not both.", remedies=remedies
        )
    if bidx:
        chosen = tuple(bidx)
        if roles and len(chosen) != len(roles):
            raise BandError(
                f"{scene.path}: {len(chosen)} bands given, but the model takes "
                f"{len(roles)}: {', '.join(roles)}."
            )
    elif not roles:
        chosen = tuple((named or {}).values()) or scene.data_bands
    else:
        chosen = _find_roles(scene, roles, dict(named or {}), remedies)
    _check(scene, chosen)
    return BandChoice(chosen, tuple(b for b in scene.data_bands if b not in chosen))


def _check(scene: Raster, chosen: tuple[int, ...]) -> None:
    for band in chosen:
        if not 1 <= band <= scene.count:
            raise BandError(
                f"{scene.path}: no band {band}; the file has {scene.count} bands."
            )
        if band not in scene.data_bands:
            raise BandError(
                f"{scene.path}: band {band} is the alpha mask, not a picture."
            )
    if len(set(chosen)) < len(chosen):
        raise BandError(
            f"{scene.path}: bands {', '.join(map(str, chosen))} name one band twice."
        )


def _find_roles(
    scene: Raster,
    roles: Sequence[str],
    named: Mapping[str, int],
    remedies: Sequence[str],
) -> tuple[int, ...]:
    strange = sorted(set(named) - set(roles))
    if strange:
        raise BandError(
            f"The model has no role {strange[0]!r}; its roles are {', '.join(roles)}."
        )
    left = [role for role in roles if role not in named]
    found = dict(named)
    if left:
        found |= _find_left(scene, left, set(named.values()), remedies)
    return tuple(found[role] for role in roles)


def _find_left(
    scene: Raster, roles: Sequence[str], taken: set[int], remedies: Sequence[str]
) -> dict[str, int]:
    codes = class_bands(scene)
    free = [b for b in scene.data_bands if b not in taken and b not in codes]
    by_name = _first_of_each(free, _role_of_names(scene))
    by_colour = _first_of_each(free, lambda band: scene.colorinterp[band - 1])
    if _only_numbers(scene):
        has_colours = not by_colour.keys().isdisjoint(roles)
        if has_colours or _is_counted(scene):
            by_name = {}
        else:
            logger.warning(
                "%s: band names such as %s are read as those of Sentinel-2. If this is "
                "wrong, %s.",
                scene.path,
                scene.descriptions[0],
                _how_to_name(remedies),
                extra={"remedies": tuple(remedies)},
            )
    if not by_name.keys().isdisjoint({"red", "green", "blue", "nir"}):
        found, source = {**by_colour, **by_name}, "names"
    elif not by_colour.keys().isdisjoint(roles):
        found, source = by_colour, "colour interpretation"
    elif not _only_numbers(scene) and _names_bands_of_sentinel2(scene):
        found, source = {}, "names"
    else:
        return _first_ones(scene, roles, free, remedies)
    missing = [role for role in roles if role not in found]
    if missing:
        raise BandError(
            f"{scene.path}: no band for {', '.join(missing)}; the file has "
            f"{_list_bands(scene)}. If one of them will do, {_how_to_name(remedies)}.",
            remedies=remedies,
        )
    logger.info(
        "%s: bands by %s: %s.",
        scene.path,
        source,
        ", ".join(f"{role}={found[role]}" for role in roles),
    )
    return {role: found[role] for role in roles}


def _names_bands_of_sentinel2(scene: Raster) -> bool:
    """Return whether all names are bands of Sentinel-2, none of which is a colour."""
    # A file of B05, B06 and B07 is no picture in colours.
    names = [scene.descriptions[band - 1] or "" for band in scene.data_bands]
    return all(band_code(name) for name in names if not is_class_name(name))


_SATELLITE = re.compile(
    r"sentinel|landsat|S2[ABCD]_|MSIL[12]|\bT\d\d[A-Z]{3}_|\bL[CETO]0\d_",
    re.IGNORECASE,
)


def _only_numbers(scene: Raster) -> bool:
    """Return whether names number the bands from 1 on, as many programs write them.

    "Band 1", "Band_2" or "B01", "B02", ... of an unknown sensor say nothing about
    colour. A full Sentinel-2 file has B8A, and files of Landsat name the satellite.
    """
    if _is_counted(scene):
        return True
    names = [(scene.descriptions[band - 1] or "").lower() for band in scene.data_bands]
    found = [re.fullmatch(r"b0?(\d{1,2})", name.strip()) for name in names]
    codes = [match.group(1) for match in found if match]
    is_known = _SATELLITE.search(" ".join([scene.path, *scene.tags.values()]))
    counted = [str(number + 1) for number in range(len(names))]
    return not is_known and codes == counted


def _is_counted(scene: Raster) -> bool:
    """Return whether the names are "Band 1", "Band 2" and so on."""
    names = [(scene.descriptions[band - 1] or "").lower() for band in scene.data_bands]
    return all(
        re.fullmatch(rf"(band|layer|channel)[ _-]?0*{number}(\b.*)?", name.strip())
        for number, name in enumerate(names, 1)
    )


def class_bands(scene: Header) -> frozenset[int]:
    """Return the bands, from 1, whose names say that they hold classes or bits.

    Numbers between codes mean nothing, so that such bands are never interpolated.
    """
    return frozenset(
        band
        for band in scene.data_bands
        if is_class_name(scene.descriptions[band - 1] or "")
    )


def measured_bands(scene: Header) -> tuple[int, ...]:
    """Return the bands that hold numbers, not codes; all where there is no other."""
    codes = class_bands(scene)
    return tuple(b for b in scene.data_bands if b not in codes) or scene.data_bands


def _first_ones(
    scene: Raster, roles: Sequence[str], free: Sequence[int], remedies: Sequence[str]
) -> dict[str, int]:
    if len(free) < len(roles):
        raise BandError(
            f"{scene.path}: the model takes {len(roles)} bands "
            f"({', '.join(roles)}), the file has {_list_bands(scene)}."
        )
    found = dict(zip(roles, free, strict=False))
    logger.warning(
        "%s: the bands have no names; taken in the file's order: %s. If this is "
        "wrong, %s.",
        scene.path,
        ", ".join(f"{role}={band}" for role, band in found.items()),
        _how_to_name(remedies),
        extra={"remedies": tuple(remedies)},
    )
    return found


def _how_to_name(remedies: Sequence[str]) -> str:
    """Return advice for bands that are named wrongly or not at all."""
    if remedies:
        return "choose the bands"
    return (
        "name the bands in a virtual copy, for example with gdal_translate -of VRT "
        "-colorinterp red,green,blue FILE COPY.vrt, and use that"
    )


def _list_bands(scene: Raster) -> str:
    names = [scene.descriptions[band - 1] or str(band) for band in scene.data_bands]
    noun = "band" if len(names) == 1 else "bands"
    return f"{len(names)} {noun}: {', '.join(names)}"


def _first_of_each(
    bands: Sequence[int], role_of: Callable[[int], str | None]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for band in bands:
        role = role_of(band)
        if role is not None:
            found.setdefault(role, band)
    return found


def colours_of_names(scene: Raster) -> dict[int, str]:
    """Return the colour of each band, from 1, whose name says that it is one.

    Names that only number the bands say nothing, nor do those that two bands share.
    """
    if _only_numbers(scene):
        return {}
    role_of = _role_of_names(scene)
    roles = {band: role_of(band) for band in scene.data_bands}
    found = list(roles.values())
    return {
        band: role for band, role in roles.items() if role and found.count(role) == 1
    }


def _role_of_names(scene: Raster) -> Callable[[int], str | None]:
    codes = _codes_of(scene)

    def role_of(band: int) -> str | None:
        return _role_of_name((scene.descriptions[band - 1] or "").lower(), codes)

    return role_of


def _role_of_name(name: str, codes: Mapping[str, str]) -> str | None:
    code = _BAND_CODE.match(name.strip())
    if code:
        return codes.get(code.group(1))
    if _OTHER_COLOURS.search(name):
        return None
    if re.search(r"near.?infra.?red", name):
        return "nir"
    words = re.findall(r"[a-z]+\d?", name)
    roles = {_WORDS[word] for word in words if word in _WORDS}
    return roles.pop() if len(roles) == 1 else None


def _codes_of(scene: Raster) -> Mapping[str, str]:
    """Return the role of each band number for the satellite that the file names."""
    text = " ".join(
        [scene.path.replace("\\", "/").rsplit("/", 1)[-1]]
        + [f"{key}={value}" for key, value in scene.tags.items()]
    ).upper()
    if re.search(r"LANDSAT[_ -]?[4577]\b|\bL[TE]0[457]_", text):
        return _LANDSAT_TM
    names = [(name or "").upper() for name in scene.descriptions]
    if re.search(r"LANDSAT|\bL[CO]0[89]_|\bHLS\.L30\b", text) or any(
        name.startswith("SR_B") for name in names
    ):
        return _LANDSAT_OLI
    return _SENTINEL2


def names_sentinel2(scene: Raster) -> bool:
    """Return whether band names, tags or the file's name say Sentinel-2 bands."""
    text = " ".join(f"{key}={value}" for key, value in scene.tags.items())
    if re.search(r"landsat", text, re.IGNORECASE):
        return False
    if re.search(r"sentinel-?_?2|S2[ABCD]_|MSIL[12][AC]", text, re.IGNORECASE):
        return True
    code = re.compile(r"^B(0[1-9]|1[0-2]|[1-9]|8A)\b", re.IGNORECASE)
    named = [n for n in scene.descriptions if n and not is_class_name(n)]
    if named and all(code.match(name) for name in named):
        return True
    name = "/".join(re.split(r"[\\/]", scene.path.rstrip("/\\"))[-2:])
    return bool(re.search(r"S2[ABCD]_|\bT\d\d[A-Z]{3}_\d{8}T|(?i:sentinel-?_?2)", name))


def landsat_reflectance(scene: Raster) -> tuple[float, float] | None:
    """Return scale and offset of Landsat Collection 2 as USGS names it; else None."""
    if scene.dtype != "uint16":
        return None
    name = scene.path.replace("\\", "/").rsplit("/", 1)[-1].upper()
    stated = named_radiometry(name, scene.tags, scene.descriptions)
    return None if stated is None else (stated.scale, stated.offset)
