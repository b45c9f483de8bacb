"""Reach a Dask scheduler, or start one with workers on this machine, and watch it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rsupres.errors import InputError, ResourceError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

logger = logging.getLogger(__name__)

_SAID_AFTER_S = 30.0
# How long a scheduler may take to answer at first, unless the user's configuration of
# Dask has another time than Dask's default.
_CONNECT_S, _DASKS_CONNECT_S = 5.0, 30.0
# glibc's settings that `rsupres.cli.process` makes in the process of a command.
_KEPT = str(1 << 30)


@dataclass(frozen=True)
class Scheduler:
    """A Dask scheduler; exactly one of the first three is given.

    Attributes:
        address: such as "tcp://10.0.0.1:8786".
        file: that the scheduler wrote, `dask scheduler --scheduler-file`.
        local: start this number of workers on this machine instead.
        resources: that each task takes of a worker, such as {"GPU": 1}.
    """

    address: str | None = None
    file: Path | None = None
    local: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """Connect; what was started here ends with the block.

        Raises:
            InputError: dask is not installed, or the file is missing.
            ResourceError: no scheduler answers.
        """
        try:
            from distributed import Client
        except ImportError as error:
            raise InputError(
                "needs the package distributed; pip install 'rsupres[dask]'.",
                argument="dask",
            ) from error
        with ExitStack() as stack:
            if self.local is not None:
                cluster = stack.enter_context(
                    _local_cluster(self.local, self.resources)
                )
                where = cluster.scheduler_address
            else:
                where = self._find_address()
                _check_answers(where)
            try:
                client = stack.enter_context(Client(where, set_as_default=False))
            except (OSError, ValueError) as error:
                raise ResourceError(f"{where}: no Dask scheduler answers.") from error
            logger.info(
                "Dask scheduler %s, dashboard %s.", where, client.dashboard_link
            )
            yield client

    def _find_address(self) -> str:
        """Return the address, from the file if one is given."""
        import json

        if self.address is not None:
            return self.address
        assert self.file is not None
        try:
            return str(json.loads(self.file.read_text())["address"])
        except OSError as error:
            raise InputError(
                f"{self.file} cannot be read ({error.strerror}); is the scheduler "
                "running?",
                argument="dask_scheduler_file",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.file} is no file that a Dask scheduler wrote.",
                argument="dask_scheduler_file",
            ) from error


def _check_answers(address: str) -> None:
    """Check that a Dask scheduler answers within some seconds.

    A client of Dask waits 30 s for an address where nothing listens, and without end
    for one where a program listens that never answers.

    Raises:
        ResourceError: none answers.
    """
    import dask
    from dask.utils import parse_timedelta
    from distributed.comm.core import connect
    from distributed.security import Security

    configured = dask.config.get("distributed.comm.timeouts.connect")
    limit_s: float = parse_timedelta(configured)
    if limit_s == _DASKS_CONNECT_S:
        limit_s = _CONNECT_S

    async def call() -> None:
        settings = Security().get_connection_args("client")
        comm = await connect(address, timeout=limit_s, **settings)
        await comm.close()

    # In a thread of its own, as the caller may run an event loop (a notebook does).
    with ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(asyncio.run, asyncio.wait_for(call(), limit_s)).result()
        # Other services send what Dask reads as the length of a huge message.
        except (OSError, ValueError, MemoryError) as error:
            raise ResourceError(
                f"{address}: no Dask scheduler answers; is it running, and is this the "
                "address of the scheduler and not that of its dashboard?"
            ) from error


@contextmanager
def _local_cluster(
    n_workers: int, resources: Mapping[str, float]
) -> Iterator[LocalCluster]:
    """Start a scheduler in this process, and workers in processes of their own.

    A worker takes one task at a time and shares the processor cores with the others,
    unless OMP_NUM_THREADS says how many threads each has.
    """
    import dask
    from distributed import LocalCluster

    share = max(1, len(os.sched_getaffinity(0)) // n_workers)
    surroundings = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", share),
        "MALLOC_TRIM_THRESHOLD_": _KEPT,
        "MALLOC_MMAP_THRESHOLD_": _KEPT,
    }
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": surroundings}),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            # Dask would kill a worker that uses much memory; rsupres limits its own.
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            resources=dict(resources) or None,
        ) as cluster,
    ):
        yield cluster


def wait_for_workers(client: Client) -> int:
    """Wait until the scheduler has workers, and return how many there are.

    Raises:
        ResourceError: the scheduler is gone.
    """
    started = time.monotonic()
    is_said = False
    while True:
        check_connected(client)
        if n_workers := len(client.nthreads()):
            return n_workers
        if not is_said and time.monotonic() - started > _SAID_AFTER_S:
            is_said = True
            logger.warning("The Dask scheduler has no workers yet; waiting for them.")
        time.sleep(0.2)


def check_connected(client: Client) -> None:
    """Check that the scheduler is there; one that came back has lost all tasks.

    Raises:
        ResourceError: the connection is lost.
    """
    if client.status != "running":
        raise ResourceError(
            "The Dask scheduler is gone; finished strips are kept, and the same "
            "command continues with another scheduler."
        )
