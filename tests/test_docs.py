"""README, help texts, change log and map say what the program does."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rsupres import __version__, errors
from rsupres.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "rsupres" / "ARCHITECTURE.md").read_text(encoding="utf-8")
SHORT_FORMS = {"-o", "-v", "-q", "-b", "-h"}


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is no group, with its full name."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    ctx = click.Context(command)
    for part in command.list_commands(ctx):
        child = command.get_command(ctx, part)
        assert child is not None
        yield from walk(child, f"{name} {part}")


LEAVES = dict(walk(main, "rsupres"))
OPTIONS = [
    pytest.param(option, id=f"{name} {max(option.opts, key=len)}")
    for name, command in LEAVES.items()
    for option in command.params
    if isinstance(option, click.Option)
]
each_command = pytest.mark.parametrize("name", LEAVES)


def help_of(words: list[str]) -> str:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=78)
    assert result.exit_code == 0, result.output
    return result.output


def examples(text: str) -> list[str]:
    """Return the commands of ours in a text, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return re.findall(r"^\s*(?:\$ )?(rsupres [a-z].*)$", joined, flags=re.MULTILINE)


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def complaint(example: str) -> str | None:
    """Return what is wrong with a command line, None if it could be run."""
    words = shlex.split(example, comments=True)
    depth = 3 if " ".join(words[:3]) in LEAVES else 2
    command = LEAVES.get(" ".join(words[:depth]))
    if command is None:
        return f"no such command: {example}"
    known = {name for param in command.params for name in param.opts}
    known |= {name for param in command.params for name in param.secondary_opts}
    flags = [w.split("=")[0] for w in words[depth:] if re.match(r"--?[a-z]", w)]
    unknown = [flag for flag in flags if flag not in known | {"--help"}]
    return f"{example}: no such option {unknown}" if unknown else None


def test_every_command_of_the_contract_exists():
    names = {name.split()[1] for name in LEAVES}
    assert names == set(COMMANDS)


@each_command
def test_every_command_is_in_the_readme(name):
    assert f"`{name}`" in README


@each_command
def test_every_command_has_help_that_ends_with_an_example_that_could_be_run(name):
    text = help_of(name.split()[1:])
    assert "\\b" not in text
    assert re.search(r"^  Examples?:$", text, re.MULTILINE)
    found = examples(text)
    assert found
    assert [c for c in map(complaint, found) if c] == []
    assert all(example.startswith(name) for example in found)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_help_in_whole_sentences(option):
    text = option.help or ""
    assert re.match(r"[A-Z0-9]", text), text
    assert text.endswith("."), text
    assert not any("_" in form for form in option.opts)
    short = {form for form in option.opts if not form.startswith("--")}
    assert short <= SHORT_FORMS


def test_the_examples_of_the_readme_could_be_run():
    found = [e for block in code_blocks(README, "bash") for e in examples(block)]
    assert len(found) >= 5
    assert [c for c in map(complaint, found) if c] == []


def test_the_help_in_the_readme_is_the_real_one():
    shown = [
        block.split("\n", 1)
        for block in code_blocks(README, "console")
        if block.startswith("$ rsupres")
    ]
    assert shown
    for command, output in shown:
        words = command.removeprefix("$ rsupres ").split()
        assert output.strip() == help_of(words[:-1]).strip()


def test_the_exit_codes_of_the_readme_are_those_of_the_program():
    rows = set(re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE))
    classes = [errors.RsupresError]
    for parent in classes:
        classes.extend(parent.__subclasses__())
    raised = {str(kind.exit_code) for kind in classes}
    assert rows == raised | {"0", "2", "130", "143"}


@pytest.mark.parametrize("group", ["console_scripts", "rasterio.rio_plugins"])
def test_rsupres_and_rio_rsupres_are_the_same_tool(group):
    assert entry_points(group=group)["rsupres"].load() is main


def test_the_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = re.findall(r"^make ([a-z -]+?)(?:  |$)", README, re.M)
    named += re.findall(r"`make ([a-z-]+)`", README)
    words = {word for group in named for word in group.split()}
    assert len(words) > 4
    assert words <= targets


def test_the_files_that_the_readme_links_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_card_is_in_the_readme():
    cards = [tomllib.loads(p.read_text()) for p in (ROOT / "models").glob("*.toml")]
    names = [str(card["name"]) for card in cards if "sha256" in card]
    assert [name for name in names if f"`{name}`" not in README] == []


def test_the_map_names_every_module_and_no_other():
    package = ROOT / "rsupres"
    modules = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    tables = re.findall(r"^\| (.*?) \|", ARCHITECTURE, re.MULTILINE)
    named = [name for cell in tables for name in re.findall(r"`([\w/]+\.py)`", cell)]
    assert len(named) == len(set(named))
    assert set(named) == modules


def test_the_change_log_has_a_place_for_what_comes_next():
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert changes.index("## Unreleased") > 0
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
