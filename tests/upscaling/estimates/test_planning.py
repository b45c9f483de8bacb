"""What is planned for a job that several processes share."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from rsupres.upscaling.estimates.planning import plan_job
from rsupres.upscaling.job import UpscaleJob
from tests.helpers import make_scene


def test_shards_need_disk_for_the_parts_of_strips_between_them(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "s.tif", 60, 50)
    job = UpscaleJob(
        scenes=(str(scene),),
        output=tmp_path / "out.tif",
        scale=Fraction(2),
        model="bicubic",
        tile_size=24,
        overlap=12,
    )
    one, *shared = (
        plan_job(replace(job, shard=shard)).disk_bytes
        for shard in (None, (1, 2), (2, 3), (2, 9))
    )
    assert one is not None
    part = (
        2 * 24 * 2 * 50 * 3 * 4
    )  # the last strip, float32; 24 rows, as others have 12
    assert [n - one for n in shared if n] == [part, 2 * part, 3 * part]
