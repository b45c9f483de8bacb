"""The tests of the families' papers as requests: data layout, scale, crop, figures.

A protocol turns the folder of a data set, laid out as its publisher does, into requests
for `rsupres.evaluation.measure_models`. Choices that a paper leaves open (which images
were drawn) follow a fixed rule, which `notes` say. docs/how-to/evaluate.md has the
folders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from rsupres.errors import InputError
from rsupres.evaluation.comparison.tables import Published, published
from rsupres.evaluation.measure_models import ModelsRequest, measure_models
from rsupres.evaluation.report import Row
from rsupres.execution import OnProgress
from rsupres.raster.files import find_images

CLOSE_DB = 0.1  # PSNR of bicubic that differs by more shows another test
Scales = tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set as a protocol uses it.

    Attributes:
        name: of its folder.
        folders: of its test images, below it; the first that exists is taken, "" is
            the folder itself.
        n_images: of the paper's test; of more images, every k-th is taken.
        middle: HR pixels along a side that are taken from the middle; None = all.
        rules: fields of `ModelsRequest` with rules for sidecars.
        lr_from: by scale, the rule for stored LR images.
    """

    name: str
    folders: tuple[str, ...]
    n_images: int
    middle: int | None = None
    rules: Mapping[str, tuple[str, ...]] | None = None
    lr_from: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Protocol:
    """The test of a paper.

    Attributes:
        name: of the family.
        title: of the paper's test.
        datasets: that it uses.
        scales: that it reports.
        figures: names that it reports.
        border: SR pixels left out at every side; None = the scale, rounded up.
        notes: what the paper leaves open, and what is done here.
    """

    name: str
    title: str
    datasets: tuple[Dataset, ...]
    scales: Scales
    figures: tuple[str, ...]
    border: int | None
    notes: tuple[str, ...]


_DOTA = ("images", "test/images", "val/images", "")
_DIOR = ("JPEGImages-test", "test", "")
_SECOND = ("RefSR_dataset/test/HR_512", "test/HR_512")
_STORED = {"8": ("HR_512=Bic_LR_D8_32",), "16": ("HR_512=Bic_LR_D16_16",)}
_REF_RULES = {
    "reference_from": ("HR_512=Ref",),
    "change_mask_from": ("HR_512=CD_mask",),
}
PROTOCOLS: Mapping[str, Protocol] = {
    "e2diffsr": Protocol(
        "e2diffsr",
        "E2DiffSR, tables I and II: RGB, LR by Pillow's bicubic in 8 bits",
        (
            Dataset("AID", ("test", ""), 1000),
            Dataset("DOTA", _DOTA, 500, middle=512),
            Dataset("DIOR", _DIOR, 500),
        ),
        ("2", "13/5", "3", "17/5", "4", "6", "8", "10"),
        ("psnr", "lpips_alex", "fid"),
        None,
        (
            "The paper's lists of test images are not published: of more images than "
            "it has, every k-th in the order of names is taken; DOTA's crops are the "
            "middles.",
        ),
    ),
    "sgdm": Protocol(
        "sgdm",
        "SGDM, synthetic test: figures on Y, LR by bicubic",
        (
            Dataset(
                "SGDM", ("hr_256",), 300, None, {"vector_map_from": ("hr_256=ref_256",)}
            ),
        ),
        ("32",),
        ("psnr_y", "ssim_y", "lpips_alex", "dists", "fid"),
        0,
        ("LR images are computed, because the stored ones are enlarged already.",),
    ),
    "refdiff": Protocol(
        "refdiff",
        "Ref-Diff, SECOND and CNAM-CD: stored bicubic LR, reference and change mask",
        (
            Dataset("SECOND", _SECOND, 1200, None, _REF_RULES, _STORED),
            Dataset("CNAM-CD", _SECOND, 1000, None, _REF_RULES, _STORED),
        ),
        ("8", "16"),
        ("lpips_alex", "fid"),
        0,
        ("CLASS_Table.txt of the data says what the values of the masks mean.",),
    ),
    "slimdiffsr": Protocol(
        "slimdiffsr",
        "SlimDiffSR: figures on Y, no border left out",
        (
            Dataset("DIOR", _DIOR, 11738),
            Dataset("DOTA", _DOTA, 458),
            Dataset("NWPU-RESISC45", ("test", ""), 31500),
        ),
        ("4", "8"),
        (
            *("psnr_y", "ssim_y", "lpips_alex", "dists"),
            *("clip_iqa", "musiq", "niqe", "fid"),
        ),
        0,
        (
            "The paper shows its comparisons in charts; the rows of DIOR x4 are those "
            "of its ablation, whose scale it does not name.",
            "The paper's CLIP-IQA uses another CLIP (RN50), and its MANIQA is not "
            "measured here.",
        ),
    ),
}


@dataclass(frozen=True)
class Table:
    """One data set at one scale: ours beside the paper's.

    Attributes:
        dataset: name.
        scale: as text.
        figures: names of the columns.
        ours: means over the images.
        theirs: rows of the paper, method -> figure -> value.
        notes: differences between our test and the paper's.
    """

    dataset: str
    scale: str
    figures: tuple[str, ...]
    ours: tuple[Row, ...]
    theirs: Published
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "dataset": self.dataset,
            "scale": self.scale,
            "ours": [row.to_json() for row in self.ours],
            "paper": {method: dict(row) for method, row in self.theirs.items()},
            "notes": list(self.notes),
        }

    def lines(self, headings: Mapping[str, str]) -> list[str]:
        """Return the table as text, under headings by figure."""
        n_images = self.ours[0].n_images
        title = f"{self.dataset} x{self.scale}, {n_images} images"
        names = [*(f"{m} (paper)" for m in self.theirs), *(r.model for r in self.ours)]
        width = max(len(name) for name in [*names, title])
        heads = " ".join(f"{headings.get(f, f):>9}" for f in self.figures)
        lines = [f"{title:{width}} {heads}"]
        rows = [*self.theirs.values(), *(row.figures for row in self.ours)]
        for name, row in zip(names, rows, strict=True):
            cells = " ".join(_cell(row.get(figure)) for figure in self.figures)
            lines.append(f"{name:{width}} {cells}")
        return [*lines, *(f"  {note}" for note in self.notes)]


def _cell(value: float | None) -> str:
    return f"{'-':>9}" if value is None or value != value else f"{value:9.4f}"


def run_protocol(
    name: str,
    folder: Path,
    request: ModelsRequest,
    scales: Sequence[Fraction] = (),
    *,
    on_progress: OnProgress | None = None,
    on_table: Callable[[Table], None] = lambda table: None,
) -> list[Table]:
    """Run a paper's test on its data sets in a folder; return the tables of the scales.

    Args:
        name: of the protocol.
        folder: of a data set, or of several, laid out as their publishers do.
        request: models, devices and weights; what the protocol decides is replaced.
        scales: of the protocol's; empty = all.
        on_progress: as for `measure_models`.
        on_table: called with each table as soon as it is measured.

    Raises:
        InputError: the folder holds no data set of the protocol, or the protocol has
            no such scale.
        RsupresError: as `measure_models`.
    """
    protocol = PROTOCOLS[name]
    wanted = [str(scale) for scale in scales] or list(protocol.scales)
    if unknown := [scale for scale in wanted if scale not in protocol.scales]:
        raise InputError(
            f"{', '.join(unknown)}: the protocol {name} has scales "
            f"{', '.join(protocol.scales)}.",
            argument="scales",
        )
    tables = []
    for dataset, images in _datasets(protocol, folder):
        for scale in wanted:
            own = _request(protocol, dataset, images, scale, request)
            result = measure_models(own, on_progress=on_progress)
            table = _table(protocol, dataset, scale, result.means)
            on_table(table)
            tables.append(table)
    return tables


def _datasets(protocol: Protocol, folder: Path) -> list[tuple[Dataset, Path]]:
    """Return the data sets in a folder, each with the folder of its test images."""
    found = []
    for dataset in protocol.datasets:
        beside = folder / dataset.name
        roots = [beside] if beside.is_dir() else []
        if folder.resolve().name.lower() == dataset.name.lower() or (
            len(protocol.datasets) == 1
        ):
            roots.append(folder)
        places = [root / part for root in roots for part in dataset.folders]
        place = next((place for place in places if place.is_dir()), None)
        if place is not None:
            found.append((dataset, place))
    if not found:
        layouts = "; ".join(
            f"{d.name}/{d.folders[0]}" for d in protocol.datasets if d.folders
        )
        raise InputError(
            f"{folder}: holds no data set of the protocol {protocol.name}, which are "
            f"laid out as {layouts}."
        )
    return found


def _request(
    protocol: Protocol,
    dataset: Dataset,
    images: Path,
    scale: str,
    request: ModelsRequest,
) -> ModelsRequest:
    """Return the request of one data set at one scale."""
    n_found = len(find_images([images], "**/*"))
    looked_at = dataset.rules or {}
    return replace(
        request,
        inputs=(images,),
        scales=(Fraction(scale),),
        every=max(1, round(n_found / dataset.n_images)),
        glob="**/*",
        degradation="bicubic",
        middle=dataset.middle,
        border=protocol.border,
        max_side=max(request.max_side, 1 << 13),
        lr_from=(dataset.lr_from or {}).get(scale, ()),
        **_rules_used(request, looked_at),  # type: ignore[arg-type]  # its fields
    )


def _rules_used(
    request: ModelsRequest, rules: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return the rules of conditions that one of the models looks at."""
    from rsupres.checkpoints.catalogue import read_card

    looked_at: set[str] = set()
    for model in request.models:
        spec = read_card(model).spec
        looked_at |= spec.needs | spec.accepts
    return {
        name: rule
        for name, rule in rules.items()
        if name.removesuffix("_from") in looked_at
    }


def _table(
    protocol: Protocol, dataset: Dataset, scale: str, means: Sequence[Row]
) -> Table:
    theirs = published(protocol.name, dataset.name, scale)
    notes = list(protocol.notes)
    n_images = means[0].n_images
    if n_images < dataset.n_images:
        notes.append(f"{n_images} images; the paper has {dataset.n_images}.")
    ours = {row.model: row.figures for row in means}
    paper_db = theirs.get("bicubic", {}).get("psnr")
    if paper_db is not None and "bicubic" in ours:
        off = ours["bicubic"]["psnr"] - paper_db
        if abs(off) > CLOSE_DB:
            notes.append(
                f"Bicubic has {off:+.2f} dB against the paper's: other images or "
                "another test, so the rows do not compare."
            )
    measured = set().union(*(row.figures for row in means))
    figures = tuple(f for f in protocol.figures if f in measured or theirs)
    return Table(dataset.name, scale, figures, tuple(means), theirs, tuple(notes))
