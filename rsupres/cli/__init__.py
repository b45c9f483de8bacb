"""The command group: import commands on use, turn errors into exit codes.

Commands are modules of this package and are imported when they are called or listed.
None of them imports numpy, torch or rasterio at its top, so that help answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from rsupres.cli.process import leave_at_once, tune
from rsupres.cli.terminal.log_file import json_line, note, note_early
from rsupres.cli.terminal.streams import LOST, tolerant_streams
from rsupres.cli.terminal.wording import error_line
from rsupres.errors import RsupresError, code_of_os_error
from rsupres.version import __version__

# Short help of the commands in reading order, so that listing them imports none.
SHORT_HELP: Mapping[str, str] = {
    "upscale": "Upscale SCENE into OUTPUT, a georeferenced raster.",
    "plan": "Say what `upscale` would do with the same arguments; write nothing.",
    "tile": "Cut SCENE into overlapping tiles in DIR, with all that belongs to each.",
    "mosaic": "Blend the georeferenced tiles of DIR, or finish the run in RUN_DIR.",
    "batch": "Upscale many INPUTS into DIR and sum up.",
    "rasterize": "Burn the vector map MAP on the grid of a scene, SCALE times finer, "
    "into OUT.",
    "change": "Write where the land changed, and into what, on the grid of a scene.",
    "status": "Tell how far the run in FOLDER is, or the batch and all runs in it.",
    "models": "List, show, verify and import models.",
    "dataset": "Make and check packs of training crops.",
    "train": "Train a model as CONFIG, a TOML file, says; continue if it was stopped.",
    "distill": "Distil a student from a teacher as CONFIG, a TOML file, says.",
    "evaluate": "Measure SR against HR, or models on a test set of HR images.",
    "report": "Write a page about SR: before and after, figures, conditions, "
    "provenance.",
    "view": "Show SR in the browser at any zoom, also a mosaic of 40000 pixels a side.",
    "doctor": "Print versions, devices and models, and test whether they work.",
}
_FOLDERS = {
    **dict.fromkeys(("dataset", "train", "distill"), "training."),
    **dict.fromkeys(("evaluate", "report", "view"), "evaluation."),
}
# The module of each command below this package.
COMMANDS = {name: _FOLDERS.get(name, "") + name for name in SHORT_HELP}


class LazyGroup(click.Group):
    """A group that imports a command, a function of its name, when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in reading order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"rsupres.cli.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the list of commands, as Click does, from `SHORT_HELP`."""
        limit = formatter.width - 6 - max(map(len, SHORT_HELP))
        rows = [
            (name, click.Command(name, help=text).get_short_help_str(limit))
            for name, text in SHORT_HELP.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, args: Any = None, *more: Any, **extra: Any) -> Any:  # as Click's
        """Run the command line; readers of its output may go away meanwhile."""
        words = [_at_home(word) for word in (sys.argv[1:] if args is None else args)]
        with tolerant_streams() as output, leave_at_once(is_whole=args is None):
            try:
                return super().main(words, *more, **extra)
            except SystemExit as stop:
                output.flush()
                if output.is_broken and not stop.code:
                    raise SystemExit(LOST) from stop
                raise

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; a failure becomes one line and its exit code."""
        result = None
        with _errors_to_exit_codes(ctx):
            result = super().invoke(ctx)
        return result


def _at_home(word: str) -> str:
    """Expand `~` in ``--out-dir=~/sharp``; shells do not, and a folder `~` appears."""
    option, sign, value = word.partition("=")
    if sign and option.startswith("--") and (value == "~" or value.startswith("~/")):
        return f"{option}={os.path.expanduser(value)}"
    return word


@contextmanager
def _errors_to_exit_codes(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except (click.exceptions.Exit, click.exceptions.Abort):
        raise
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else ctx.command_path
        _fail(ctx, 2, f"{error.format_message()} See '{path} --help'.")
    except click.ClickException as error:
        _fail(ctx, error.exit_code, error.format_message())
    except RsupresError as error:
        line = error_line(error, ctx.meta.get("rsupres.command"))
        _fail(ctx, error.exit_code, line, getattr(error, "figures", None))
    except KeyboardInterrupt as stop:
        code = 128 + getattr(stop, "signum", 2)
        _fail(ctx, code, str(stop) or "Stopped.")
    except MemoryError:
        _fail(
            ctx, 6, "Out of memory; a smaller --tile-size or --batch-size needs less."
        )
    except Exception as error:
        code = code_of_os_error(error) if isinstance(error, OSError) else 1
        if isinstance(error, OSError) and code != 1:
            _fail(ctx, code, f"{error.filename or 'a file'}: {error.strerror}.")
        kind = type(error).__name__
        text = " ".join(str(error).split()) or "no message"
        _fail(
            ctx, 1, f"{kind}: {text} This is a defect of rsupres; please report this."
        )


def _fail(
    ctx: click.Context,
    code: int,
    message: str,
    figures: Mapping[str, float] | None = None,
) -> None:
    """Print `message` in one line and exit with `code`; JSON has the figures, too."""
    if ctx.meta.get("rsupres.debug"):
        import traceback

        traceback.print_exc()
        note(traceback.format_exc(), logging.ERROR)
    line = " ".join(message.split())
    if ctx.meta.get("rsupres.json"):
        import json

        more = {} if figures is None else {"figures": dict(figures)}
        click.echo(json.dumps({"error": line, "exit_code": code, **more}))
    as_json = bool(ctx.meta.get("rsupres.json_logs"))
    shown = f"Error: {line}" if code < 128 else line
    click.echo(
        json_line("ERROR", line, {"exit_code": code}) if as_json else shown, err=True
    )
    if ctx.meta.get("rsupres.logs"):
        note(f"{line} Exit code {code}.", logging.ERROR)
    elif log_file := ctx.meta.get("rsupres.log_file"):
        note_early(log_file, f"{line} Exit code {code}.", as_json=as_json)
    leave_if_abandoned(code)
    ctx.exit(code)


def leave_if_abandoned(code: int) -> None:
    """Exit at once when a thread is left that cannot be stopped, such as GDAL's."""
    execution = sys.modules.get("rsupres.execution")
    if execution is not None and execution.abandoned():
        sys.stdout.flush()
        sys.stderr.flush()
        for step in execution.LAST_STEPS:
            step()
        os._exit(code)


@click.group(
    cls=LazyGroup,
    name="rsupres",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 88,
        "auto_envvar_prefix": "RSUPRES",
        "show_default": True,
    },
)
@click.version_option(
    __version__, "--version", prog_name="rsupres", allow_from_autoenv=False
)
def main() -> None:
    """Super-resolve satellite scenes with diffusion models.

    Exit codes: 0 done, 1 defect, 2 usage, 3 input, 4 checkpoint, 5 run conflict or
    output exists, 6 resources, 7 model output, 8 a --fail-if gate, 130, 138, 142 or 143
    stopped (the same command continues).

    \b
    Examples:
      rsupres upscale scene.tif scene_x4.tif --scale 4
      rsupres evaluate scene_x4.tif truth.tif
    """  # noqa: D301  # Click wants the character, not the two letters
    tune()
