"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.forkserver import Commands

# How long an example takes says more about the machine's other work than about ours.
settings.register_profile("rsupres", deadline=None)
settings.load_profile("rsupres")


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture
def commands(_server: Commands) -> Commands:
    """Run `rsupres` in processes of their own; see `tests.forkserver`."""
    return _server
