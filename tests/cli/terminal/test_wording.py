"""Names of arguments become the options of the command that runs."""

from __future__ import annotations

import logging
import pickle

import click
import pytest

from rsupres.cli.terminal.wording import WordingFilter, error_line, option_of
from rsupres.errors import BandError, InputError


@click.command()
@click.argument("output")
@click.option("-b", "--bidx", "bands")
@click.option("--class-table")
def command(output: str, bands: str, class_table: str) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("output", "OUTPUT"),
        ("bands", "--bidx"),
        ("class_table=second", "--class-table second"),
        ("tile_size", "--tile-size"),
    ],
)
def test_an_argument_is_spelled_as_the_command_has_it(name: str, typed: str) -> None:
    assert option_of(name, command) == typed


def test_an_option_goes_before_the_word_of_an_argument() -> None:
    @click.command()
    @click.argument("source", metavar="DIR|RUN_DIR")
    @click.option("--run-dir")
    def both(source: str, run_dir: str) -> None:
        pass

    assert option_of("run_dir", both) == "--run-dir"
    both.params.pop()
    assert option_of("run_dir", both) == "RUN_DIR"


def test_an_error_names_the_option_at_fault_and_those_that_help() -> None:
    error = InputError(
        "x.tif: no classes.", argument="bands", remedies=("class_table",)
    )
    assert str(error) == "bands x.tif: no classes."
    line = "--bidx x.tif: no classes. See --class-table."
    assert error_line(error, command) == line


def test_an_error_crosses_processes_whole() -> None:
    error = BandError("no red band.", argument="bands", remedies=("bands=red=3",))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (BandError, str(error))
    assert again.remedies == ("bands=red=3",)


def test_a_warning_is_worded_once_for_all_handlers() -> None:
    record = logging.LogRecord("rsupres", 30, "", 0, "%d px off.", (2,), None)
    record.remedies = ("coregister",)
    for _ in range(2):
        assert WordingFilter(None).filter(record)
    assert record.getMessage() == "2 px off. See --coregister."
