"""The frame of the benchmarks: what they ran on, first; the table of figures, last."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import figures
import nerve_store as ns
from databases import Databases, build_databases
from figures import Figure
from machine import conditions
from peers import PEERS, Durability, PeerLog
from turns import Compare, compare_in_turns
from workload import FULL_SCALE, SCALE

FIGURES = pytest.StashKey[list[Figure]]()
CONDITIONS = pytest.StashKey[Mapping[str, str | int]]()

Record = Callable[[Figure], None]
OpenPeers = Callable[[Durability], dict[str, PeerLog]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="where to write the summary that plot.py draws, after a full run")


def pytest_configure(config: pytest.Config) -> None:
    if ns.BUILD_PROFILE != "release":
        raise pytest.UsageError(f"nerve_store is a {ns.BUILD_PROFILE} build; time a release build: make bench")
    config.stash[FIGURES] = []
    directory = Path(config.getoption("basetemp") or tempfile.gettempdir())
    directory = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.is_dir())
    config.stash[CONDITIONS] = conditions(directory)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"{name}: {value}" for name, value in config.stash[CONDITIONS].items()]


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Record:
    """Puts a figure into the table."""
    return pytestconfig.stash[FIGURES].append


@pytest.fixture
def compare(benchmark: BenchmarkFixture, record: Record) -> Compare:
    def run(case, **arguments):  # type: ignore[no-untyped-def] # the protocol has the types
        figure = compare_in_turns(benchmark, case, **arguments)
        record(figure)
        return figure

    return run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ns.LogStore]:
    """An empty store of ours."""
    with ns.LogStore(tmp_path / "ours" / "logs.db") as opened:
        yield opened


@pytest.fixture
def open_peers(tmp_path: Path) -> Iterator[OpenPeers]:
    """Opens an empty log of each peer, by name."""
    with ExitStack() as opened:

        def run(durability: Durability) -> dict[str, PeerLog]:
            logs = (peer(tmp_path / f"{peer.name}.db", durability=durability) for peer in PEERS)
            return {log.name: opened.enter_context(closing(log)) for log in logs}

        yield run


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """The databases of a million rows: ours, upstream's, and a copy of that for apsw. To be read only."""
    return build_databases(tmp_path_factory.mktemp("databases"))


@pytest.fixture(scope="session")
def large_store(databases: Databases) -> Iterator[ns.LogStore]:
    """Ours of a million rows."""
    with ns.LogStore(databases.ours, read_only=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def large_peers(databases: Databases) -> Iterator[dict[str, PeerLog]]:
    """The peers of a million rows."""
    with ExitStack() as opened:
        logs = (peer(databases.peers[peer.name], create=False) for peer in PEERS)
        yield {log.name: opened.enter_context(closing(log)) for log in logs}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    measured = config.stash[FIGURES]
    if not measured:
        return
    terminalreporter.section("ours beside the peers, medians")
    for line in figures.table(measured):
        terminalreporter.write_line(line)
    path: Path | None = config.getoption("--figures")
    if path is None:
        return
    if exitstatus != pytest.ExitCode.OK:
        terminalreporter.write_line(f"not written: {path}, because a case failed")
    elif SCALE != FULL_SCALE:
        terminalreporter.write_line(f"not written: {path}, because NERVE_BENCH_ROWS is {SCALE:,}")
    else:
        figures.write(path, measured, config.stash[CONDITIONS])
        terminalreporter.write_line(f"written: {path}")
