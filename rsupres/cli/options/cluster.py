"""Options of where a job is computed: workers of a Dask cluster, or several devices."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.options.parameters import TextType, stacked

if TYPE_CHECKING:
    from rsupres.cluster.scheduler import Scheduler
    from rsupres.tiles.batches.attempts import Elsewhere
    from rsupres.upscaling.pipeline import Compute


class ResourceType(TextType):
    """The resources that a task takes of a Dask worker, such as ``GPU=1``."""

    name = "name=number"

    def parse(self, text: str) -> tuple[str, float]:
        """Return the name and the amount."""
        name, _, amount = text.partition("=")
        try:
            number = float(amount)
        except ValueError:
            number = 0.0
        if not name or not 0 < number < float("inf"):
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, such as GPU=1.")
        return name, number


cluster_options = stacked(
    click.option(
        "--dask",
        metavar="ADDRESS",
        help="Let the workers of this Dask scheduler compute, such as "
        "tcp://10.0.0.1:8786. Default: this process computes.",
    ),
    click.option(
        "--dask-scheduler-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="As --dask, with the address from a file of 'dask scheduler "
        "--scheduler-file'. Default: none.",
    ),
    click.option(
        "--dask-local",
        type=click.IntRange(min=1),
        metavar="N",
        help="As --dask, with a scheduler and N workers that are started on this "
        "machine. Default: none.",
    ),
    click.option(
        "--dask-resources",
        type=ResourceType(),
        multiple=True,
        metavar="NAME=NUMBER",
        help="What a task takes of a worker that was started with --resources, such as "
        "GPU=1; may be repeated. Default: nothing.",
    ),
)

_PLACES = ("dask", "dask_scheduler_file", "dask_local")


def take_cluster(options: dict[str, Any]) -> Compute | None:
    """Take the options of `cluster_options` away; return where a scene is computed.

    The device that was given becomes that of the workers, because this process may run
    on a machine without one.

    Raises:
        click.UsageError: options that exclude each other.
    """
    scheduler, devices = _take_places(options)
    if scheduler is not None:
        from rsupres.cluster.dask_scene import OnDask

        return OnDask(scheduler, *devices)
    if len(devices) < 2:
        return None
    from rsupres.cli.process import tune
    from rsupres.cluster.processes import OnDevices

    return OnDevices(devices, tune)


def take_batch_cluster(
    options: dict[str, Any], folder: Path
) -> tuple[Elsewhere | None, tuple[str, ...]]:
    """Take the options of `cluster_options` away, for a batch.

    Args:
        options: of the command; those of the cluster are removed from them.
        folder: of the batch's outputs.

    Returns:
        The `Elsewhere` that attempts the scenes, None without one, and the devices of
        several processes of this machine.

    Raises:
        click.UsageError: options that exclude each other.
    """
    scheduler, devices = _take_places(options)
    if scheduler is None:
        return None, devices if len(devices) > 1 else ()
    if options["jobs"] > 1:
        raise click.UsageError("--jobs and --dask exclude each other.")
    from rsupres.cluster.dask_batch import BatchOnDask

    return BatchOnDask(scheduler, folder.absolute(), *devices), ()


def _take_places(options: dict[str, Any]) -> tuple[Scheduler | None, tuple[str, ...]]:
    """Take the options away; return the scheduler or None, and the devices."""
    values = {name: options.pop(name) for name in _PLACES}
    resources = dict(options.pop("dask_resources"))
    devices = tuple(options["device"].split(","))
    given = ["--" + n.replace("_", "-") for n in _PLACES if values[n] is not None]
    if len(devices) > 1:
        given.append("several of --device")
    if len(given) > 1:
        raise click.UsageError(f"{given[0]} and {given[1]} exclude each other.")
    if resources and values == dict.fromkeys(_PLACES):
        raise click.UsageError("--dask-resources needs --dask.")
    if not given:
        return None, devices
    if options["shard"] is not None:
        raise click.UsageError(f"--shard and {given[0]} exclude each other.")
    options["device"] = "auto"
    if len(devices) > 1:
        from rsupres.upscaling.preparation.devices import find_device

        for device in devices:  # before processes start, and a run directory is made
            find_device(device)
        return None, devices
    from rsupres.cluster.scheduler import Scheduler

    _take_over_log()
    address, file, n_local = (values[name] for name in _PLACES)
    return Scheduler(address, file, n_local, resources), devices


def _take_over_log() -> None:
    """Let the log of Dask go where ours goes, not to stderr as it does on import."""
    try:
        import distributed  # noqa: F401  # it sets up its loggers
    except ImportError:
        return  # `Scheduler.connected` says so
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "bokeh", "tornado"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
