"""A skip with an unlisted reason fails the run, a listed one does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.skips import is_listed

pytest_plugins = "pytester"
CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.mark.parametrize(
    ("reason", "code"), [("root may write everywhere", 0), ("flaky, look later", 1)]
)
@pytest.mark.parametrize("place", ["test", "module"])
def test_an_unlisted_reason_fails_the_run(
    pytester: pytest.Pytester, reason: str, code: int, place: str
) -> None:
    skip = f"pytest.skip({reason!r}, allow_module_level=True)"
    body = f"def test_a():\n    {skip}" if place == "test" else skip
    pytester.makepyfile(test_a=f"import pytest\n{body}", test_b="def test_b(): pass")
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert result.ret == code
    if code:
        result.stdout.fnmatch_lines(["*tests/skips.py does not list*", f"*{reason}"])


def test_reasons_are_compared_whole() -> None:
    assert is_listed("needs metrics of the shared data: set RSUPRES_DATA")
    assert is_listed("needs metrics of the shared data, which /data lacks")
    assert not is_listed("needs metrics of the shared data: set RSUPRES_DATA, later")
