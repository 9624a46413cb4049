"""The frame of the benchmarks: what they ran on, first; ours and the peer in turns; their ratio, last."""

from __future__ import annotations

import gc
import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import nerve_store as ns

T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """The medians of one case, in seconds a round."""

    case: str
    rows: int
    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        """How many times faster than the peer."""
        return self.peer / self.ours


COMPARISONS = pytest.StashKey[list[Comparison]]()


class Compare(Protocol):
    """The fixture `compare`."""

    def __call__(
        self,
        case: str,
        *,
        ours: Callable[[T], object],
        peer: Callable[[T], object],
        work: Callable[[], T],
        rows: int,
        rounds: int,
    ) -> None:
        """Time `ours` and `peer` in turns, each round on fresh work of `rows` rows that `work` made beforehand."""


def pytest_configure(config: pytest.Config) -> None:
    if ns.BUILD_PROFILE != "release":
        raise pytest.UsageError(f"nerve_store is a {ns.BUILD_PROFILE} build; time a release build: make bench")
    config.stash[COMPARISONS] = []


def pytest_report_header(config: pytest.Config) -> list[str]:
    directory = Path(config.getoption("basetemp") or tempfile.gettempdir())
    directory = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.is_dir())
    flush_ms = flush_time(directory) * 1000
    return [
        f"nerve_store {ns.__version__} ({ns.BUILD_PROFILE}), SQLite {ns.SQLITE_VERSION}",
        f"peer: Python {platform.python_version()} sqlite3, SQLite {sqlite3.sqlite_version}",
        f"machine: {processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        f"disk: {file_system(directory)}, {flush_ms:.2f} ms a flush (median), load {os.getloadavg()[0]:.1f}",
    ]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system(directory: Path) -> str:
    command = ["df", "--output=fstype", str(directory)]
    name: str = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    if name in {"tmpfs", "ramfs"}:
        raise pytest.UsageError(f"{directory} is on {name}, where a flush costs nothing: give --basetemp on a disk")
    return name


def flush_time(directory: Path) -> float:
    """What overwriting one page costs when it must survive a power loss: the floor of a full commit."""
    pages = 50
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        os.write(file.fileno(), bytes(4096 * pages))
        os.fsync(file.fileno())
        for page in range(pages):
            start = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, page * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)


@pytest.fixture
def compare(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Compare:
    def run(
        case: str,
        *,
        ours: Callable[[T], object],
        peer: Callable[[T], object],
        work: Callable[[], T],
        rows: int,
        rounds: int,
    ) -> None:
        peer_times: list[float] = []

        def time_peer() -> None:
            prepared = work()
            gc.collect()
            start = time.perf_counter()
            peer(prepared)
            peer_times.append(time.perf_counter() - start)

        # Who goes first alternates from round to round; the first round of each warms up and is not counted.
        def before() -> tuple[tuple[T], dict[str, object]]:
            if len(peer_times) % 2 == 0:
                time_peer()
            prepared = work()
            gc.collect()
            return (prepared,), {}

        turn = 0

        def after(_: T) -> None:
            nonlocal turn
            turn += 1
            if len(peer_times) < turn:
                time_peer()

        pedantic: Callable[..., object] = benchmark.pedantic
        pedantic(ours, setup=before, teardown=after, rounds=rounds, warmup_rounds=1)
        assert benchmark.stats is not None, "give --benchmark-enable"
        assert len(peer_times) == rounds + 1
        comparison = Comparison(case, rows, benchmark.stats.stats.median, statistics.median(peer_times[1:]))
        benchmark.extra_info.update(rows=rows, peer_median=comparison.peer, ratio=comparison.ratio)
        pytestconfig.stash[COMPARISONS].append(comparison)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    comparisons = config.stash[COMPARISONS]
    if not comparisons:
        return
    terminalreporter.section("ours beside the peer, medians")
    terminalreporter.write_line(f"{'case':<44} {'ours rows/s':>14} {'peer rows/s':>14} {'ratio':>8}")
    for one in comparisons:
        figures = f"{one.rows / one.ours:>14,.0f} {one.rows / one.peer:>14,.0f} {one.ratio:>8.2f}"
        terminalreporter.write_line(f"{one.case:<44} {figures}")
