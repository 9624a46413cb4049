"""The archive: moving ten days out of a million rows, what appends notice of it, and reading and checking the files.

`NERVE_BENCH_LONG=1` measures the memory with a day of ten million rows, which takes some minutes to build.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

import nerve_store as ns
from archive_peer import UpstreamArchive, parsed
from conftest import Record
from databases import MESSAGES_OF_A_DAY, Databases, build_day, copy
from figures import Figure, Kind, Target
from turns import Compare
from workload import THE_RUN

Compression = Literal["zstd"] | None

NOW = 2_000_000_000_000
"""Long after all rows."""
FORMATS = {None: "plain", "zstd": "zstd"}
DAY_ROWS = 100_000
LONG = os.environ.get("NERVE_BENCH_LONG") == "1"
MEMORY_ROWS = 10_000_000 if LONG else 300_000
PAUSE_SECONDS = 0.002
"""Between two appends."""
ATTEMPTS = 2
"""Rounds of the appender beside an archive job, and beside none."""


def archive(store: ns.LogStore, compression: Compression = None) -> int:
    result = store.archive_logs(now=NOW, retention=timedelta(0), compression=compression)
    return sum(day.added_rows for day in result.days)


@dataclass
class Opened:
    """Fresh copies of the databases, open."""

    directory: Path
    ours: ns.LogStore
    peer: UpstreamArchive

    @classmethod
    def of(cls, databases: Databases, directory: Path) -> Opened:
        peer = copy(databases.peers["sqlite3"], directory / "upstream.db")
        ours = copy(databases.ours, directory / "ours" / "logs.db")
        return cls(directory, ns.LogStore(ours), UpstreamArchive(peer, directory / "peer"))

    def close(self) -> None:
        self.ours.close()
        self.peer.close()
        shutil.rmtree(self.directory)


@pytest.fixture
def copies(databases: Databases, tmp_path: Path) -> Iterator[Callable[[], Opened]]:
    """Opens fresh copies, and closes and removes those that it opened before."""
    opened: list[Opened] = []

    def run() -> Opened:
        while opened:
            opened.pop().close()
        opened.append(Opened.of(databases, tmp_path / uuid.uuid4().hex))
        return opened[-1]

    yield run
    while opened:
        opened.pop().close()


@pytest.mark.parametrize(("compression", "bound"), [(None, 5), ("zstd", 4)], ids=["plain", "zstd"])
def bench_archive(
    databases: Databases,
    copies: Callable[[], Opened],
    compare: Compare,
    compression: Compression,
    bound: float,
) -> None:
    def ours(work: Opened) -> None:
        assert archive(work.ours, compression) == databases.rows

    def peer(work: Opened) -> None:
        assert work.peer.run() == databases.rows

    compare(
        f"archive {databases.rows:,} rows, {FORMATS[compression]}",
        ours=ours,
        peers={"sqlite3": peer},
        work=copies,
        rounds=3,
        target=Target(bound=bound),
        rows=databases.rows,
    )


# --- appends meanwhile -------------------------------------------------------------------------------------------


APPENDER = """
import sys
import threading
from nerve_store import LogStore
from bench_archive import append_until

stopped = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
with LogStore(sys.argv[1]) as store:
    print("ready", flush=True)
    print(*append_until(store, stopped))
"""


def append_until(store: ns.LogStore, stopped: threading.Event) -> list[float]:
    """How long each full append takes, with a pause after each.

    Without one, another process's appends take SQLite's lock again before the archive job can look for it.
    """
    seconds = []
    while not stopped.wait(PAUSE_SECONDS):
        start = time.perf_counter()
        store.append("system", "tick", None, '{"load":0.5}')
        seconds.append(time.perf_counter() - start)
    return seconds


def append_in_a_thread(store: ns.LogStore, meanwhile: Callable[[], object]) -> list[float]:
    """What `append_until` measures while `meanwhile` runs."""
    stopped = threading.Event()
    seconds: list[float] = []
    appender = threading.Thread(target=lambda: seconds.extend(append_until(store, stopped)))
    appender.start()
    try:
        meanwhile()
    finally:
        stopped.set()
        appender.join()
    return seconds


def append_in_a_process(store: ns.LogStore, meanwhile: Callable[[], object]) -> list[float]:
    """The same, in another process."""
    command = [sys.executable, "-c", APPENDER, store.path]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as appender:
        assert appender.stdout is not None
        assert appender.stdout.readline() == "ready\n"
        meanwhile()
        out, _ = appender.communicate("")
    assert appender.returncode == 0
    return [float(seconds) for seconds in out.split()]


@pytest.mark.parametrize("compression", [None, "zstd"], ids=["plain", "zstd"])
@pytest.mark.parametrize("append", [append_in_a_thread, append_in_a_process], ids=["thread", "process"])
def bench_append_meanwhile(
    copies: Callable[[], Opened],
    record: Record,
    append: Callable[[ns.LogStore, Callable[[], object]], list[float]],
    compression: Compression,
) -> None:
    idle: list[float] = []
    busy: list[float] = []
    for _ in range(ATTEMPTS):
        store = copies().ours
        idle += append(store, lambda: time.sleep(2))
        busy += append(store, lambda store=store: archive(store, compression))  # type: ignore[misc]
    where = append.__name__.removeprefix("append_in_").replace("_", " ")
    print(f"\nidle {distribution(idle)}; while archiving {distribution(busy)}")
    record(
        Figure(
            f"append in {where}, full, p99 while archiving {FORMATS[compression]}",
            "s",
            percentile(busy, 99),
            Target(Kind.SHARE, 4),
            percentile(idle, 99),
            "idle store",
        )
    )


def percentile(seconds: list[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100)[percent - 1]


def distribution(seconds: list[float]) -> str:
    figures = [percentile(seconds, percent) * 1000 for percent in (50, 90, 99)] + [max(seconds) * 1000]
    p50, p90, p99, most = figures
    return f"{len(seconds)} appends, ms: p50 {p50:.2f}, p90 {p90:.2f}, p99 {p99:.2f}, most {most:.2f}"


# --- the files ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archived:
    """Two archived copies of ours; the lines of the plain one are what is read beside either."""

    rows: int
    plain: Path
    zstd: Path

    def database(self, compression: Compression) -> Path:
        return self.plain if compression is None else self.zstd


@pytest.fixture(scope="module")
def archived(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archived]:
    directory = tmp_path_factory.mktemp("archived")
    paths = {}
    for compression, name in FORMATS.items():
        paths[name] = copy(databases.ours, directory / name / "logs.db")
        with ns.LogStore(paths[name], durability="normal") as store:
            assert archive(store, compression) == databases.rows  # type: ignore[arg-type]
    yield Archived(databases.rows, paths["plain"], paths["zstd"])
    shutil.rmtree(directory)


def compare_with_json_loads(
    compare: Compare, archived: Archived, case: str, ours: Callable[[None], None], bound: float | None
) -> None:
    """Beside the plain files alone, parsed line by line."""

    def json_loads(_: None) -> None:
        assert sum(1 for _row in parsed(archived.plain.parent / "archive" / "logs")) == archived.rows

    compare(
        f"{case} beside json.loads",
        ours=ours,
        peers={"json.loads": json_loads},
        work=lambda: None,
        rounds=3,
        target=Target(bound=bound),
        rows=archived.rows,
    )


@pytest.mark.parametrize(("compression", "bound"), [(None, 3), ("zstd", None)], ids=["plain", "zstd"])
def bench_read_archive(archived: Archived, compare: Compare, compression: Compression, bound: float | None) -> None:
    with ns.LogStore(archived.database(compression), read_only=True) as store:
        days = [day.day for day in store.archived_days()]

        def ours(_: None) -> None:
            assert sum(1 for day in days for _row in store.read_archive(day)) == archived.rows

        compare_with_json_loads(compare, archived, f"read_archive, {FORMATS[compression]}", ours, bound)


@pytest.mark.parametrize(("compression", "bound"), [(None, 3), ("zstd", None)], ids=["plain", "zstd"])
def bench_verify(archived: Archived, compare: Compare, compression: Compression, bound: float | None) -> None:
    with ns.LogStore(archived.database(compression), read_only=True) as store:

        def ours(_: None) -> None:
            report = store.verify()
            assert report.ok
            assert report.archived_row_count == archived.rows

        compare_with_json_loads(compare, archived, f"verify, {FORMATS[compression]}", ours, bound)


@pytest.mark.parametrize(("compression", "bound"), [(None, 0.020), ("zstd", None)], ids=["plain", "zstd"])
def bench_messages_of_an_archived_run(
    tmp_path: Path, compare: Compare, compression: Compression, bound: float | None
) -> None:
    path = tmp_path / "logs.db"
    build_day(path, DAY_ROWS)
    with ns.LogStore(path, durability="normal") as store:
        before = store.get_thread_messages(THE_RUN)
        assert archive(store, compression) == DAY_ROWS
        assert len(store.archived_days()) == 1
        assert store.count() == 0
        assert store.get_thread_messages(THE_RUN) == before
        assert len(before) == MESSAGES_OF_A_DAY
        compare(
            f"{MESSAGES_OF_A_DAY} messages of a run in an archived day of {DAY_ROWS:,}, {FORMATS[compression]}",
            ours=lambda _: store.get_thread_messages(THE_RUN),
            peers={},
            work=lambda: None,
            rounds=20,
            target=Target(Kind.COST, bound),
        )


# --- memory ------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
from datetime import timedelta
import nerve_store as ns

def most():
    # Not `getrusage`, which counts the parent's memory, too.
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

with ns.LogStore(sys.argv[1]) as store:
    store.query(limit=1)
    idle = most()
    result = store.archive_logs(now=int(sys.argv[3]), retention=timedelta(0), compression=sys.argv[2] or None)
    assert len(result.days) == 1
    print(idle, most(), result.days[0].row_count)
"""


@pytest.fixture(scope="module")
def long_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("day")
    path = directory / "logs.db"
    build_day(path, MEMORY_ROWS)
    yield path
    shutil.rmtree(directory)


@pytest.mark.parametrize("compression", [None, "zstd"], ids=["plain", "zstd"])
def bench_memory(long_day: Path, tmp_path: Path, record: Record, compression: Compression) -> None:
    path = copy(long_day, tmp_path / "logs.db")
    command = [sys.executable, "-c", MEMORY, str(path), compression or "", str(NOW)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    shutil.rmtree(tmp_path)
    idle, peak, rows = map(int, out.split())
    assert rows == MEMORY_ROWS
    record(
        Figure(
            f"peak memory of archiving a day of {rows:,} rows, {FORMATS[compression]}",
            "B",
            peak,
            Target(Kind.EXTRA, 64e6),
            idle,
            "idle store",
        )
    )


def bench_foreign_deletes(databases: Databases, tmp_path: Path, record: Record) -> None:
    """Another program deletes a tenth of the rows: with the triggers that note it, and without them."""
    program = Path(__file__).with_name("foreign_deletes.py")
    times: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(6):
        for triggers in sorted(times, reverse=bool(turn % 2)):
            path = copy(databases.ours, tmp_path / triggers / "logs.db")
            command = [sys.executable, str(program), str(path), "1000", str(databases.rows // 10), triggers]
            times[triggers].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            shutil.rmtree(path.parent)
    ours, peer = (statistics.median(times[triggers]) for triggers in ("with", "without"))
    case = f"another program deletes {databases.rows // 10:,} rows; peer: without the triggers"
    record(Figure(case, "s", ours, Target(Kind.SHARE, 1.05), peer, "sqlite3"))
