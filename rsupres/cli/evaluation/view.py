"""`rsupres view`: a whole mosaic in the browser of this machine."""

from __future__ import annotations

from pathlib import Path

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.terminal.console import Console


@click.command()
@click.argument("target", metavar="SR")
@click.option(
    "--lr",
    metavar="PATH",
    help="Input of the result; a slider compares the two. Default: none.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port on 127.0.0.1; 0 takes one that is free.",
)
@click.option("--no-browser", is_flag=True, help="Print the address, open no browser.")
@console_options
def view(
    console: Console, target: str, lr: str | None, port: int, no_browser: bool
) -> None:
    """Show SR in the browser at any zoom, also a mosaic of 40000 pixels a side.

    Tiles are cut when they are looked at; nothing is written. Only this machine reaches
    the page. Stop with Ctrl-C.

    \b
    Examples:
      rsupres view mosaic.tif --lr scene.tif
      rsupres view mosaic.tif --port 8080 --no-browser
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.report.view import Mosaic, serve

    with (
        console.work(),
        Mosaic(target, lr) as mosaic,
        serve(mosaic, Path(target).name, port) as server,
    ):
        address = f"http://127.0.0.1:{server.server_port}/"
        console.emit({"address": address}, f"{address} shows {target}; Ctrl-C stops.")
        if not no_browser:
            click.launch(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
