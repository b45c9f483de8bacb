"""What a model may look at besides the scene, aligned to a tile's SR window.

`open_conditions` opens what a user gave (vector maps, reference images, a change mask,
a style) on the SR frame of a scene; a `ConditionSet` then answers for any window with
arrays, and makes a batch's `Conditions` of them. What each condition is and how it gets
onto the grid is known to the modules that it opens, and only there; nothing heavy is
imported before something is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from rsupres.conditions.base import (
    ConditionFrame,
    ConditionRequest,
    ConditionSource,
)
from rsupres.families.base import Conditions
from rsupres.grid import PixelWindow

if TYPE_CHECKING:
    from torch import Tensor

    from rsupres.conditions.references import References
    from rsupres.conditions.styles import StyleImages

# The legend of maps for a model that does not name one: colours, not codes.
DEFAULT_LEGEND = "maptiler"


_NOWHERE = PixelWindow(0, 0, 0, 0)


@dataclass(frozen=True)
class ConditionSet:
    """Open conditions; empty when none was given.

    Attributes:
        frame: the scene's SR frame as a window.
        sources: by name of the `Conditions` field; "reference" holds NaN where nothing
            is known, "vector_map" legend colours 0 to 255.
        style: images to follow, None when none was given.
        seed: of the run; decides which of several styles.
    """

    frame: PixelWindow = _NOWHERE
    sources: Mapping[str, ConditionSource] = field(default_factory=dict)
    style: StyleImages | None = None
    seed: int = 0

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the conditions, the style's among them."""
        return (*self.sources, *(() if self.style is None else ("style",)))

    @property
    def has_tiles(self) -> bool:
        """Whether there is anything to read for a window."""
        return bool(self.sources)

    def read(self, window: PixelWindow) -> dict[str, np.ndarray]:
        """Read every condition on a window.

        What lies beyond the scene's SR frame (the padding of the tiling) is reflected
        at its edge, as the scene itself is.

        Args:
            window: SR pixels; it may leave the frame on any side.

        Returns:
            (c, H, W) by name, as the sources give them.
        """
        rows = _reflect(window.row, window.height, self.frame.height)
        cols = _reflect(window.col, window.width, self.frame.width)
        top, left = int(rows.min()), int(cols.min())
        inner = PixelWindow(
            top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        )
        found = {name: source.read(inner) for name, source in self.sources.items()}
        if inner == window:
            return found
        down, right = (rows - top)[:, np.newaxis], cols - left
        return {name: pixels[:, down, right] for name, pixels in found.items()}

    def conditions(
        self, tiles: Sequence[Mapping[str, np.ndarray]], sample: int = 0
    ) -> Conditions:
        """Return what `read` gave for tiles of one size as a batch, on the CPU.

        Args:
            tiles: one result of `read` a tile; may be empty when only a style is given.
            sample: which sample of the run; of several styles each has its own.
        """
        import torch

        values: dict[str, Tensor] = {}
        names = tuple(self.sources) if tiles else ()
        for name in names:
            stacked = np.stack([tile[name] for tile in tiles])
            if name == "reference":
                valid = np.isfinite(stacked).all(axis=1, keepdims=True)
                values["reference_valid"] = torch.from_numpy(valid)
                stacked = np.where(valid, stacked, np.float32(0))
            elif name == "vector_map":
                stacked = stacked.astype(np.float32)
                stacked /= np.float32(255)
            values[name] = torch.from_numpy(np.ascontiguousarray(stacked))
        if self.style is not None:
            image = self.style.pick(self.seed + sample)
            values["style"] = torch.from_numpy(image)
        return Conditions(**values)

    def read_conditions(self, window: PixelWindow, sample: int = 0) -> Conditions:
        """Read a window as a batch of one tile, on the CPU."""
        return self.conditions([self.read(window)], sample)

    def fingerprint(self) -> dict[str, object]:
        """Return JSON-able marks of all conditions, by name."""
        marks: dict[str, object] = {
            name: dict(source.fingerprint()) for name, source in self.sources.items()
        }
        if self.style is not None:
            marks["style"] = dict(self.style.fingerprint())
        return marks

    def describe(self) -> dict[str, str]:
        """Return one line for a person by name."""
        lines = {name: source.describe() for name, source in self.sources.items()}
        if self.style is not None:
            lines["style"] = self.style.describe(self.seed)
        return lines

    def settings(self) -> dict[str, object]:
        """Return what was measured on opening; kept in a run, see `restored`."""
        reference = self._reference
        return {} if reference is None else {"reference": reference.settings.to_json()}

    def restored(self, stored: Mapping[str, object]) -> ConditionSet:
        """Return the same conditions with the settings of an earlier process."""
        reference = self._reference
        if reference is None or "reference" not in stored:
            return self
        from rsupres.conditions.references import Settings

        kept = stored["reference"]
        assert isinstance(kept, Mapping)
        again = reference.with_settings(Settings.from_json(kept))
        return replace(self, sources={**self.sources, "reference": again})

    @property
    def _reference(self) -> References | None:
        return cast("References | None", self.sources.get("reference"))


NO_CONDITIONS = ConditionSet()


@contextmanager
def open_conditions(
    request: ConditionRequest, frame: ConditionFrame
) -> Iterator[ConditionSet]:
    """Open what a user gave on the SR frame of a scene; close it on leaving.

    Raises:
        ConditionError: one does not fit the scene: of another place, coarser than the
            scene, without a valid pixel; both footprints are named.
        InputError: a file is missing, damaged, or not of its kind.
        BandError: a reference or style lacks the model's bands.
    """
    sources: dict[str, ConditionSource] = {}
    style: StyleImages | None = None
    with ExitStack() as stack:
        if request.vector_map:
            sources["vector_map"] = stack.enter_context(_open_map(request, frame))
        if request.reference:
            from rsupres.conditions.references import open_references

            sources["reference"] = stack.enter_context(
                open_references(
                    request.reference,
                    frame,
                    coregister=request.coregister,
                    fill=request.fill_reference,
                )
            )
        if request.change_mask:
            from rsupres.conditions.change_masks import open_mask

            reference = cast("References | None", sources.get("reference"))
            sources["change_mask"] = stack.enter_context(
                open_mask(request, frame, reference)
            )
        if request.style is not None:
            from rsupres.conditions.styles import open_styles

            style = open_styles(request.style, frame.roles, len(frame.bands))
        yield ConditionSet(frame.sr.window, sources, style, request.seed)


@contextmanager
def _open_map(
    request: ConditionRequest, frame: ConditionFrame
) -> Iterator[ConditionSource]:
    from rsupres.conditions.maps import is_drawn, map_source, open_drawn
    from rsupres.legends.legend_file import load_legend
    from rsupres.vector.map import VectorMap

    if is_drawn(request.vector_map):
        path = request.vector_map[0]
        with open_drawn(path, frame.sr, request.legend, request.layers) as drawn:
            yield drawn
        return
    with VectorMap.open(
        request.vector_map,
        frame.sr,
        load_legend(request.legend or DEFAULT_LEGEND),
        request.layers,
        request.folder,
    ) as opened:
        yield map_source(opened)


def _reflect(start: int, length: int, size: int) -> NDArray[np.intp]:
    """Return the positions in [0, size) that show at start, start + 1, ..."""
    turn = np.arange(start, start + length) % (2 * size)
    return np.where(turn < size, turn, 2 * size - 1 - turn)
