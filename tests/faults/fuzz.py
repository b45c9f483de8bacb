"""Damage files of every kind at random, by a seed, and say how each is then used.

A case is a folder with files of which one is damaged, and the command that reads it.
`test_fuzz` runs cases; the same seed always makes the same case:

    python -m tests.faults.fuzz 17 FOLDER    # make case 17, and say its command
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import shapely

from tests.helpers import make_scene

ROOT = Path(__file__).parents[2]
UPSCALE = ("upscale", "scene.tif", "out.tif", "--model", "bicubic", "--scale", "2")
WEIGHTS = "slimdiffsr-mini.safetensors"  # the smallest file of weights that ships


@dataclass(frozen=True)
class Case:
    """A damaged file and the command that reads it.

    Attributes:
        kind: of the file.
        file: that is damaged.
        arguments: after `rsupres`, in the case's folder.
    """

    kind: str
    file: Path
    arguments: tuple[str, ...]


def make_case(seed: int, folder: Path, sound: Path) -> Case:
    """Make the case of a seed.

    Args:
        seed: any number; neighbours are of different kinds.
        folder: empty; the case's files are made here.
        sound: folder of `make_sound_files`.
    """
    rng = random.Random(seed)
    kinds = sorted(KINDS)
    kind = kinds[seed % len(kinds)]
    name, arguments, damages = KINDS[kind]
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    path = folder / name
    if path.is_dir():
        path = rng.choice(sorted(p for p in path.rglob("*") if p.is_file()))
    damage = rng.choice(damages)
    path.write_bytes(damage(rng, path.read_bytes()))
    return Case(f"{kind}, {damage.__name__}", path, arguments)


def make_sound_files(folder: Path, run: Callable[..., object]) -> Path:
    """Write a sound file of every kind.

    Args:
        folder: to make.
        run: runs `rsupres` with arguments, in the folder.
    """
    folder.mkdir()
    names = ("B04", "B03", "B02")
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 4000, (3, 40, 48)).astype(np.uint16)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    make_scene(
        folder / "scene.tif", pixels=pixels, nodata=0, descriptions=names, **tiled
    )
    for suffix, driver in (("jp2", "JP2OpenJPEG"), ("png", "PNG")):
        narrow = pixels.astype("uint8") if driver == "PNG" else pixels
        make_scene(folder / f"scene.{suffix}", pixels=narrow, driver=driver)
    shapes = [shapely.box(400000, 5199700, 400200, 5200000).buffer(k) for k in (0, 9)]
    table = geopandas.GeoDataFrame(
        {"building": ["yes", "no"], "width": ["2", "3 m"]}, geometry=shapes, crs=32633
    )
    table.to_file(folder / "map.gpkg")
    table.to_crs(4326).to_file(folder / "map.geojson")
    table.to_file(folder / "map.shp")
    shutil.copy(ROOT / "rsupres/legends/classes.toml", folder / "legend.toml")
    shutil.copy(ROOT / "rsupres/legends/classes/worldcover.toml", folder / "table.toml")
    shutil.copy(ROOT / "models" / WEIGHTS, folder / WEIGHTS)
    (folder / "night.toml").write_text(
        '[batch]\ninputs = ["scene.tif"]\nout-dir = "out"\nmodel = "bicubic"\n'
        'scale = 2\n[[scene]]\nmatch = "s*"\nseed = 3\n'
    )
    (folder / "town.osm").write_text(_OSM)
    cut = ("tile", "scene.tif", "tiles", "--scale", "2", "--tile-size", "24")
    run(*cut)
    shard = ("--shard", "1/2", "--tile-size", "16", "--run-dir", "run")
    run(*UPSCALE, *shard)
    run("batch", "scene.png", "--out-dir", "done", "--model", "bicubic", "--scale", "2")
    run("upscale", "scene.tif", "sharp.tif", "--model", "bicubic", "--scale", "2")
    return folder


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    """Flip some bits anywhere."""
    return _changed(rng, content, len(content))


def flip_head(rng: random.Random, content: bytes) -> bytes:
    """Flip some bits of the first 400 bytes."""
    return _changed(rng, content, min(400, len(content)))


def cut_off(rng: random.Random, content: bytes) -> bytes:
    """Leave the end out, perhaps all."""
    return content[: rng.randrange(len(content))]


def blank(rng: random.Random, content: bytes) -> bytes:
    """Fill a part with zeros, as a disk does that lost a block."""
    start = rng.randrange(len(content))
    n = min(rng.randint(1, 4096), len(content) - start)
    return content[:start] + bytes(n) + content[start + n :]


def repeat_part(rng: random.Random, content: bytes) -> bytes:
    """Insert a part once more."""
    start = rng.randrange(len(content))
    part = content[start : start + rng.randint(1, 64)]
    return content[:start] + part * rng.randint(1, 3) + content[start:]


def change_words(rng: random.Random, content: bytes) -> bytes:
    """Replace words and numbers of a text by others that can be read."""
    others = (b"-1", b"0", b"1e309", b"nan", b'"', b"null", b"[", b"}", b"true", b"x")
    words = content.split(b" ")
    for _ in range(rng.randint(1, 3)):
        words[rng.randrange(len(words))] = rng.choice(others)
    return b" ".join(words)


def encode_otherwise(rng: random.Random, content: bytes) -> bytes:
    """Write a text in another encoding, or with a byte that no text has."""
    text = content.decode()
    encoded = [text.encode("utf-16"), text.encode("utf-8-sig"), content + b"\xff\xfe#"]
    return rng.choice([*encoded, content.replace(b"\n", b"\r\n")])


def _changed(rng: random.Random, content: bytes, end: int) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


_OSM = """<osm version="0.6">
<node id="1" lat="46.94" lon="13.686"/> <node id="2" lat="46.94" lon="13.689"/>
<node id="3" lat="46.937" lon="13.689"/>
<way id="1"> <nd ref="1"/> <nd ref="2"/> <nd ref="3"/>
<tag k="highway" v="path"/> </way>
<way id="2"> <nd ref="1"/> <nd ref="2"/> <nd ref="3"/> <nd ref="1"/>
<tag k="building" v="yes"/> </way>
<relation id="9"> <member type="way" ref="2" role="outer"/>
<tag k="type" v="multipolygon"/> <tag k="natural" v="water"/> </relation></osm>"""

Damage = Callable[[random.Random, bytes], bytes]
_BINARY: tuple[Damage, ...] = (flip_bits, flip_head, cut_off, blank, repeat_part)
_TEXT: tuple[Damage, ...] = (*_BINARY, change_words, encode_otherwise)
_MAP = ("map.tif", "--like", "scene.tif", "--scale", "2")
# Kind of file: the file or folder, the command that reads it, and its damages.
KINDS: dict[str, tuple[str, tuple[str, ...], tuple[Damage, ...]]] = {
    "header": ("scene.tif", UPSCALE, (flip_head, cut_off, blank)),
    "tiles of a scene": ("scene.tif", UPSCALE, (flip_bits, blank, repeat_part)),
    "jp2": ("scene.jp2", ("upscale", "scene.jp2", *UPSCALE[2:]), _BINARY),
    "png": ("scene.png", ("upscale", "scene.png", *UPSCALE[2:]), _BINARY),
    "gpkg": ("map.gpkg", ("rasterize", "map.gpkg", *_MAP), _BINARY),
    "geojson": ("map.geojson", ("rasterize", "map.geojson", *_MAP), _TEXT),
    "shapefile": ("map.shp", ("rasterize", "map.shp", *_MAP), _BINARY),
    "dbase": ("map.dbf", ("rasterize", "map.shp", *_MAP), _BINARY),
    "osm": ("town.osm", ("rasterize", "town.osm", *_MAP), _TEXT),
    "area": ("map.geojson", (*UPSCALE, "--aoi", "map.geojson"), _TEXT),
    "change": ("map.gpkg", ("change", "map.gpkg", *_MAP), _BINARY),
    "legend": (
        "legend.toml",
        ("rasterize", "map.gpkg", *_MAP, "--legend", "legend.toml"),
        _TEXT,
    ),
    "class table": (
        "table.toml",
        ("change", "scene.tif", *_MAP, "--class-table", "table.toml"),
        _TEXT,
    ),
    "job file": ("night.toml", ("batch", "--config", "night.toml"), _TEXT),
    "weights": (
        WEIGHTS,
        ("upscale", "scene.tif", "out.tif", "--model", WEIGHTS, "--scale", "4"),
        (flip_head, cut_off, repeat_part),
    ),
    "weights, shown": (WEIGHTS, ("models", "show", WEIGHTS), (flip_head, cut_off)),
    "pack": (WEIGHTS, ("dataset", "check", WEIGHTS), _BINARY),
    "run.json": (
        "run/run.json",
        (*UPSCALE, "--tile-size", "16", "--run-dir", "run"),
        _TEXT,
    ),
    "run of a mosaic": ("run/run.json", ("mosaic", "run", "out.tif"), _TEXT),
    "state of a run": ("run/run.json", ("status", "run"), _TEXT),
    "strips": (
        "run/strips",
        (*UPSCALE, "--tile-size", "16", "--run-dir", "run"),
        _BINARY,
    ),
    "sums": ("run/sums", ("mosaic", "run", "out.tif"), _TEXT),
    "tiles": ("tiles/lr", ("mosaic", "tiles/lr", "out.tif"), _BINARY),
    "index of tiles": ("tiles/tiles.gpkg", ("mosaic", "tiles/lr", "out.tif"), _BINARY),
    "journal": (
        "done/batch.json",
        ("batch", "scene.png", "--out-dir", "done", *UPSCALE[3:]),
        _TEXT,
    ),
    "state of a batch": ("done/batch.json", ("status", "done"), _TEXT),
    "output": (
        "sharp.tif",
        ("upscale", "scene.tif", "sharp.tif", *UPSCALE[3:], "--update"),
        _BINARY,
    ),
    "evaluated": ("sharp.tif", ("evaluate", "sharp.tif", "scene.tif"), _BINARY),
}


if __name__ == "__main__":
    from tests.forkserver import Commands

    target = Path(sys.argv[2])
    target.mkdir()
    commands = Commands(target)
    make_sound_files(
        target / "sound", lambda *words: commands.run(*words, folder=target / "sound")
    )
    case = make_case(int(sys.argv[1]), target / "case", target / "sound")
    print(f"{case.kind}: {case.file}")
    print(f"cd {target / 'case'}; rsupres {' '.join(case.arguments)}")
