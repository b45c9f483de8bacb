"""Write, read and compare `run.json`, which says which job a run directory belongs to.

The part under "job" is the identity of the run: a later process continues the run only
when its own identity is equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rsupres.errors import RunConflictError
from rsupres.output.damage.seals import read_json, write_json


def keep_manifest(path: Path, manifest: Mapping[str, object]) -> Mapping[str, object]:
    """Write the manifest of a new run, or compare it with that of an earlier one.

    Args:
        path: of the run directory.
        manifest: JSON-able; `manifest["job"]` is the identity of the run.

    Returns:
        The manifest on disk.

    Raises:
        RunConflictError: the identities differ, or the manifest is damaged.
    """
    kept = read_manifest(path)
    text = json.dumps(manifest)
    if kept is None:
        kept = json.loads(text)
        assert kept is not None
        write_json(path / "run.json", kept, indent=1)
    differences = differences_of(kept.get("job"), json.loads(text).get("job"))
    if differences:
        raise RunConflictError(
            f"{path}: belongs to another job, which has {'; '.join(differences[:3])}. "
            "Repeat that job to finish it, choose another run directory, or restart.",
            remedies=("run_dir", "restart"),
        )
    (path / "strips").mkdir(exist_ok=True)
    return kept


def is_manifest_of(path: Path, manifest: Mapping[str, object]) -> bool:
    """Return whether a run directory is new, or belongs to the job of a manifest.

    Args:
        path: of the run directory.
        manifest: JSON-able; `manifest["job"]` is the identity of the run.
    """
    try:
        kept = read_manifest(path)
    except RunConflictError:
        return False
    wanted = json.loads(json.dumps(manifest["job"]))
    return kept is None or not differences_of(kept.get("job"), wanted)


def read_manifest(path: Path) -> Mapping[str, object] | None:
    """Return the manifest in a run directory, None when there is none.

    Raises:
        RunConflictError: it is damaged.
    """
    file = path / "run.json"
    try:
        return read_json(file, unsealed=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise RunConflictError(
            f"{file}: damaged ({error}); remove the directory and begin again."
        ) from error


def damaged_manifest(path: Path) -> RunConflictError:
    """Return the error of a run directory whose manifest cannot be used."""
    return RunConflictError(
        f"{path / 'run.json'}: damaged; remove the directory and begin again."
    )


def differences_of(there: object, here: object, key: str = "") -> list[str]:
    """Return a line in words for each key whose value differs.

    Args:
        there: JSON-able, as it is stored.
        here: JSON-able, as it is wanted.
        key: name of both, "" = they are whole jobs.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            line
            for name in (*there, *(name for name in here if name not in there))
            for line in differences_of(
                there.get(name), here.get(name), f"{key}.{name}" if key else name
            )
        ]
    same = there == here and type(there) is type(here)
    return [] if same else [f"{key or 'job'} {there!r} instead of {here!r}"]
