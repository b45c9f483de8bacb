"""Imports go one way, without circles, and heavy packages load only where used."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A package imports only itself and what stands before it here; deferred imports count.
ORDER = (
    *("errors", "version", "execution", "grid", "tile_grid", "blend"),
    *("blocks", "degradations", "legends", "diffusion"),
    *("products", "raster"),
    *("families", "output", "checkpoints", "vector", "change", "conditions"),
    *("companions", "upscaling", "tiles", "cluster", "datasets", "evaluation"),
    *("report", "training", "cli"),
)
ROOT_MODULES = frozenset(ORDER[:6])
HEAVY = ("torch", "rasterio", "diffusers", "geopandas", "osmnx", "shapely", "pyogrio")


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(ROOT.glob("rsupres/**/*.py"))}


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


def is_for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def running_nodes(tree: ast.AST, *, deferred: bool) -> Iterator[ast.AST]:
    """Yield the nodes that run: not those for types only, nor (if not `deferred`)

    those inside of functions, which run later.
    """
    for node in ast.iter_child_nodes(tree):
        if is_for_types_only(node):  # type: ignore[arg-type]
            continue
        if not deferred and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        yield from running_nodes(node, deferred=deferred)


def imported_names(module: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Return the dotted names that the nodes import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            source = node.module or ""
            submodules = {f"{source}.{alias.name}" for alias in node.names}
            names.update((submodules & FILES.keys()) or {source})
    return names


def imports(module: str, *, deferred: bool = True) -> set[str]:
    """Return what a module imports when it runs, ours and others'."""
    return imported_names(module, running_nodes(tree_of(module), deferred=deferred))


def own_imports(module: str, *, deferred: bool = True) -> set[str]:
    return imports(module, deferred=deferred) & FILES.keys()


def room(module: str) -> str:
    return [*module.split("."), ""][1]


@functools.cache
def all_imports_of(module: str) -> set[str]:
    """Return what a module imports, also for types only."""
    return imported_names(module, ast.walk(tree_of(module)))


def test_the_tree_is_there() -> None:
    assert {"rsupres.grid", "rsupres.errors", "rsupres.families.base"} <= FILES.keys()
    assert "rsupres.grid" in own_imports("rsupres.blend")
    assert "torch" in {
        name.split(".")[0] for name in all_imports_of("rsupres.families.base")
    }


IN_PACKAGE = [name for name in FILES if room(name) not in ("", "__main__")]


def test_every_module_lies_in_a_package_of_the_order() -> None:
    assert {room(name) for name in IN_PACKAGE} <= set(ORDER)
    flat = {name for name in IN_PACKAGE if FILES[name].parent == ROOT / "rsupres"}
    assert {room(name) for name in flat} == ROOT_MODULES


def test_imports_follow_the_order() -> None:
    against = {
        (module, name)
        for module in IN_PACKAGE
        for name in all_imports_of(module) & FILES.keys()
        if room(name) not in ORDER[: ORDER.index(room(module)) + 1]
    }
    assert not against


def test_what_is_imported_exists() -> None:
    ours = {
        (module, name)
        for module in FILES
        for name in all_imports_of(module)
        if name.split(".")[0] == "rsupres"
    }
    assert {(module, name) for module, name in ours if name not in FILES} == set()


def test_no_circle_of_imports_even_deferred_ones() -> None:
    graph = {name: all_imports_of(name) & FILES.keys() for name in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the cycle


def test_errors_and_grid_import_nothing_of_ours() -> None:
    assert not all_imports_of("rsupres.errors") & FILES.keys()
    assert all_imports_of("rsupres.grid") & FILES.keys() <= {"rsupres.errors"}


def test_families_never_import_each_other() -> None:
    shared = {
        f"rsupres.families{name}" for name in ("", ".base", ".levels", ".storage")
    }
    families = [name for name in FILES if room(name) == "families"]
    others = {
        (module, name)
        for module in families
        for name in all_imports_of(module).intersection(families) - shared
        if name.split(".")[2] != [*module.split("."), ""][2]
    }
    assert not others


def calls_and_raises(module: str) -> Iterator[str]:
    """Yield what a module calls and raises, as written."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
        elif isinstance(node, ast.Raise) and node.exc is not None:
            yield ast.unparse(node.exc)


def test_the_library_neither_prints_nor_exits_nor_knows_click() -> None:
    with_bars = ("rsupres.execution", "rsupres.training.loop")  # if a caller asks
    leaving = ("print", "input", "exit", "quit", "sys.exit", "os._exit", "SystemExit")
    for module in FILES:
        if room(module) in ("cli", "__main__"):
            continue
        terminal = {"click", "rich", "tqdm"} - {"tqdm" if module in with_bars else ""}
        assert not terminal & {n.split(".")[0] for n in all_imports_of(module)}, module
        said = {text.partition("(")[0] for text in calls_and_raises(module)}
        assert not said.intersection(leaving), module


def lengths(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the lines and the name of every function, its docstring included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.end_lineno - node.lineno + 1, node.name


def test_functions_files_and_packages_are_short() -> None:
    """At most 50 lines a function, 400 a file, 12 modules a package; tests too."""
    tests = {file: ast.parse(file.read_text()) for file in ROOT.glob("tests/**/*.py")}
    ours = {FILES[name]: tree_of(name) for name in FILES}
    for file, tree in {**tests, **ours}.items():
        assert len(file.read_text().splitlines()) <= 400, file
        assert [name for n, name in lengths(tree) if n > 50] == [], file
    for folder in {file.parent for file in ours} - {ROOT / "rsupres"}:
        modules = [f.name for f in folder.glob("*.py") if f.name != "__init__.py"]
        assert len(modules) <= 12, (folder, modules)


def folders() -> dict[str, set[str]]:
    """Return the folders, below rsupres/, of modules and packages, by their names."""
    found: dict[str, set[str]] = {}
    for file in FILES.values():
        place = file.relative_to(ROOT / "rsupres")
        is_package = place.name == "__init__.py"
        name = place.parent.name if is_package else place.stem
        found.setdefault(name, set()).add(str(place.parent))
    return found


def test_tests_lie_in_the_folders_of_what_they_test() -> None:
    """Each folder of tests/ is one of rsupres/; a module's test is in its folder."""
    own = ("benchmarks", "faults", "golden", "parity")  # these test the whole package
    folders_of = folders()
    for file in ROOT.glob("tests/**/test_*.py"):
        folder = file.parent.relative_to(ROOT / "tests")
        if folder.parts[:1] and folder.parts[0] in own:
            continue
        assert (ROOT / "rsupres" / folder / "__init__.py").exists(), file
        places = folders_of.get(file.stem.removeprefix("test_"))
        assert places is None or str(folder) in places, (file, places)


def test_only_the_rooms_for_rasters_open_them() -> None:
    openers = {
        name
        for name in FILES
        for node in ast.walk(tree_of(name))
        if (isinstance(node, ast.Name) and node.id == "WarpedVRT")
        or (
            isinstance(node, ast.Attribute)
            and node.attr in ("open", "copy")
            and ast.unparse(node) in ("rasterio.open", "rasterio.shutil.copy")
        )
    }
    rooms_for_rasters = {
        "rsupres.raster.open",
        "rsupres.raster.dataset",
        "rsupres.output.tiff.cog",
        "rsupres.output.tiff.sizes",
        "rsupres.output.tiff.trial",
        "rsupres.raster.product.mask",
        "rsupres.output.tiff.geotiff",
        "rsupres.output.tiff.packets",
        "rsupres.output.tiff.picture",
        "rsupres.output.tiff.strip",
        "rsupres.output.tiff.verify",
    }
    in_memory = {"rsupres.raster.virtual"}
    assert openers <= rooms_for_rasters | in_memory


def heavy_after(code: str) -> list[str]:
    """Return which heavy packages are loaded after some code, in a fresh process."""
    program = (
        f"{code}\nimport sys\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules], 'end')"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    *loaded, end = process.stdout.splitlines()[-1].split()
    assert end == "end"
    return loaded


def test_the_check_for_heavy_packages_sees_them() -> None:
    assert heavy_after("import rasterio") == ["rasterio"]


def test_light_modules_load_nothing_heavy() -> None:
    light = ("grid", "blend", "output.run_dir", "families.base")
    code = "import rsupres\n" + "\n".join(f"import rsupres.{name}" for name in light)
    assert heavy_after(code) == []


def test_training_loads_no_raster_libraries() -> None:
    """A machine that only trains, from packs, needs none."""
    names = ["config", "loop", "outputs", "registry", "trainer", "validation"]
    code = "\n".join(f"import rsupres.training.{name}" for name in names)
    assert heavy_after(code) == ["torch"]


def test_help_loads_nothing_heavy() -> None:
    calls = [["--help"], ["--version"], ["upscale", "--help"]]
    code = (
        "from click.testing import CliRunner\n"
        "from rsupres.cli import main\n"
        f"for arguments in {calls}:\n"
        "    result = CliRunner().invoke(main, arguments)\n"
        "    assert result.exit_code == 0, result.output"
    )
    assert heavy_after(code) == []
