"""Killing or failing a program of `child.py` at the Nth of all its system calls that write, in any of its threads."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import TESTS, run_child, sample


@functools.cache
def _tracer() -> str:
    """The compiled `fault_tracer.c`, or why there is none after a "!"."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux" or platform.machine() != "x86_64":
        return "!faults are injected on Linux on x86-64 with a C compiler"
    path = Path(tempfile.mkdtemp(prefix="nerve-store-tracer-")) / "fault_tracer"
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-o", str(path), str(TESTS / "fault_tracer.c")], check=True)
    probe = subprocess.run([str(path), "/dev/null", "none", "0", "true"], check=False, capture_output=True, text=True)
    return str(path) if probe.returncode == 0 else f"!tracing is not permitted: {probe.stderr.strip()}"


def require_tracer() -> None:
    if _tracer().startswith("!"):
        pytest.skip(_tracer()[1:])


@dataclass(frozen=True)
class Traced:
    """A run of a program, and the writing system calls it got to make."""

    returncode: int
    stdout: str
    stderr: str
    calls: tuple[str, ...]

    @property
    def killed(self) -> bool:
        return self.returncode == 137


def run_traced(fault: str, when: int, program: str, **arguments: Any) -> Traced:
    """Run a program of `child.py`; `fault` is "none", "kill" or the number of an error, at its `when`th call."""
    require_tracer()
    with tempfile.NamedTemporaryFile("r", prefix="nerve-store-calls-") as log:
        done = run_child(program, prefix=(_tracer(), log.name, fault, str(when)), **arguments)
        calls = tuple(line.split()[1] for line in log.read().splitlines() if line.count(" ") == 1)
    return Traced(done.returncode, done.stdout, done.stderr, calls)


def each_kill(
    template: Path, scratch: Path, size: int | None, program: str, **arguments: Any
) -> Iterator[tuple[Path, str]]:
    """Copies of the data directory `template` in which the program was killed, with where; `size`: of the sample.

    Threads make the number of calls vary a little, so a run that got away is no failure at the very end.
    """
    calls = counted(template, scratch, program, **arguments)
    for when in sample(len(calls), size or len(calls)):
        directory = Path(shutil.copytree(template, scratch / "killed"))
        done = run_traced("kill", when, program, path=str(directory / "logs.db"), **arguments)
        assert done.killed or when > len(done.calls), f"call {when} of {len(calls)}: {done}"
        yield directory, f"killed at call {when} of {len(calls)}, {calls[when - 1]}"
        shutil.rmtree(directory)


def each_error(
    template: Path, scratch: Path, size: int | None, error: int, program: str, **arguments: Any
) -> Iterator[tuple[Path, Traced, str]]:
    """As `each_kill`, with one call that fails with `error` instead."""
    calls = counted(template, scratch, program, **arguments)
    for when in sample(len(calls), size or len(calls)):
        directory = Path(shutil.copytree(template, scratch / "failed"))
        done = run_traced(str(error), when, program, path=str(directory / "logs.db"), **arguments)
        yield directory, done, f"error at call {when} of {len(calls)}, {calls[when - 1]}"
        shutil.rmtree(directory)


def counted(template: Path, scratch: Path, program: str, **arguments: Any) -> tuple[str, ...]:
    """The calls of an undisturbed run on a copy."""
    directory = Path(shutil.copytree(template, scratch / "counted"))
    done = run_traced("none", 0, program, path=str(directory / "logs.db"), **arguments)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(directory)
    return done.calls
