"""Cut a scene and its map into tiles, upscale the folder, and put it together again.

Usage: python examples/tile_folder.py SCENE MAP FOLDER

For pipelines that pass tiles on, or work on them with tools of their own. A scene that
needs no such stop is better given to `rsupres.upscale` whole.
"""

from __future__ import annotations

import sys
from pathlib import Path

import rsupres


def main(scene: str, vector_map: str, folder: str) -> None:
    """Write tiles, upscaled tiles and the mosaic below `folder`."""
    top = Path(folder)
    top.mkdir(parents=True, exist_ok=True)
    cut = rsupres.tile(
        scene, top / "tiles", scale=4, tile_size=48, overlap=16, vector_map=vector_map
    )
    rows, cols = cut.shape
    print(f"{rows} x {cols} tiles, in {', '.join(cut.kinds)}")

    items = rsupres.batch(top / "tiles", top / "sharp", model="bicubic")
    failed = [item for item in items if item.error]
    print(f"{len(items) - len(failed)} tiles upscaled, {len(failed)} failed")

    made = rsupres.mosaic(top / "sharp" / "tiles", top / "mosaic.tif")
    print(f"{made.output}")


if __name__ == "__main__":
    main(*sys.argv[1:])
