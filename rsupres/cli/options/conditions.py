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
        help="Map to look at: .osm.pbf, .osm, .gpkg, .geojson, .parquet, .shp; "
        "may be repeated. 'overpass' downloads OpenStreetMap and keeps a copy. "
        "Or one .tif in the legend's colours on the SR grid.",
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
        help="Only these classes of the legend. Default: all.",
    ),
)
raster_condition_options = stacked(
    click.option(
        "--reference",
        multiple=True,
        metavar="PATH",
        callback=expand_lists,
        help="Earlier high-resolution image, any CRS and pixel size; repeated "
        "or @list.txt, the latest date lies on top.",
    ),
    click.option(
        "--coregister",
        is_flag=True,
        help="Move the reference by the displacement found against the scene.",
    ),
    click.option(
        "--fill-reference",
        is_flag=True,
        help="Fill what the reference misses with the enlarged scene. Default: "
        "the model is told that it is missing.",
    ),
    click.option(
        "--change-mask",
        metavar="PATH|detect",
        help="Where and into what the land changed since the reference: "
        "polygons or a class raster; 'detect' compares reference and scene.",
    ),
    click.option(
        "--class-table",
        metavar="NAME|PATH",
        help="Class table of the mask's codes. Default: as the file tells.",
    ),
    former_option("--change-classes", "--class-table"),
    click.option(
        "--class-attribute",
        metavar="NAME",
        help="Attribute of the mask's polygons that holds their class. "
        "Default: none, they all mean changed.",
    ),
    former_option("--change-attribute", "--class-attribute"),
)
style_options = stacked(
    click.option(
        "--style",
        metavar="PATH",
        help="Follow the look of this image, or of one in this folder, chosen "
        "by --seed.",
    ),
    click.option(
        "--style-sample",
        is_flag=True,
        help="Draw a style by --seed instead of following an image.",
    ),
)
condition_options = stacked(map_options, raster_condition_options, style_options)
