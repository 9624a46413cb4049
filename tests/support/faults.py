"""Sweeps: a work is killed, or failed, at each of its system calls that change, flush or lock a file.

A scenario is what is done, and what must be true afterwards wherever it was cut short:

    def work(*, path: str, count: int) -> None:  # At the top of a module; runs in a process of its own.
        with ns.LogStore(path) as store:
            for number in range(count):
                say(store.append("system", "tick", None, str(number), 0).id)  # An acknowledgement.

    def check(directory: Path, prepared: None, run: Run) -> None:
        with ns.LogStore(directory / "logs.db") as store:
            assert [entry.id for entry in store.query()][: len(run.acknowledged)] == run.acknowledged

    SCENARIO = Scenario(work, check, arguments={"count": 3})

    def test_killed(tmp_path: Path) -> None:
        assert len(sweep(SCENARIO, tmp_path, KILL, per_call=2)) >= 6

    def test_failed(tmp_path: Path) -> None:
        sweep(SCENARIO, tmp_path, errno.EIO)  # No sample: at every call.

- `prepare` makes the directory that the work begins with, once a sweep; every run gets a copy. `check` is handed what
  it returns, and also has to be true of the undisturbed run.
- The work says each result as soon as the store's call has returned (`programs.say`). An error of the store or of the
  system that it lets out is said as the last line, in the form of `programs.failure`.
- Calls are counted over all threads and all names together. The line that says a result is a call, too, "acknowledge":
  a kill there is one after the work and before its acknowledgement; an error never strikes it.
- `reads=True` strikes the other calls: those that open, read, look at, list, map and lock files.
- `threads=False` refuses the work its threads: the store does without, and makes the same calls in every run.
- A failing `check` becomes a `SweepError` that names the call; its cause is what `check` raised.

A run costs a fork, the work and the check, some milliseconds: a server process has loaded everything before, and the
files lie in memory where there is room for them. Each process of the suite has a server of its own, so that sweeps run
side by side. Where a process may not be traced, a sweep skips its test and says why.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

import nerve_store as ns
from support.fault_server import nothing
from support.processes import child_environment

NONE, KILL = 0, -1
"""Instead of the number of an error."""
FAULTS = {"kill": KILL, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
"""What every write meets."""
ACKNOWLEDGE = "acknowledge"

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Run:
    """A run of a work, and the calls that it got to make; the last one is that of a kill."""

    fault: int
    when: int
    returncode: int
    stdout: str
    stderr: str
    calls: tuple[str, ...]
    undisturbed: tuple[str, ...] = ()
    """The calls of the sweep's undisturbed run."""

    @property
    def killed(self) -> bool:
        return self.returncode == 137

    @property
    def reached(self) -> bool:
        """Whether the run made as many calls as the fault asks for: threads do not share work alike in every run."""
        return 0 < self.when <= len(self.calls)

    @property
    def call(self) -> str:
        """The name of the call that was struck, "" if none was."""
        return self.calls[self.when - 1] if self.reached else ""

    @functools.cached_property
    def said(self) -> list[Any]:
        """The values said; a line that was cut off was not said."""
        return [json.loads(line) for line in self.stdout.split("\n")[:-1]]

    @property
    def failures(self) -> list[dict[str, Any]]:
        return [value for value in self.said if isinstance(value, dict) and "error" in value]

    @property
    def acknowledged(self) -> list[Any]:
        """What was said but failures."""
        return [value for value in self.said if not (isinstance(value, dict) and "error" in value)]

    def __str__(self) -> str:
        what = {NONE: "undisturbed", KILL: "killed"}.get(self.fault) or errno.errorcode[self.fault]
        at = f"call {self.when} of {len(self.undisturbed)}"
        return what if self.fault == NONE else f"{what} at {at}, {self.call or 'which it did not make'}"


def prepare_nothing(_directory: Path) -> None:
    """For a work that begins with an empty directory."""


@dataclass(frozen=True)
class Scenario(Generic[Prepared]):
    """What is cut short, and what has to be true afterwards; the head of this module says how."""

    work: Callable[..., None]
    check: Callable[[Path, Prepared, Run], None]
    prepare: Callable[[Path], Prepared] = prepare_nothing  # type: ignore[assignment]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the work, besides `path`; plain JSON values."""
    name: str = "logs.db"
    """Of the store in the directory: what the work gets as `path`."""
    threads: bool = True
    reads: bool = False


class SweepError(AssertionError):
    """A check that failed after a fault."""


def kind_of(fault: int) -> str:
    """A fault in the counts of a sweep."""
    return "kills" if fault == KILL else errno.errorcode[fault]


# --- one run -----------------------------------------------------------------------------------------------------


@functools.cache
def _server() -> subprocess.Popen[str] | str:
    """The server of this process, or why there is none."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux" or platform.machine() != "x86_64":
        return "faults are injected on Linux on x86-64, with a C compiler"
    scratch = tempfile.TemporaryDirectory(prefix="nerve-store-tracer-")
    library = Path(scratch.name, "fault_tracer.so")
    source = Path(__file__).with_name("fault_tracer.c")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "support.fault_server", str(library)],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )

    def stop() -> None:
        server.communicate(timeout=10)
        scratch.cleanup()

    atexit.register(stop)
    probe = _ask(server, nothing, {}, NONE, 0, lasting=False, threads=True, reads=False)
    return server if probe.returncode == 0 else f"tracing is not permitted: {probe.stderr.strip() or probe.returncode}"


_ASKING = threading.Lock()
"""One request and its answer at a time: tests may run in several threads."""


def _ask(
    server: subprocess.Popen[str],
    work: Callable[..., None],
    arguments: Mapping[str, Any],
    fault: int,
    when: int,
    *,
    lasting: bool,
    threads: bool,
    reads: bool,
) -> Run:
    request = {
        "module": work.__module__,
        "function": work.__name__,
        "arguments": dict(arguments),
        "fault": fault,
        "when": when,
        "lasting": lasting,
        "threads": threads,
        "reads": reads,
    }
    assert server.stdin is not None
    assert server.stdout is not None
    with _ASKING:
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        line = server.stdout.readline()
    if not line:
        _server.cache_clear()  # so that the next run has another
        pytest.fail(f"the fault server has ended: {server.wait(10)}")
    answer = json.loads(line)
    return Run(fault, when, answer["returncode"], answer["stdout"], answer["stderr"], tuple(answer["calls"]))


def run_faulted(
    work: Callable[..., None],
    fault: int = NONE,
    when: int = 0,
    *,
    lasting: bool = False,
    threads: bool = True,
    reads: bool = False,
    **arguments: Any,
) -> Run:
    """Run `work` with `NONE`, `KILL` or the number of an error at its `when`th call; lasting: from there on."""
    server = _server()
    if isinstance(server, str):
        pytest.skip(server)
    return _ask(server, work, arguments, fault, when, lasting=lasting, threads=threads, reads=reads)


# --- all runs ----------------------------------------------------------------------------------------------------


def sample(count: int, size: int) -> list[int]:
    """`size` numbers from 1 to `count`, evenly spread, both ends among them; the middle if it is only one."""
    if count <= size:
        return list(range(1, count + 1))
    if size == 1:
        return [(count + 1) // 2]
    return sorted({1 + round(step * (count - 1) / (size - 1)) for step in range(size)})


def points(calls: Sequence[str], fault: int, *, size: int | None = None, per_call: int | None = None) -> list[int]:
    """Which calls to strike: all, `size` of all, or `per_call` of each name; an error strikes no acknowledgement."""
    numbers = [n for n, call in enumerate(calls, 1) if fault == KILL or call != ACKNOWLEDGE]
    if per_call is None:
        return [numbers[n - 1] for n in sample(len(numbers), size or len(numbers))]
    by_name: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        by_name[calls[number - 1]].append(number)
    return sorted(found[n - 1] for found in by_name.values() for n in sample(len(found), per_call))


def sweep(
    scenario: Scenario[Prepared],
    scratch: Path,
    fault: int,
    *,
    size: int | None = None,
    per_call: int | None = None,
    lasting: bool = False,
) -> list[Run]:
    """Run and check the scenario undisturbed, and with a fault at each of its `points`; the runs with one.

    A work may make some more or fewer calls each time, so that a run may end before the fault; it has to end well then.
    What a failing check was given stays in `scratch / "struck"`.
    """
    with in_memory(scratch) as place:
        template = place / "template"
        template.mkdir()
        prepared = scenario.prepare(template)

        def one(fault: int, when: int, undisturbed: Sequence[str] = ()) -> Run:
            directory = Path(shutil.copytree(template, place / "struck"))
            path = str(directory / scenario.name)
            run = run_faulted(
                scenario.work,
                fault,
                when,
                lasting=lasting,
                threads=scenario.threads,
                reads=scenario.reads,
                path=path,
                **scenario.arguments,
            )
            run = replace(run, undisturbed=tuple(undisturbed))
            ended_well = run.killed if fault == KILL and run.reached else run.returncode == 0
            assert ended_well, f"{run}: {run.returncode} {run.stderr}"
            try:
                scenario.check(directory, prepared, run)
            except (AssertionError, OSError, ns.NerveStoreError) as error:
                shutil.copytree(directory, scratch / "struck", dirs_exist_ok=True)
                raise SweepError(f"{run}: {type(error).__name__}: {error}\nsaid: {run.stdout[-2000:]}") from error
            shutil.rmtree(directory)
            return run

        whole = one(NONE, 0)
        assert whole.failures == []
        return [one(fault, when, whole.calls) for when in points(whole.calls, fault, size=size, per_call=per_call)]


@contextlib.contextmanager
def in_memory(scratch: Path, room: int = 256 << 20) -> Iterator[Path]:
    """A directory in memory, or in `scratch` if fewer than `room` bytes are free there.

    Neither a kill nor an error depends on a disk.
    """
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > room
    with tempfile.TemporaryDirectory(prefix="nerve-store-sweep-", dir=memory if has_room else scratch) as directory:
        yield Path(directory)
