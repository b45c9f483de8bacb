"""Remove damaged files from a run directory, so that they are made again.

Packets of overviews are made of those below, all else of the strips that hold the same
ground. A strip is dropped, and then computed again, when one of its files is damaged or
gone, or a packet with its rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from rsupres.errors import InputError
from rsupres.output.damage.seals import is_noted, is_whole, read_json, write_json
from rsupres.output.run_dir import Run
from rsupres.output.tiff.geotiff import open_strip
from rsupres.output.tiff.packets import ROWS, Packets

logger = logging.getLogger(__name__)


def drop_damaged(packets: Packets, beside: Sequence[str]) -> int:
    """Remove damaged files of a run, and the strips that lack one; return how many.

    No other process works in the directory, or all strips are done. Parts of strips
    are looked at by `rsupres.output.strip_parts`, the context by `Run.load_context`.

    Args:
        packets: of the run.
        beside: folders with a file for every strip, "sums" or of a raster.

    Raises:
        OSError: a file cannot be removed.
    """
    run = packets.run
    for rows in packets.folder.glob("*.raw"):  # not sealed, and soon made of packets
        rows.unlink()
    found = [*_damaged_output(packets)]
    for folder in ("strips", "packets", *beside):
        files = sorted((run.path / folder).glob("*"))
        found += [file for file in files if not _is_sound(file, run)]
    for file in found:
        file.unlink()
    _mend_form(packets)
    dropped = 0
    for strip in sorted(run.done_strips()):
        if lacking := [*_lacking(packets, strip, beside)]:
            run.drop_strip(strip)
            found += lacking
            dropped += 1
    if found:
        logger.warning(
            "%s: damaged or gone; made again, with %d strips.", found[0], dropped
        )
    return dropped


def _is_sound(file: Path, run: Run) -> bool:
    """Return whether a file of a run is as it was written."""
    if file.suffix in (".tif", ".cog"):
        return is_whole(file, unsealed=run.is_unsealed)
    return file.suffix != ".json" or _is_read(file, run)


def _is_read(file: Path, run: Run) -> bool:
    try:
        read_json(file, unsealed=run.is_unsealed)
    except (OSError, ValueError):
        return False
    return True


def _damaged_output(packets: Packets) -> Iterator[Path]:
    """Yield the output that was begun and what is known of it, if it is damaged."""
    begun = packets.run.path / "output.part"
    marks = sorted(packets.folder.glob("*.copied"))
    if begun.exists():
        is_known = (packets.folder / "header.copied") in marks
        is_known = is_known or packets.run.is_unsealed
        if is_known and all(is_noted(mark, begun) for mark in marks):
            return
        yield begun
    yield from marks


def _mend_form(packets: Packets) -> None:
    """Note that the form of packets is unknown, where its file was damaged or gone."""
    form = packets.folder / "form.json"
    if not form.exists() and any(packets.folder.glob("*.tif")):
        write_json(form, {})


def _lacking(packets: Packets, strip: int, beside: Sequence[str]) -> Iterator[Path]:
    """Yield the files that a strip lacks: those beside it, and packets of its rows."""
    run = packets.run
    for folder in beside:
        suffix = ".json" if folder == "sums" else ".tif"
        file = run.path / folder / f"{strip:04d}{suffix}"
        if not file.exists():
            yield file
    top, stop = packets.edges[strip], packets.edges[strip + 1]
    path, first = run.strip_path(strip), stop
    if path.exists():
        try:
            width, kind = packets.grid.width, packets.form.dtype
            first -= open_strip(path, top, packets.n_bands, width, kind).height
        except InputError:
            yield path
    for row in range(top // ROWS * ROWS, first, ROWS) if first > top else ():
        if not (packets.path(0, row).exists() or packets.is_copied(row)):
            yield packets.path(0, row)
