"""Turn the options of `rsupres batch` into a request, and show its plan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rsupres.cli.options.cluster import take_batch_cluster
from rsupres.cli.options.run import kept_item, make_job
from rsupres.cli.options.scene_rules import JobChooser, read_rules
from rsupres.cli.process import tune
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.wording import error_line

if TYPE_CHECKING:
    from rsupres.tiles.batches.batch import BatchRequest
    from rsupres.upscaling.estimates.planning import Plan

_OF_BATCH = ("recursive", "group_bands", "jobs", "retry", "max_failures", "summary")


def make_request(
    ctx: click.Context, inputs: tuple[str, ...], folder: Path, options: dict[str, Any]
) -> BatchRequest:
    """Return the request that the options of `rsupres batch` describe.

    Args:
        ctx: of the command.
        inputs: as they were given.
        folder: of the outputs.
        options: all others, by name.

    Raises:
        click.UsageError: options exclude each other, or a table [[scene]] of the job
            file is wrong.
    """
    from rsupres.tiles.batches.attempts import Effort
    from rsupres.tiles.batches.batch import BatchRequest
    from rsupres.tiles.batches.jobs import Selection

    elsewhere, devices = take_batch_cluster(options, folder)
    own = {name: options.pop(name) for name in _OF_BATCH}
    if "-" in inputs:
        if not ctx.params["is_plan"]:
            folder.mkdir(parents=True, exist_ok=True)
        kept = kept_item(str(folder / "batch"), may_replace=True)
        inputs = tuple(kept if name == "-" else name for name in inputs)
    rules = read_rules(ctx, options.keys())
    if own["jobs"] > 1 and options["shard"]:
        raise click.UsageError("--jobs and --shard exclude each other.")
    return BatchRequest(
        inputs=inputs,
        folder=folder,
        job=make_job((), str(folder), options),
        scale_is_given=ctx.get_parameter_source("scale") != ParameterSource.DEFAULT,
        selection=Selection(own["recursive"], own["group_bands"]),
        choose=JobChooser(str(folder), options, rules) if rules else None,
        effort=Effort(
            jobs=max(own["jobs"], len(devices)),
            retries=own["retry"],
            max_failures=own["max_failures"],
            set_up=tune,
            devices=devices,
            elsewhere=elsewhere,
        ),
        summary=own["summary"],
    )


def show_plan(console: Console, request: BatchRequest, ctx: click.Context) -> None:
    """Say what a batch would do with each input, and what it would cost in all.

    Exits with the code of the first input that would be refused.

    Args:
        console: where the plan goes.
        request: the batch.
        ctx: of the command.
    """
    from rsupres.cli import leave_if_abandoned
    from rsupres.upscaling.estimates.planning import plan_job

    plans: list[Plan] = []
    for item, job in request.expand():
        is_there = all(path.parent.exists() for path in job.outputs.values())
        plan = plan_job(job, has_output=is_there)  # a batch makes missing folders
        refused = "; ".join(error_line(e, ctx.command) for e in plan.refusals)
        names = ("model", "duration_s", "output_bytes", "disk_bytes")
        record: dict[str, object] = {n: getattr(plan, n) for n in names}
        record |= {"scene": item.scene, "output": str(item.output), "refused": refused}
        text = f"refused: {refused}" if refused else _costs(plan)
        console.emit(record, f"{item.output}  {text}")
        plans.append(plan)
    total, text = _sum_up(plans, request.effort.jobs)
    console.emit(total, text)
    code = total["exit_code"]
    sys.stdout.flush()
    leave_if_abandoned(code)
    if code:
        ctx.exit(code)


def _costs(plan: Plan) -> str:
    """Return model, time and size of the output that a plan tells, in a line."""
    from rsupres.upscaling.estimates.planning import size_text

    time = "time unknown" if plan.duration_s is None else f"{plan.duration_s:.0f} s"
    size = plan.output_bytes
    known = f"{plan.model}, {time}, "
    known += "size unknown" if size is None else size_text(size)
    return known + (f" ({plan.left_out})" if plan.left_out else "")


def _sum_up(plans: Sequence[Plan], n_jobs: int) -> tuple[dict[str, Any], str]:
    """Return what the plans of a batch come to, for programs and in a line."""
    from rsupres.upscaling.estimates.planning import size_text

    taken = [plan for plan in plans if not plan.refusals]
    output_bytes = sum(plan.output_bytes or 0 for plan in taken)
    runs_bytes = n_jobs * max((plan.disk_bytes or 0 for plan in taken), default=0)
    times_s = [plan.duration_s for plan in taken if plan.duration_s is not None]
    time_s = sum(times_s) / n_jobs if len(times_s) == len(taken) else None
    time = "time unknown" if time_s is None else f"about {time_s / 60:.1f} min"
    unknown = sum(plan.output_bytes is None for plan in taken)
    more = f", and those of {unknown} of unknown size" if unknown else ""
    code = next((plan.exit_code for plan in plans if plan.exit_code), 0)
    total: dict[str, Any] = {
        "inputs": len(plans),
        "refused": len(plans) - len(taken),
        "duration_s": time_s,
        "output_bytes": output_bytes,
        "disk_bytes": output_bytes + runs_bytes,
        "exit_code": code,
    }
    return total, (
        f"{len(plans)} inputs, {len(plans) - len(taken)} refused: {time}, outputs of "
        f"{size_text(output_bytes)}, at the most "
        f"{size_text(output_bytes + runs_bytes)} of disk{more}."
    )
