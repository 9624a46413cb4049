"""The walk of docs/walk.md, as it is typed, on a terminal of 80 columns."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import termios
from importlib.util import find_spec
from pathlib import Path

import pytest

from support import TESTS, child_environment
from support.cli import read_all

SCRIPT = TESTS.parent / "scripts" / "walk.py"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.skipif(not (find_spec("duckdb") and find_spec("polars")), reason="needs DuckDB and Polars")
def test_the_walk(tmp_path: Path) -> None:
    script = subprocess.run(["python3", SCRIPT], capture_output=True, text=True, check=True).stdout
    (tmp_path / "walk.sh").write_text(script)
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    environment = {**child_environment(), "PATH": path, "TERM": "xterm", "LC_ALL": "C.UTF-8", "PYTHONPATH": ""}
    control, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    work = tmp_path / "work"
    work.mkdir()
    with subprocess.Popen(
        ["bash", tmp_path / "walk.sh"],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        shown = ESCAPES.sub("", read_all(control).decode())
    assert process.returncode == 0, shown
    typed = set(script.splitlines())
    # A line that a progress bar was on is written again from its beginning; the shell says who was killed.
    lines = [part for line in shown.splitlines() if line.rstrip() not in typed for part in line.split("\r")]
    assert [line for line in lines if len(line) > 80 and "walk.sh: line" not in line] == []
    for seen in [
        "bob has run-0 - attempt 2",
        "moved 20,000 rows of 5 days",
        "│ sensor-3 │  5000 │",
        "exit code 1",
        "nerve-store salvage data saved.db",
        "0 errors",
    ]:
        assert seen in shown, shown
