"""`rsupres plan`: what `upscale` would do with the same arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.options.cluster import cluster_options, take_cluster
from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import expand_lists, former_option
from rsupres.cli.options.run import make_job, time_option, upscale_options
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.wording import error_line

if TYPE_CHECKING:
    from rsupres.upscaling.estimates.planning import Plan, PlannedBand, Size


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    callback=expand_lists,
    metavar="SCENE... [OUTPUT]",
)
@former_option("--output", "OUTPUT", short="-o")
@upscale_options
@cluster_options
@time_option
@console_options
def plan(
    console: Console,
    paths: tuple[str, ...],
    output: str | None = None,
    time_limit_s: float | None = None,
    **options: Any,
) -> None:
    """Say what `upscale` would do with the same arguments; write nothing.

    Prints the model and why it is taken, bands, stretch, sizes (width x height), tiles,
    memory, disk, a time estimate, and why the job would be refused, with the exit code
    that `upscale` would have. It takes less than 5 s; what takes longer to find out is
    left out, and named. Memory and time are those of one process of this machine.

    OUTPUT may be left out. Of two paths or more, the last is OUTPUT, as for `upscale`.

    \b
    Examples:
      rsupres plan scene.tif --scale 4 --model bicubic
      rsupres plan scene.tif scene_x2.tif --scale 2 --json
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.cli import leave_if_abandoned
    from rsupres.upscaling.estimates.planning import plan_job

    if output is None and len(paths) > 1:
        *scenes, output = paths
    else:
        scenes = list(paths)
    take_cluster(options)  # the figures are those of one process of this machine
    job = make_job(tuple(scenes), output or "out.tif", options)
    found = plan_job(job, has_output=output is not None)
    ctx = click.get_current_context()
    refused = [error_line(error, ctx.command) for error in found.refusals]
    record = {key: value for key, value in asdict(found).items() if key != "refusals"}
    console.emit({**record, "refused": refused}, describe(found, refused))
    sys.stdout.flush()
    leave_if_abandoned(found.exit_code)
    if found.exit_code:
        ctx.exit(found.exit_code)


def describe(plan: Plan, refused: Sequence[str]) -> str:
    """Return a plan as lines for a person.

    Args:
        plan: of `rsupres.upscaling.estimates.planning.plan_job`.
        refused: its refusals, worded.
    """
    lines = [("model", _model(plan))]
    if plan.scene_size and plan.output_size:
        lines += _found(plan)
    lines += [(name.replace("_", " "), line) for name, line in plan.conditions.items()]
    lines.append(("time", _time(plan)))
    if plan.left_out:
        lines.append(("left out", f"{plan.left_out}."))
    lines += [("refused", reason) for reason in refused]
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def _model(plan: Plan) -> str:
    if plan.model is None:
        return f"none, x{plan.scale}"
    return f"{plan.model}, x{plan.scale}" + (f" ({plan.reason})" if plan.reason else "")


def _found(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the lines of what is known once a scene is open."""
    from rsupres.upscaling.estimates.planning import size_text

    gsd, nodata = plan.gsd_m or 0.0, _nodata(plan.input_nodata)
    yield "scene", f"{_size(plan.scene_size)} pixels of {gsd:.4g} m, {nodata}"
    yield "bands", ", ".join(_band(band) for band in plan.bands)
    if others := [band for band in plan.bands if not band.role]:
        bands = ", ".join(str(band.band) for band in others)
        yield "others", f"{bands} beside the model ({plan.other_bands})"
    yield from _numbers(plan.bands)
    if plan.sensor:
        yield "sensor", _sensor(plan.sensor)
    yield (
        "output",
        f"{_size(plan.output_size)} pixels, {len(plan.bands)} band(s) of {plan.dtype}, "
        f"{_nodata(plan.nodata)}, about {size_text(plan.output_bytes or 0)}",
    )
    cols, rows = plan.tiles or (0, 0)
    yield (
        "tiles",
        f"{rows * cols} ({cols} x {rows}), each {_size(plan.tile_size)} pixels, "
        f"{plan.batch_size} at a time",
    )
    arithmetic = f", {plan.precision}" if plan.precision else ""
    yield "device", f"{plan.device}{arithmetic}"
    free = plan.memory_free_bytes
    there = f", {size_text(free)} free" if free is not None else ""
    yield "memory", f"about {size_text(plan.memory_bytes or 0)}{there}"
    yield (
        "disk",
        f"about {size_text(plan.disk_bytes or 0)} at the most, "
        f"{size_text(plan.free_bytes or 0)} free",
    )


def _sensor(found: Mapping[str, float]) -> str:
    """Return the properties of the sensor that the model assumes, given or read."""
    named = {
        "sensor_mtf": "MTF {:.2f} at Nyquist",
        "noise": "noise {:.2g} of the stretch",
        "jpeg_quality": "blocks of JPEG, quality {:.0f}",
    }
    return ", ".join(text.format(found[k]) for k, text in named.items() if k in found)


def _size(size: Size | None) -> str:
    width, height = size or (0, 0)
    return f"{width} x {height}"


def _nodata(value: float | None) -> str:
    return "no nodata value" if value is None else f"nodata {value:g}"


def _band(band: PlannedBand) -> str:
    name = f" ({band.name})" if band.name else ""
    role = f"{band.role} = " if band.role not in ("", "model") else ""
    return f"{role}{band.band}{name}"


def _numbers(bands: Sequence[PlannedBand]) -> Iterator[tuple[str, str]]:
    """Yield the lines about numbers; one text where all bands have the same."""
    if all(band.low is not None for band in bands):
        texts = [f"{band.low:.6g} to {band.high:.6g}" for band in bands]
        yield "stretch", f"{_joined(texts)} become 0 to 1"
    pairs = {(band.scale, band.offset) for band in bands}
    if pairs != {(1.0, 0.0)}:
        texts = [f"{band.scale:g} x number {band.offset:+g}" for band in bands]
        yield "offset", f"value = {_joined(texts)}"


def _joined(texts: Sequence[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else "; ".join(texts)


def _time(plan: Plan) -> str:
    share = ""
    if plan.conditions_s:
        share = f", {_duration(plan.conditions_s)} of it for conditions"
    if plan.duration_s is None:
        advice = "'rsupres doctor --calibrate' measures this machine"
        return f"unknown{share}; {advice}" if plan.model else "unknown"
    return f"about {_duration(plan.duration_s)}{share}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
