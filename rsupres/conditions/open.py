"""Open the conditions of a run and read them by window of the SR frame.

`open_conditions` opens what a user gave (vector maps, reference images, a change mask,
a style) on the SR frame of a scene. The `ConditionSet` then returns arrays for any
window, and joins those of several tiles into the `Conditions` of a batch. How each
condition is brought onto the grid is in its own module; that module is imported only
when the condition is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from rsupres.conditions.base import ConditionRequest, ConditionSource, TargetScene
from rsupres.families.base import Conditions
from rsupres.grid import PixelWindow, reflected_positions

if TYPE_CHECKING:
    from torch import Tensor

    from rsupres.conditions.references import References
    from rsupres.conditions.styles import StyleImages

_NOWHERE = PixelWindow(0, 0, 0, 0)


@dataclass(frozen=True)
class ConditionSet:
    """Open conditions; empty when none was given.

    Attributes:
        frame: the scene's SR frame as a window.
        sources: by name of the `Conditions` field; "reference" holds NaN where nothing
            is known, "vector_map" legend colours 0 to 255.
        style: images to follow, None when none was given.
        seed: of the run; chooses one of several styles.
    """

    frame: PixelWindow = _NOWHERE
    sources: Mapping[str, ConditionSource] = field(default_factory=dict)
    style: StyleImages | None = None
    seed: int = 0

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the open conditions, "style" included."""
        return (*self.sources, *(() if self.style is None else ("style",)))

    @property
    def has_tiles(self) -> bool:
        """Whether a condition differs from window to window; a style does not."""
        return bool(self.sources)

    def read(self, window: PixelWindow) -> dict[str, np.ndarray]:
        """Return (c, H, W) of every condition on a window of SR pixels, by name.

        A window may leave the scene's SR frame on any side (in the padding of the
        tiling); conditions are reflected at its edge, as the scene is.
        """
        rows = reflected_positions(window.row, window.height, self.frame.height)
        cols = reflected_positions(window.col, window.width, self.frame.width)
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
        """Join tiles of one size into the conditions of a batch, on the CPU.

        Args:
            tiles: one result of `read` per tile; may be empty when only a style is
                given.
            sample: number of the sample; with several styles each sample has its own.

        Returns:
            Tensors (b, c, H, W): reference and map in [0, 1], the reference 0 where it
            is not valid, the change mask as codes; and the style (c, Hs, Ws).
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
        """Return the conditions of a window as a batch of one; see `read`.

        Args:
            window: SR pixels.
            sample: number of the sample, which chooses among several styles.
        """
        return self.conditions([self.read(window)], sample)

    def fingerprint(self) -> dict[str, object]:
        """Return the JSON-able fingerprints of all conditions, by name."""
        found: dict[str, object] = {
            name: dict(source.fingerprint()) for name, source in self.sources.items()
        }
        if self.style is not None:
            found["style"] = dict(self.style.fingerprint())
        return found

    def describe(self) -> dict[str, str]:
        """Return one line for a person on each condition, by name."""
        lines = {name: source.describe() for name, source in self.sources.items()}
        if self.style is not None:
            lines["style"] = self.style.describe(self.seed)
        return lines

    def settings(self) -> dict[str, object]:
        """Return the measurements made on opening; a run stores them for `restored`."""
        reference = self._reference
        return {} if reference is None else {"reference": reference.settings.to_json()}

    def restored(self, stored: Mapping[str, object]) -> ConditionSet:
        """Return these conditions with the settings that an earlier process stored."""
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
    request: ConditionRequest, frame: TargetScene
) -> Iterator[ConditionSet]:
    """Yield a user's conditions, open on the SR frame of a scene.

    Args:
        request: what the user gave, and how to read it.
        frame: the scene.

    Raises:
        ConditionError: one does not fit the scene: of another place (both footprints
            are named), coarser than the scene, without a valid pixel.
        InputError: a file is missing, damaged, or not of its kind.
        BandError: a reference or style lacks the model's bands.
    """
    sources: dict[str, ConditionSource] = {}
    style: StyleImages | None = None
    with ExitStack() as stack:
        if request.vector_map:
            sources["vector_map"] = stack.enter_context(_open_map(request, frame))
        if request.reference:
            sources["reference"] = stack.enter_context(_open_reference(request, frame))
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


def _open_reference(
    request: ConditionRequest, frame: TargetScene
) -> AbstractContextManager[References]:
    from rsupres.conditions.references import open_references

    return open_references(
        request.reference,
        frame,
        coregister=request.coregister,
        fill=request.fill_reference,
    )


@contextmanager
def _open_map(
    request: ConditionRequest, frame: TargetScene
) -> Iterator[ConditionSource]:
    from rsupres.conditions.maps import is_drawn, map_source, open_drawn
    from rsupres.legends.legend import DEFAULT_COLOUR_LEGEND
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
        load_legend(request.legend or DEFAULT_COLOUR_LEGEND),
        request.layers,
        request.folder,
    ) as opened:
        yield map_source(opened)
