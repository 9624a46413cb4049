"""Programs that tests run in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
UPSTREAM = TESTS / "fixtures" / "upstream-0.5.0"
KILLED = (-9, 137)


def child_command(program: str, **arguments: Any) -> list[str]:
    """The command line of one of the programs in `child.py`."""
    return [sys.executable, str(TESTS / "child.py"), program, json.dumps(arguments)]


def child_environment() -> dict[str, str]:
    """That of this process, in which a program also finds the modules of the tests.

    Programs count time from 0, as the tests do: what looks like seconds is milliseconds.
    """
    return {
        "PYTHONWARNINGS": "ignore:timestamp",
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "",
        "PYTHONPATH": str(TESTS),
    }


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        env=child_environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def run_child(program: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of `child.py` to its end."""
    return run_command(child_command(program, **arguments))


def start_child(program: str, **arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        child_command(program, **arguments),
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def acknowledged_ids(output: str) -> list[int]:
    """The ids that a child said; a line that a kill cut off was not said."""
    return [row_id for line in output.split("\n")[:-1] for row_id in json.loads(line)]
