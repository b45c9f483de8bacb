"""Keep the journal of a batch: the status of each input, in `batch.json`.

The journal is written after every step, so that `rsupres status` can read it while the
batch runs. Nothing is upscaled here.
"""

from __future__ import annotations

import fcntl
import json
import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from rsupres.errors import InputError
from rsupres.output.atomic import publishing
from rsupres.output.locks import Lock, is_held
from rsupres.tiles.index import INDEX, LR
from rsupres.version import __version__

logger = logging.getLogger(__name__)

JOURNAL = "batch.json"
LOCK = "batch.lock"  # held while a batch runs; by shards together
SHARD_LOCKS = "batch.*-of-*.lock"  # each held by one shard
DONE = ("written", "existed")
FAILED, WAITING, RUNNING = "failed", "waiting", "running"
MERGING = "batch.json.lock"  # held while a shard adds its part to the journal
_PATIENCE_S = 60.0
# The status of an item is the first that one of its shards has.
_FIRST = (RUNNING, FAILED, WAITING, *DONE, "computed")
_OF_SHARDS = ("status", "exit_code", "error", "duration_s", "figures", "finished")


@dataclass(frozen=True)
class BatchItem:
    """One input and its output.

    Attributes:
        scene: what is opened.
        output: the file to write.
        conditions: by option of `UpscaleJob`, the tiles beside the scene.
        status: waiting, running, written, existed, computed (a shard) or failed.
        exit_code: 0, or the one that `rsupres upscale` would have ended with.
        error: what failed, in one line.
        model: its name, once known.
        duration_s: wall time.
        figures: quality figures, also of an output that was there already.
        finished: when the output was written or failed, ISO 8601, UTC; "" = not yet.
        files: that make one scene, when there are several.
        shards: its status in each shard ("2/8") of a batch in shards.
    """

    scene: str
    output: Path
    conditions: Mapping[str, str]
    status: str = WAITING
    exit_code: int = 0
    error: str = ""
    model: str = ""
    duration_s: float = 0.0
    figures: Mapping[str, float] | None = None
    finished: str = ""
    files: tuple[str, ...] = ()
    shards: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def is_tile(self) -> bool:
        """Whether the scene is a tile of a folder of `rsupres tile`."""
        path = Path(self.scene)
        return path.parent.name == LR and (path.parent.parent / INDEX).is_file()

    @property
    def at_rest(self) -> BatchItem:
        """The item when no process works on it: one that was running is waiting."""
        is_running = self.status == RUNNING
        return replace(self, status=WAITING) if is_running else self

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "scene": self.scene,
            "output": str(self.output),
            "status": self.status,
            "exit_code": self.exit_code,
            "error": self.error,
            "model": self.model,
            "duration_s": round(self.duration_s, 3),
            "figures": dict(self.figures or {}),
            "conditions": dict(self.conditions),
            "finished": self.finished,
            **({"files": list(self.files)} if self.files else {}),
            **({"shards": dict(self.shards)} if self.shards else {}),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> BatchItem:
        """Return the item that `to_json` stored."""
        values = {
            **stored,
            "output": Path(str(stored["output"])),
            "files": tuple(cast(Sequence[str], stored.get("files", ()))),
        }
        return cls(**values)  # type: ignore[arg-type]  # the batch's own record


def read_batch(folder: Path) -> list[BatchItem]:
    """Return the items of a batch as its journal has them.

    When no process works on the batch, an item that was running is waiting again.

    Raises:
        InputError: the folder holds no batch, or its journal is damaged.
    """
    path = folder / JOURNAL
    try:
        items = _read_stored(folder, "items")
    except FileNotFoundError as error:
        raise InputError(f"{folder}: holds no batch.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it.") from error
    if any(is_held(lock) for lock in (folder / LOCK, *folder.glob(SHARD_LOCKS))):
        return items
    return [item.at_rest for item in items]


def summarise(items: Sequence[BatchItem]) -> dict[str, object]:
    """Return how many items have which status, and the exit code of the batch.

    The exit code is that of the first failure in the order of the inputs, else 0.
    """
    counts = Counter(item.status for item in items)
    return {
        "items": len(items),
        **{status: counts[status] for status in sorted(counts)},
        "duration_s": round(sum(item.duration_s for item in items), 3),
        "exit_code": next((i.exit_code for i in items if i.status == FAILED), 0),
    }


@dataclass(frozen=True)
class Journal:
    """The journal of a batch that runs; it keeps what earlier batches left.

    Attributes:
        folder: of the outputs.
        options: of the batch, JSON-able.
        started: when it began, ISO 8601, UTC.
        earlier: items of earlier batches into the same folder, by output.
        shard: (I, N) = other processes write the same journal; None = this one alone.
    """

    folder: Path
    options: Mapping[str, object]
    started: str
    earlier: Mapping[Path, BatchItem]
    shard: tuple[int, int] | None = None

    @classmethod
    def begin(
        cls,
        folder: Path,
        options: Mapping[str, object],
        shard: tuple[int, int] | None = None,
    ) -> Journal:
        """Return a batch's journal with earlier calls; a damaged one is kept, renamed.

        Args:
            folder: of the batch's outputs.
            options: of all scenes, as JSON.
            shard: (I, N) of a part of the batch; None = the whole.
        """
        earlier: list[BatchItem] = []
        path = folder / JOURNAL
        if path.exists():
            try:
                earlier = [*read_batch(folder), *_read_stored(folder, "earlier")]
            except InputError:
                kept = path.with_name(f"{JOURNAL}.damaged-{secrets.token_hex(4)}")
                path.rename(kept)
                logger.warning("%s is damaged; kept as %s.", path, kept.name)
        by_output: dict[Path, BatchItem] = {}
        for item in earlier:
            by_output.setdefault(item.output, item)
        return cls(folder, options, now(), by_output, shard)

    def known(self, item: BatchItem) -> BatchItem:
        """Return an item with what an earlier batch found about its output."""
        old = self.earlier.get(item.output)
        if old is None or old.scene != item.scene:
            return item
        return replace(
            item, model=old.model, figures=old.figures, finished=old.finished
        )

    def save(self, items: Sequence[BatchItem]) -> None:
        """Write the journal into the folder, with what other shards have written there.

        Raises:
            ResourceError: the disk is full.
        """
        if self.shard is None:
            self._write(items)
            return
        lock = Lock.take(self.folder / MERGING, [fcntl.LOCK_EX], _PATIENCE_S)
        try:
            self._write(_merged(items, _read_items(self.folder), self.shard))
        finally:
            lock.release()

    def _write(self, items: Sequence[BatchItem]) -> None:
        outputs = {item.output for item in items}
        others = [
            item.to_json()
            for output, item in self.earlier.items()
            if output not in outputs
        ]
        content = {
            "version": __version__,
            "started": self.started,
            "updated": now(),
            "options": {**self.options, "shard": None},
            "items": [item.to_json() for item in items],
            "earlier": others,
        }
        with publishing(self.folder / JOURNAL) as part:
            part.write_text(json.dumps(content))


def _read_items(folder: Path) -> dict[Path, BatchItem]:
    """Return the items that the journal holds now, by output."""
    try:
        return {item.output: item for item in _read_stored(folder, "items")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _merged(
    items: Sequence[BatchItem],
    stored: Mapping[Path, BatchItem],
    shard: tuple[int, int],
) -> list[BatchItem]:
    """Return the items of one shard with what other shards of the same batch did."""
    index, count = shard
    merged = []
    for item in items:
        own = {name: getattr(item, name) for name in _OF_SHARDS}
        there = stored[item.output].shards if item.output in stored else {}
        others = {
            name: found
            for name, found in there.items()
            if name.endswith(f"/{count}") and name != f"{index}/{count}"
        }
        if item.scene != getattr(stored.get(item.output), "scene", None):
            others = {}
        shards = dict(sorted({**others, f"{index}/{count}": own}.items()))
        first = min(shards.values(), key=lambda s: _FIRST.index(str(s["status"])))
        merged.append(replace(item, shards=shards, **first))
    return merged


def now() -> str:
    """Return the time as ISO 8601 text, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_stored(folder: Path, part: str) -> list[BatchItem]:
    """Return the items of the last batch ("items"), or of those before ("earlier")."""
    stored = json.loads((folder / JOURNAL).read_text())
    rows = stored["items"] if part == "items" else stored.get(part, ())
    return [BatchItem.from_json(item) for item in rows]
