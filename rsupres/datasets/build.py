"""Build the packs of a training set, one for training and one for validation.

The packs appear under their names only when all of them are complete and checked.
This module finds the images, applies the layout of their folders, and writes the files;
`rsupres.datasets.packing` makes a single pack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rsupres.datasets.inspection import PackReport, check_packs
from rsupres.datasets.layouts import Layout
from rsupres.datasets.packing import PackOptions, build_pack
from rsupres.datasets.packs import STORED
from rsupres.datasets.sidecars import renamed
from rsupres.datasets.splits import TRAIN, VALIDATION, check_apart, split_by_place
from rsupres.errors import InputError, RunConflictError
from rsupres.execution import OnProgress, Progress
from rsupres.output.atomic import check_writable, make_folder, translate_os_errors
from rsupres.output.protect import Inputs, check_regular
from rsupres.output.temporary import temporary
from rsupres.raster.files import find_images


@dataclass(frozen=True)
class BuildRequest:
    """Images, splits and output of the packs to build.

    Attributes:
        out: a .safetensors file, or a folder for train.safetensors and
            validation.safetensors.
        inputs: image files, and folders of them.
        plan: how crops are cut and their LR is made.
        glob: pattern of the file names in a folder.
        exclude: patterns of file names that are left out.
        split_by: pattern that finds the place, see `rsupres.datasets.splits.place_of`.
        validation: places, or patterns of places, that are kept out of training.
        overwrite: replace packs that exist.
    """

    out: Path
    inputs: tuple[Path, ...]
    plan: PackOptions
    glob: str = "*"
    exclude: tuple[str, ...] = ()
    split_by: re.Pattern[str] | None = None
    validation: tuple[str, ...] = ()
    overwrite: bool = False


def follow_layout(plan: PackOptions, layout: Layout) -> PackOptions:
    """Return a plan with the rules of a folder layout added.

    Rules that the plan has already are kept.

    Args:
        plan: how crops are cut and their LR is made.
        layout: of `rsupres.datasets.layouts.find_layout`.
    """
    own = plan.sidecars
    sidecars = replace(
        own,
        reference=own.reference or layout.rules.get("reference", ()),
        vector_map=own.vector_map or layout.rules.get("vector_map", ()),
        change_mask=own.change_mask or layout.rules.get("change_mask", ()),
    )
    plan = replace(plan, sidecars=sidecars)
    if not layout.lr_from:
        return plan
    return replace(
        plan,
        lr_from=plan.lr_from or layout.lr_from,
        scale=plan.scale or layout.scale,
    )


def build_packs(
    request: BuildRequest, *, on_progress: OnProgress | None = None
) -> list[PackReport]:
    """Make packs of images, check them, and return their reports, training first.

    Args:
        request: images, splits and output.
        on_progress: called after each image.

    Raises:
        InputError: an image cannot be used, no crop is left, a place is not found, or
            both splits show the same ground.
        ArgumentError: a pack would replace an image or what belongs to one.
        RunConflictError: a pack exists and `request.overwrite` is off.
    """
    plan = request.plan
    if plan.lr_from:
        plan = replace(plan, degradation=STORED)
    images = find_images(request.inputs, request.glob, request.exclude)
    splits = split_by_place(images, request.split_by, request.validation)
    targets = _targets(request)
    _check_apart(targets, images, plan)
    with ExitStack() as stack:
        partials = {}
        for split, path in targets.items():
            with translate_os_errors(path):
                empty = stack.enter_context(temporary(path))
            partials[split] = empty.with_name(f"{empty.name}.pack")
        frames = {}
        for split, partial in partials.items():
            advance = _counter(on_progress, split, len(splits[split]))
            frames[split] = build_pack(
                partial, splits[split], request.split_by, split, plan, advance
            )
        if len(frames) == 2:
            check_apart(frames[TRAIN], frames[VALIDATION])
        check_packs(list(partials.values()))
        for split, partial in partials.items():
            partial.replace(targets[split])
    return check_packs(list(targets.values()))


def packs_in(paths: Sequence[Path]) -> list[Path]:
    """Return pack files: the given ones and those in the given folders.

    Raises:
        InputError: a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: no .safetensors packs in this folder.")
        found += inside
    return found


def _counter(
    on_progress: OnProgress | None, split: str, total: int
) -> Callable[[int], None] | None:
    """Return a function that reports the number of images done."""
    if on_progress is None:
        return None
    return lambda done: on_progress(Progress(split, done, total, "images"))


def _check_apart(
    targets: Mapping[str, Path], images: Sequence[Path], plan: PackOptions
) -> None:
    """Check that no pack replaces a file that is read, or what belongs to one."""
    rules = plan.sidecars
    files: dict[str, list[str]] = {"inputs": [str(path) for path in images]}
    if rules.class_table:
        files["class_table"] = [str(rules.class_table)]
    for image in images:
        for name, found in rules.files_of(image).items():
            files.setdefault(name, []).extend(found)
        if plan.lr_from:
            lr = renamed(image, plan.lr_from, "lr_from")
            files.setdefault("lr_from", []).append(str(lr))
    read = Inputs(files)
    for path in targets.values():
        check_regular(path, "out")
        read.check(path, "out")


def _targets(request: BuildRequest) -> Mapping[str, Path]:
    """Return the files to write, by split; make their folder."""
    names = (TRAIN, VALIDATION) if request.validation else (TRAIN,)
    if request.out.suffix == ".safetensors":
        if request.validation:
            raise InputError(
                f"{request.out}: a validation split makes two packs; name a folder.",
                remedies=("validation",),
            )
        targets = {TRAIN: request.out}
    else:
        targets = {name: request.out / f"{name}.safetensors" for name in names}
    for path in targets.values():
        if path.exists() and not request.overwrite:
            raise RunConflictError(f"{path} exists.", remedies=("overwrite",))
        make_folder(path.parent, "out")
        check_writable(path, "out")
    return targets
