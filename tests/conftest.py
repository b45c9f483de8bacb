"""Settings and fixtures of all tests, and the check of the reasons for skips."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist import is_xdist_worker

from tests.cluster.farm import Farm
from tests.forkserver import Commands, spare_the_disk
from tests.skips import is_listed

# The time of an example depends on the load of the machine, so none is too long.
_ANY_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", _ANY_TIME, max_examples=60)
# The same examples in each run; those of the slow tests differ from run to run.
settings.register_profile("quick", _ANY_TIME, max_examples=10, derandomize=True)

# Variables that name folders of files for tests; see `tests.helpers.find_shared`.
SHARED = {f"RSUPRES_{kind}" for kind in ("DATA", "GOLDEN", "SPECS", "SCHEMAS")}

_unlisted: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Draw fewer examples where the slow tests are left out, as in `make test`."""
    spare_the_disk()
    quick = "not slow" in config.getoption("markexpr")
    settings.load_profile("quick" if quick else "full")
    if quick:  # a selection has a case of each kind
        os.environ.setdefault("RSUPRES_GOLDEN", str(Path(__file__).parent / "golden"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what lives to the end: modules and collected tests.

    It took a sixth of the time of the whole run, and of what was left one part in
    fifteen, so it also looks for garbage less often.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        gc.enable()


def pytest_runtest_setup() -> None:
    """Let what a test draws with torch not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that is skipped for a reason that `tests.skips` does not list."""
    _note_skip(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """Escape names in captured logs that are no UTF-8: workers could not send them."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a module that is skipped for a reason that `tests.skips` does not list."""
    _note_skip(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run with unlisted skips; a worker of pytest-xdist does not decide."""
    if _unlisted and not is_xdist_worker(session):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the unlisted skips."""
    if _unlisted:
        terminalreporter.section("skips that tests/skips.py does not list", red=True)
        for line in _unlisted:
            terminalreporter.line(line)


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not is_listed(reason):
            _unlisted.append(f"{report.nodeid}: {reason}")


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Start schedulers and workers of Dask; see `tests.cluster.farm`."""
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield farm
    farm.close()


@pytest.fixture(scope="module")
def scheduler(farm: Farm) -> Iterator[Path]:
    """The file of a scheduler with two workers, slowed so that both get shards.

    They end with the module, as each takes a part of a core even where it has no work.
    """
    pid, file = farm.scheduler()
    pids = [pid, *(farm.worker(file, tile_s=0.03) for _ in range(2))]
    yield file
    for each in reversed(pids):
        farm.kill(each)


@pytest.fixture(autouse=True, scope="session")
def _alike(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep from tests what a user has set or stored, and how slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("RSUPRES_") and name not in SHARED:
                patch.delenv(name)
        for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        # Plans leave out what takes longer.
        patch.setattr("rsupres.upscaling.estimates.planning.LIMIT_S", 120.0)
        yield


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing in this process wait for a lock that the test holds."""
    monkeypatch.setattr("rsupres.output.locks.PATIENCE_S", 0.0)


@pytest.fixture
def commands(_server: Commands) -> Commands:
    """Run `rsupres` in processes of their own; see `tests.forkserver`."""
    return _server
