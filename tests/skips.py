"""The reasons for which a test may be skipped. A run with any other reason fails.

A skip can hide a gap: a missing library, a renamed file, a test that never runs. So
each reason is listed here with the place where the test does run; `tests.conftest`
compares.
"""

from __future__ import annotations

import re

# Regular expression of the whole reason: where the test runs.
REASONS = {
    # Optional libraries; `make install` installs all of them.
    r"LoRA needs peft: rsupres\[distill\]": "with rsupres[distill]",
    r"could not import 'pyarrow'.*": "with rsupres[parquet]",
    r"needs Chromium: apt-get install chromium": "where Chromium is installed",
    r"could not import '(websocket|rio_tiler)'.*": "after `make install`",
    r"not the versions of constraints\.txt: .*": "after `make install`",
    # Data that are too large or not free to commit.
    r"needs .* of the shared (data|specs|schemas): "
    r"set RSUPRES_(DATA|SPECS|SCHEMAS)": "where the variable names the folder",
    r"needs .* of the shared (data|specs|schemas), which .* lacks": "with all of it",
    # Golden cases: tests/golden holds a selection of all cases.
    r"the golden folder .* holds no cases of \w+": "with all golden cases",
    r"not in this selection": "with all golden cases",
    r"the case holds no '.*', which this tensor is made from": "with all golden cases",
    r".*/refdiff holds no .*": "with all golden cases",
    r"sample/\w+ lacks the noise that it was made with": "with all golden cases",
    r".*checkpoint_format\.pt is not here: no released format to read": (
        "with all golden cases"
    ),
    r"this golden folder has no resize case": "with the cases of tests/golden",
    # The operating system.
    r"root may write everywhere": "on Linux, or for users other than root",
    r"glibc's settings are Linux's": "on Linux",
    r"this system has no /dev/full": "on Linux",
    r"this system has no /proc": "on Linux",
    r"cannot mount a file system here": "on Linux, with user namespaces",
    r"needs root and the right to mount a tmpfs": "as root, outside containers",
}


def is_listed(reason: str) -> bool:
    """Return whether a test may be skipped for this reason."""
    return any(re.fullmatch(pattern, reason, re.DOTALL) for pattern in REASONS)
