"""Options that give conditions: maps, references, change masks and styles.

Shared by the commands that read conditions for the tiles of a scene. Parsing only.
"""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import (
    LayersType,
    expand_lists,
    former_option,
    stacked,
)

map_options = stacked(
    click.option(
        "--vector-map",
        multiple=True,
        metavar="PATH|overpass",
        help="Map that the model looks at: .osm.pbf, .osm, .gpkg, .geojson, .parquet "
        "or .shp, may be repeated; or one .tif in the legend's colours on the SR grid. "
        "'overpass' downloads OpenStreetMap and keeps a copy. Default: none.",
    ),
    click.option(
        "--legend",
        metavar="NAME|PATH",
        help="How the map is drawn. Default: the model's legend.",
    ),
    click.option(
        "--layers",
        type=LayersType(),
        metavar="building,road",
        help="Draw only these classes of the legend. Default: all.",
    ),
)
raster_condition_options = stacked(
    click.option(
        "--reference",
        multiple=True,
        metavar="PATH",
        callback=expand_lists,
        help="Earlier high-resolution image, of any CRS and pixel size; may be "
        "repeated, or @list.txt. Where images overlap, the latest date lies on top. "
        "Default: none.",
    ),
    click.option(
        "--coregister",
        is_flag=True,
        help="Move the reference by the displacement found between it and the scene.",
    ),
    click.option(
        "--fill-reference",
        is_flag=True,
        help="Fill gaps of the reference with the enlarged scene. Default: the model "
        "treats gaps as missing.",
    ),
    click.option(
        "--change-mask",
        metavar="PATH|detect",
        help="Where the land changed since the reference, and into what: polygons or a "
        "class raster; 'detect' compares reference and scene. Default: none.",
    ),
    click.option(
        "--class-table",
        metavar="NAME|PATH",
        help="Meaning of the codes of the change mask. Default: as its file says.",
    ),
    former_option("--change-classes", "--class-table"),
    click.option(
        "--class-attribute",
        metavar="NAME",
        help="Attribute of the change mask's polygons that holds their class. Default: "
        "none, all polygons mean changed.",
    ),
    former_option("--change-attribute", "--class-attribute"),
)
style_options = stacked(
    click.option(
        "--style",
        metavar="PATH",
        help="Image whose colours are followed, or a folder of images of which --seed "
        "chooses one. Default: none.",
    ),
    click.option(
        "--style-sample",
        is_flag=True,
        help="Draw a style by --seed instead of following an image.",
    ),
)
condition_options = stacked(map_options, raster_condition_options, style_options)
