"""Make the generated pages of the site: commands, model cards, modules, and formulas.

mkdocs calls the `on_...` functions. Formulas in fences named ``math`` become MathML,
which browsers draw by themselves, so no script is fetched from another server.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from rsupres.cli import main

ROOT = Path(__file__).parents[1]
_FROM_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"(?:https?:)?//[^\"]*\""
    r"|<link\b[^>]*\brel=\"(?:stylesheet|preconnect|icon)\"[^>]*\bhref=\"https?:[^\"]*\""
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw fences named ``math`` as formulas."""
    fences = {"name": "math", "class": "math", "format": _formula}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [
        fences
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of the commands and of the cards."""
    pages = {
        "reference/commands.md": commands_page(main),
        "model-cards.md": cards_page(sorted((ROOT / "models").glob("*.toml"))),
        "reference/modules.md": modules_page(ROOT / "rsupres"),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_post_page(output: str, **kwargs: Any) -> str:
    """Refuse a page that loads something from another server."""
    found = _FROM_ELSEWHERE.search(output)
    if found:
        raise PluginError(f"a page loads something from elsewhere: {found[0]}")
    return output


def commands_page(group: click.Group) -> str:
    """Return the reference of all commands as Markdown."""
    parts = [
        "# Commands",
        "This page is made from the commands themselves; `rsupres COMMAND --help`"
        " prints the same.",
    ]
    whole = click.Context(group, info_name="rsupres", show_default=True)
    for context, command in _leaves(whole, group):
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        parts += [
            f"## {context.command_path}",
            f"```text\n{usage}\n```",
            *_help_parts(command.help or ""),
            *_options(command, context),
        ]
    return "\n\n".join(parts)


def cards_page(cards: Sequence[Path]) -> str:
    """Return the cards of the shipped models as Markdown."""
    parts = [
        "# Model cards",
        "This page is made from `models/*.toml`; `rsupres models show NAME` prints"
        " the same.",
    ]
    for path in cards:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
        parts += [f"## {card['name']}", *_card_items(card)]
    return "\n\n".join(parts)


def modules_page(package: Path) -> str:
    """Return the first line of every module's docstring, package by package."""
    parts = ["# Modules", "The order of the packages is in `rsupres/ARCHITECTURE.md`."]
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        init = folder / "__init__.py"
        parts += [f"## {folder.relative_to(package.parent)}", _first_line(init)]
        rows = [
            f"| `{path.name}` | {_escape(_first_line(path))} |"
            for path in sorted(folder.glob("*.py"))
            if path != init
        ]
        parts.append("\n".join(["| module | does |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


def _formula(
    source: str,
    language: str,
    css_class: str,
    options: Mapping[str, Any],
    md: Any,
    **kwargs: Any,
) -> str:
    """Return the MathML of a formula in LaTeX."""
    formula = convert(" ".join(source.split()), display="block")
    return f'<div class="{css_class}">{formula}</div>'


def _leaves(
    context: click.Context, command: click.Command
) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield every command that is no group, with its context."""
    if not isinstance(command, click.Group):
        yield context, command
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None and not child.hidden:
            inner = click.Context(child, info_name=name, parent=context)
            yield from _leaves(inner, child)


def _help_parts(text: str) -> list[str]:
    """Return a command's help as Markdown blocks; examples become code."""
    parts = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if block.startswith("\b"):
            title, *lines = block.strip("\b\n").splitlines()
            code = inspect.cleandoc("\n".join(lines))
            parts += [title.strip(), f"```bash\n{code}\n```"]
        else:
            parts.append(" ".join(block.split()))
    return parts


def _options(command: click.Command, context: click.Context) -> list[str]:
    """Return one definition an option."""
    records = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    items = [
        f"`{names}`\n:   {_escape(' '.join(text.split()))}" for names, text in records
    ]
    return ["Options:", *items]


def _card_items(card: Mapping[str, Any]) -> list[str]:
    """Return one definition a field of a card, nested tables as one more level."""
    items = []
    for key, value in card.items():
        if key == "name":
            continue
        if isinstance(value, Mapping):
            inner = ", ".join(f"{k} {v}" for k, v in _flat(value))
            items.append(f"{key}\n:   {_escape(inner)}")
        else:
            items.append(f"{key}\n:   {_escape(' '.join(str(value).split()))}")
    return items


def _flat(table: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested tables with their dotted names."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{key}.")
        else:
            yield f"{head}{key}", " ".join(str(value).split())


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}<>\[\]|#])", r"\\\1", text)
