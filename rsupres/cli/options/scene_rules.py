"""Give options to the scenes whose names match a pattern: ``[[scene]]`` of a job file.

Each table has `match`, a pattern or several, and options of a single scene. Of
several tables that match, later ones take precedence, and the command line and the
environment over all of them. ``{name}`` in a text stands for the name of the scene's
output.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from rsupres.cli.options.job_file import as_typed, find_key, option_keys
from rsupres.cli.options.run import make_job

if TYPE_CHECKING:
    from rsupres.upscaling.job import UpscaleJob

logger = logging.getLogger(__name__)

_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


@dataclass(frozen=True)
class SceneRule:
    """Options of the scenes whose names match.

    Attributes:
        patterns: with `*`, `?` and `[...]`, for the name of a scene or its whole path.
        options: by parameter.
    """

    patterns: tuple[str, ...]
    options: Mapping[str, object]

    def matches(self, scene: str, name: str) -> bool:
        """Return whether the options are for a scene.

        Args:
            scene: what is opened.
            name: of its output, without suffix.
        """
        texts = (name, scene, scene.rstrip("/").rpartition("/")[2])
        return any(fnmatchcase(text, p) for p in self.patterns for text in texts)


def read_rules(ctx: click.Context, names: Collection[str]) -> list[SceneRule]:
    """Return the rules of the job file that was read, all values checked.

    Args:
        ctx: of the command.
        names: the parameters that a scene may have of its own.

    Raises:
        click.UsageError: a table has no pattern, or an option that is none of a scene.
    """
    path, tables = ctx.meta.get("rsupres.scene_tables", ("", []))
    keys = {k: p for k, p in option_keys(ctx.command).items() if p.name in names}
    rules = []
    for number, table in enumerate(tables, start=1):
        where = f"{path}, [[scene]] {number}"
        patterns = table.get("match")
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, list) or not patterns:
            raise click.UsageError(f"{where}: has no match, such as match = 'T32TQM*'.")
        options: dict[str, object] = {}
        for key, value in table.items():
            if key == "match":
                continue
            parameter = find_key(keys, key, where, ctx)
            typed = as_typed(parameter, value, f"{where}: {key}")
            if ctx.get_parameter_source(str(parameter.name)) not in _GIVEN:
                options[str(parameter.name)] = parameter.process_value(ctx, typed)
        rules.append(SceneRule(tuple(map(str, patterns)), options))
    return rules


@dataclass(frozen=True)
class JobChooser:
    """Gives scenes their jobs; implements `rsupres.tiles.batches.jobs.Choose`.

    Attributes:
        folder: of the outputs.
        options: of all scenes.
        rules: of some.
        used: numbers of the rules that matched a scene so far.
    """

    folder: str
    options: Mapping[str, object]
    rules: list[SceneRule]
    used: set[int] = field(default_factory=set)

    def __call__(self, scene: str, name: str) -> tuple[UpscaleJob, bool]:
        """Return the job of a scene, and whether a rule has its scale.

        Args:
            scene: what is opened.
            name: of its output, without suffix.
        """
        chosen, has_scale = dict(self.options), False
        for number, rule in enumerate(self.rules):
            if rule.matches(scene, name):
                self.used.add(number)
                has_scale |= "scale" in rule.options
                chosen |= {k: _filled(v, name) for k, v in rule.options.items()}
        return make_job((), self.folder, chosen), has_scale

    def finish(self) -> None:
        """Warn of rules that matched no scene: their patterns may be misspelt."""
        for number, rule in enumerate(self.rules):
            if number not in self.used:
                logger.warning(
                    "[[scene]] %d: no scene matches %s; its options are not used.",
                    number + 1,
                    ", ".join(rule.patterns),
                )


def _filled(value: object, name: str) -> object:
    """Return a value with the name of a scene in place of ``{name}``."""
    if isinstance(value, str):
        return value.replace("{name}", name)
    if isinstance(value, tuple):
        return tuple(_filled(item, name) for item in value)
    return value
