"""README, documentation, help texts, change log and map say what the program does."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
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
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
}
SOURCES = [
    path
    for path in [*sorted(ROOT.glob("rsupres/**/*")), *sorted(ROOT.glob("models/**/*"))]
    if path.suffix in (".py", ".toml", ".md")
]
MAX_PICTURE = 300_000  # bytes
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
OPTIONS = {
    f"{name} {max(option.opts, key=len)}": option
    for name, command in LEAVES.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.hidden
}
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


def test_every_command_is_in_the_readme():
    assert [name for name in LEAVES if f"`{name}`" not in README] == []


@each_command
def test_every_command_has_help_that_ends_with_an_example_that_could_be_run(name):
    text = help_of(name.split()[1:])
    assert "\\b" not in text
    assert re.search(r"^  Examples?:$", text, re.MULTILINE)
    found = examples(text)
    assert found
    assert [c for c in map(complaint, found) if c] == []
    assert all(example.startswith(name) for example in found)


def test_every_option_has_help_in_whole_sentences():
    assert len(OPTIONS) > 400
    for name, option in OPTIONS.items():
        text = option.help or ""
        assert re.match(r"[A-Z0-9]", text), (name, text)
        assert text.endswith("."), (name, text)
        assert not any("_" in form for form in option.opts), name
        short = {form for form in option.opts if not form.startswith("--")}
        assert short <= SHORT_FORMS, name


def test_the_examples_of_the_pages_could_be_run():
    blocks = [b for text in PAGES.values() for b in code_blocks(text, "bash")]
    found = [example for block in blocks for example in examples(block)]
    assert len(found) > 50
    assert [c for c in map(complaint, found) if c] == []


def test_the_readme_is_short_and_shows_five_commands_and_a_picture():
    found = [e for block in code_blocks(README, "bash") for e in examples(block)]
    assert len(found) >= 5
    assert len(README.splitlines()) < 150
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / name).stat().st_size < MAX_PICTURE for name in pictures)


def test_the_exit_codes_of_the_pages_are_those_of_the_program():
    classes = [errors.RsupresError]
    for parent in classes:
        classes.extend(parent.__subclasses__())
    raised = {str(kind.exit_code) for kind in classes}
    for page in ("README.md", "docs/reference/exit-codes.md"):
        rows = set(re.findall(r"^\| (\d+) \|", PAGES[page], flags=re.MULTILINE))
        assert rows == raised | {"0", "2", "130", "138", "141", "142", "143"}


def test_the_code_that_the_pages_name_exists():
    names = set(re.findall(r"`(rsupres(?:\.\w+)+)`", "".join(PAGES.values())))
    assert len(names) > 10
    assert [name for name in sorted(names) if not is_defined(name)] == []


def is_defined(name: str) -> bool:
    """Return whether a dotted name is a module or something in one."""
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def test_the_pages_that_docstrings_point_to_have_such_a_heading():
    for path in SOURCES:
        text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
        for page, anchor in re.findall(r"(docs/[\w/-]+\.md)(?:#([\w-]+))?", text):
            headings = re.findall(r"^#+ (.*)$", PAGES[page], flags=re.MULTILINE)
            slugs = {
                re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
            }
            assert not anchor or anchor in slugs, f"{path}: {page}#{anchor}"


def test_nothing_points_beside_the_checkout():
    texts = {str(path): path.read_text(encoding="utf-8") for path in SOURCES}
    assert [name for name, text in (PAGES | texts).items() if "../shared" in text] == []


def test_the_page_of_commands_has_every_command_and_option():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.commands_page(main)
    for name, command in LEAVES.items():
        _, _, rest = page.partition(f"\n## {name}\n")
        section = rest.partition("\n## ")[0]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert max(option.opts, key=len) in section


@pytest.mark.parametrize("group", ["console_scripts", "rasterio.rio_plugins"])
def test_rsupres_and_rio_rsupres_are_the_same_tool(group):
    assert entry_points(group=group)["rsupres"].load() is main


def test_the_make_targets_of_the_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    words = set()
    for text in PAGES.values():
        named = re.findall(r"^make ([a-z -]+?)(?:  |$)", text, re.M)
        named += re.findall(r"`make ([a-z -]+)`", text)
        words |= {word for group in named for word in group.split()}
    assert len(words) > 4
    assert words <= targets


def test_the_files_that_the_pages_name_exist():
    folders = "docs|examples|models|rsupres|sample_data|tests"
    texts = {**PAGES, "ARCHITECTURE.md": ARCHITECTURE}
    named = {
        (page, name)
        for page, text in texts.items()
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", text)
        if "NAME" not in name  # stands for any
    }
    assert len(named) > 20
    assert [entry for entry in sorted(named) if not (ROOT / entry[1]).exists()] == []


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
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    rows = re.findall(r"^\| (root|`[\w/]+/`) \| (.*) \|$", ARCHITECTURE, re.MULTILINE)
    named = [
        ("" if folder == "root" else folder.strip("`")) + name
        for folder, cell in rows
        for name in re.findall(r"`(\w+\.py)`", cell)
    ]
    assert len(named) == len(set(named))
    assert set(named) == modules
    assert len(ARCHITECTURE.splitlines()) < 150


def test_every_module_says_first_what_it_does():
    for path in sorted((ROOT / "rsupres").rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = text.partition("\n")[0]
        assert re.fullmatch(r"[A-Z0-9`].{10,}\.", first), (path, first)


def test_the_change_log_has_this_version_and_a_place_for_what_comes_next():
    changes = PAGES["CHANGELOG.md"]
    assert 0 < changes.index("## Unreleased") < changes.index(f"## {__version__} - 2")
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


# An implementation of these has the arguments that its protocol or base class states.
OF_PROTOCOLS = frozenset(
    [
        "allocate",
        "build",
        "conditions",
        "convert",
        "decode",
        "degrade",
        "encode",
        "format_commands",
        "forward",
        "from_checkpoint",
        "get_command",
        "hidden",
        "loss",
        "main",
        "predict",
        "prepare",
        "prepare_stage",
        "read_rows",
        "release",
        "transform",
        "upscale",
        "upscale_with_variance",
        "validate",
    ]
)


def public_functions(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yield functions and methods whose names do not begin with an underscore."""
    for node in tree.body:
        if getattr(node, "name", "_").startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node  # type: ignore[misc]


def what_is_not_said(function: ast.FunctionDef) -> list[str]:
    """Return which parts of a docstring are missing that several arguments need."""
    given = function.args
    names = [a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    marks = " ".join(ast.unparse(mark) for mark in function.decorator_list)
    own = [name for name in names if name not in ("self", "cls")]
    if len(own) < 2 or function.name in OF_PROTOCOLS or "click" in marks:
        return []
    text = " ".join((ast.get_docstring(function) or "").split())
    if "Arguments and result are those of" in text:
        return []
    result = ast.unparse(function.returns) if function.returns else "?"
    gives = result not in ("None", "NoReturn", "Iterator[None]")
    # "Return the ..." and "...; return the ..." state the result, as a section does.
    says = re.search(r"\b[Rr]eturn|\b[Yy]ield", text)
    return ["Args"] * ("Args:" not in text) + ["Returns"] * (gives and not says)


def test_public_functions_state_their_arguments_and_results():
    lacking = {
        f"{path.relative_to(ROOT)}: {function.name}": missing
        for path in sorted((ROOT / "rsupres").rglob("*.py"))
        for function in public_functions(ast.parse(path.read_text(encoding="utf-8")))
        if (missing := what_is_not_said(function))
    }
    assert lacking == {}
