"""Keep the journal of a batch: what became of each input, in `batch.json`.

The journal is written after every step, so that `rsupres status` can read it while the
batch runs. Nothing is upscaled here.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rsupres.errors import InputError
from rsupres.output.atomic import publishing
from rsupres.output.locks import is_held
from rsupres.tiles.index import INDEX, LR
from rsupres.version import __version__

logger = logging.getLogger(__name__)

JOURNAL = "batch.json"
LOCK = "batch.lock"  # held while a batch runs
DONE = ("written", "existed")
FAILED, WAITING, RUNNING = "failed", "waiting", "running"


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

    @property
    def is_tile(self) -> bool:
        """Whether the scene is a tile of a folder of `rsupres tile`."""
        path = Path(self.scene)
        return path.parent.name == LR and (path.parent.parent / INDEX).is_file()

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
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> BatchItem:
        """Return the item that `to_json` stored."""
        values = {**stored, "output": Path(str(stored["output"]))}
        return cls(**values)  # type: ignore[arg-type]  # the batch's own record


def read_batch(folder: Path) -> list[BatchItem]:
    """Return the items of a batch as its journal has them.

    When no process works on the batch, an item that was running is waiting again.

    Raises:
        InputError: the folder holds no batch, or its journal is damaged.
    """
    path = folder / JOURNAL
    try:
        stored = json.loads(path.read_text())
        items = [BatchItem.from_json(item) for item in stored["items"]]
    except FileNotFoundError as error:
        raise InputError(f"{folder}: holds no batch.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it.") from error
    if (folder / LOCK).exists() and is_held(folder / LOCK):
        return items
    return [
        replace(item, status=WAITING) if item.status == RUNNING else item
        for item in items
    ]


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
    """

    folder: Path
    options: Mapping[str, object]
    started: str
    earlier: Mapping[Path, BatchItem]

    @classmethod
    def begin(cls, folder: Path, options: Mapping[str, object]) -> Journal:
        """Begin the journal of a batch; a damaged one is kept under another name."""
        earlier: list[BatchItem] = []
        path = folder / JOURNAL
        if path.exists():
            try:
                earlier = [*read_batch(folder), *_read_earlier(folder)]
            except InputError:
                kept = path.with_name(f"{JOURNAL}.damaged-{secrets.token_hex(4)}")
                path.rename(kept)
                logger.warning("%s is damaged; kept as %s.", path, kept.name)
        by_output: dict[Path, BatchItem] = {}
        for item in earlier:
            by_output.setdefault(item.output, item)
        return cls(folder, options, now(), by_output)

    def known(self, item: BatchItem) -> BatchItem:
        """Return an item with what an earlier batch found about its output."""
        old = self.earlier.get(item.output)
        if old is None or old.scene != item.scene:
            return item
        return replace(
            item, model=old.model, figures=old.figures, finished=old.finished
        )

    def save(self, items: Sequence[BatchItem]) -> None:
        """Write the journal into the folder.

        Raises:
            ResourceError: the disk is full.
        """
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
            "options": dict(self.options),
            "items": [item.to_json() for item in items],
            "earlier": others,
        }
        with publishing(self.folder / JOURNAL) as part:
            part.write_text(json.dumps(content))


def now() -> str:
    """Return the time as ISO 8601 text, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_earlier(folder: Path) -> list[BatchItem]:
    """Return the items of batches before the last one."""
    stored = json.loads((folder / JOURNAL).read_text())
    return [BatchItem.from_json(item) for item in stored.get("earlier", ())]
