"""Find the width on the ground of roads, rivers and other lines of a map.

The class gives the usual width, in the legend; the tags `width` and `lanes` of a line
change it. `rsupres.vector.geometry.PixelPlane.widen` draws lines so wide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NUMBER = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*(?:$|;)")
_LENGTH = re.compile(r"(?:~|ca\.?|approx\.?)?\s*(\d+(?:[.,]\d+)?)\s*([a-z'\"]*)\.?")
_FEET = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:'|ft|feet|foot)\s*-?\s*(\d+(?:\.\d+)?)\s*(?:\"|''|in|inch)?"
)
_FOOT_M = 0.3048
_UNITS_M = {
    **dict.fromkeys(("", "m", "mtr", "meter", "meters", "metre", "metres"), 1.0),
    **dict.fromkeys(("'", "ft", "feet", "foot"), _FOOT_M),
    **dict.fromkeys(('"', "''", "in", "inch", "inches"), _FOOT_M / 12),
    **{"mm": 0.001, "cm": 0.01, "km": 1000.0, "mi": 1609.344, "yd": 0.9144},
}
_MIN_WIDTH_M, _MAX_WIDTH_M = 0.3, 500.0  # of a `width` tag that is believed
_MAX_LANES = 16


@dataclass(frozen=True)
class LineWidth:
    """Widths of the lines of a class on the ground.

    Attributes:
        key: the tag whose value chooses among `by_value`, such as `highway`.
        by_value: value -> (metres, number of lanes of a line so wide, 0 = unknown).
        default_m: for other values.
        lane_m: metres that one lane more or less adds or takes.
    """

    default_m: float
    key: str = ""
    by_value: Mapping[str, tuple[float, float]] | None = None
    lane_m: float = 0.0

    def metres(self, value: str | None, lanes: str | None, width: str | None) -> float:
        """Return the width of one line, metres.

        A `width` tag that can be read comes first; else a number of lanes that differs
        from the usual one changes the usual width, to no less than half of it.

        Args:
            value: of the tag `key`.
            lanes: the `lanes` tag.
            width: the `width` tag, see `width_of_tag`.
        """
        tagged_m = None if width is None else width_of_tag(width)
        if tagged_m is not None:
            return tagged_m
        usual_m, usual_lanes = (self.by_value or {}).get(
            value or "", (self.default_m, 0.0)
        )
        n_lanes = _number(lanes)
        if n_lanes is None or not usual_lanes or not 0 < n_lanes <= _MAX_LANES:
            return usual_m
        return max(usual_m / 2, usual_m + (n_lanes - usual_lanes) * self.lane_m)

    @property
    def widest_m(self) -> float:
        """Width of the widest line without a `width` tag, metres."""
        return max([self.default_m, *(w for w, _ in (self.by_value or {}).values())])


def width_of_tag(text: str) -> float | None:
    r"""Return the metres of a `width` tag, None where it cannot be read or believed.

    Metres without a unit; else a unit of OpenStreetMap, or feet and inches. Of several
    values the first counts.

    >>> width_of_tag("7'6"), width_of_tag("350 cm"), width_of_tag("narrow")
    (2.286, 3.5, None)
    """
    plain = str(text).split(";")[0].strip().lower()
    feet, length = _FEET.fullmatch(plain), _LENGTH.fullmatch(plain)
    if feet is not None:
        value_m = (float(feet[1]) + float(feet[2]) / 12) * _FOOT_M
    elif length is not None and length[2] in _UNITS_M:
        value_m = float(length[1].replace(",", ".")) * _UNITS_M[length[2]]
    else:
        return None
    value_m = round(value_m, 6)
    return value_m if _MIN_WIDTH_M <= value_m <= _MAX_WIDTH_M else None


def _number(text: str | None) -> float | None:
    """Return a tag's first number, None when it has none."""
    found = _NUMBER.match(text) if text else None
    return None if found is None else float(found[1].replace(",", "."))
