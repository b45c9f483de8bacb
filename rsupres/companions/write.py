"""Write the files that are made of an output when it is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from rsupres.companions.request import Companions
from rsupres.errors import QualityGateError
from rsupres.output.atomic import publishing
from rsupres.output.temporary import clear


@contextmanager
def beside(companions: Companions) -> Iterator[None]:
    """Write companions after the block, also when its output missed a quality gate.

    Temporary files of killed processes beside them and beside the output are removed
    first.
    They are left out while an output is not complete, as after one shard of several.
    """
    clear([companions.output, *companions.paths.values()])
    if not companions.paths:
        yield
        return
    try:
        yield
    except QualityGateError:
        write_companions(companions)
        raise
    if companions.output.exists():
        write_companions(companions)


def write_companions(companions: Companions) -> None:
    """Write the files of a finished output; those that are current stay.

    Raises:
        RsupresError: one cannot be made or written.
    """
    from rsupres.companions import picture, stac_item

    output, paths = companions.output, companions.due
    if "rgb8" in paths:
        picture.write_picture(output, paths["rgb8"])
    if "qml" in paths:
        with publishing(paths["qml"]) as part:
            part.write_text(picture.write_style(output), encoding="utf-8")
    if "stac" in companions.due:  # the picture may be new
        paths = companions.paths
        item = stac_item.make_item(output, companions.scenes, companions.rgb8)
        text = json.dumps(item, indent=1, allow_nan=False)
        with publishing(paths["stac"]) as part:
            part.write_text(text, encoding="utf-8")
