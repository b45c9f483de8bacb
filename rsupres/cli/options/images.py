"""Options about sharp images: how LR is made of them, and their sidecars.

Shared by the commands that take whole images, `rsupres dataset` and `rsupres evaluate`.
"""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import former_option, stacked

# As `rsupres.degradations.registry` has them; here, so that help needs no torch.
DEGRADATIONS = ("bicubic", "sentinel2", "refdiff", "second-order", "any-sensor")


def check_legend(legend: str | None, vector_map_from: tuple[str, ...]) -> None:
    """Refuse a legend when nothing is drawn by it.

    Args:
        legend: as given, None = not given.
        vector_map_from: the maps that are drawn.
    """
    if legend is not None and not any("=" not in text for text in vector_map_from):
        raise click.UsageError("--legend is for --vector-map-from with vector files.")


def check_classes(classes: str | None, change_mask_from: tuple[str, ...]) -> None:
    """Refuse a class table when there are no masks.

    Args:
        classes: as given, None = not given.
        change_mask_from: the masks that have classes.
    """
    if classes is not None and not change_mask_from:
        raise click.UsageError("--class-table is for --change-mask-from.")


legend_option = click.option(
    "--legend",
    metavar="NAME|PATH",
    help="How vector files are drawn. Default: the model's legend, else maptiler.",
)
sidecar_options = stacked(
    click.option(
        "--reference-from",
        multiple=True,
        metavar="OLD=NEW",
        help="The reference of an image: its path with OLD replaced by NEW, such as "
        "2020=2018, on the same pixels; may be repeated. Default: none.",
    ),
    click.option(
        "--vector-map-from",
        multiple=True,
        metavar="OLD=NEW|MAP",
        help="The map of an image: a raster in legend colours, found by such a rule, "
        "or vector files for all images; may be repeated. Default: none.",
    ),
    click.option(
        "--change-mask-from",
        multiple=True,
        metavar="OLD=NEW",
        help="The change mask of an image: a raster of codes, found by such a rule; "
        "may be repeated. Default: none.",
    ),
    click.option(
        "--class-table",
        metavar="NAME|PATH",
        help="Meaning of the codes of the change masks; with a table such as second, "
        "its colours are read too. Default: codes as they are.",
    ),
    former_option("--change-classes", "--class-table"),
    legend_option,
)
file_choice_options = stacked(
    click.option(
        "--glob",
        default="*",
        metavar="PATTERN",
        help="Which files of a folder; '**/' descends.",
    ),
    click.option(
        "--exclude-glob",
        "exclude",
        multiple=True,
        metavar="PATTERN",
        help="Names of files to leave out; may be repeated. Default: none.",
    ),
)
