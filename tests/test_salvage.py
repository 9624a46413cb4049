"""Salvaging damaged databases: no wrong row but among those that the report lists as unverified."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

import nerve_store as ns
from reference import Row
from support import as_rows, foreign_sql
from support.archive import NOW, append, at, content_of, day, fill, message, put_run
from support.processes import child_environment

PAGE = 4096
SEGMENT_ROWS = 32


@dataclass(frozen=True)
class Prepared:
    """A store that was killed or closed, and what was in it."""

    directory: Path
    live: dict[int, Row]
    archived: dict[int, Row]
    expired: dict[int, Row]
    runs: list[ns.WorkflowRun]


def prepare(directory: Path, *, is_killed: bool) -> Prepared:
    """Some days in the archive, long rows that overflow, runs, meta; killed: with commits in the write-ahead log."""
    with ns.LogStore(directory / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        fill(store, days=4, per_day=40)
        put_run(store, "started")
        append(store, at(0), "run-1", message(1))
        store.archive_logs(now=NOW, compression="zstd", max_days=2)
        store.archive_logs(now=NOW, max_days=1)
        before = as_rows(store.iter(archived=True))
        store.expire_archive(before=day(1))
        for number in range(12):
            store.append("system", "long", f"ref-{number % 3}", f"{number} " * 3000, NOW + number)
        store.append_many(("system", "tick", f"ref-{n % 5}", f"{n} {'x' * (n % 90)}", NOW + n) for n in range(700))
        for number in range(30):
            put_run(store, "queued", f"run-{number + 2}")
        store.set_meta("key", "value")
        every = {row.id: row for row in as_rows(store.iter(archived=True))}
        live = {row.id: row for row in as_rows(store.iter())}
        expired = {row.id: row for row in before if row.id not in every}
        archived = {row.id: row for row in every.values() if row.id not in live}
        runs = store.get_all_workflow_runs()
        if is_killed:
            copy = directory.with_name(directory.name + "-killed")
            with ns.LogStore(directory / "logs.db"):
                shutil.copytree(directory, copy)
            # As the kernel has them: nothing is written meanwhile.
            return Prepared(copy, live, archived, expired, runs)
    return Prepared(directory, live, archived, expired, runs)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("closed") / "store", is_killed=False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("killed") / "store", is_killed=True)


# --- damage ------------------------------------------------------------------------------------------------------


def flip_bits(content: bytearray, random: Random) -> None:
    for _ in range(random.choice([1, 1, 4, 40])):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def zero_pages(content: bytearray, random: Random) -> None:
    for _ in range(random.choice([1, 1, 3, 8])):
        start = random.randrange(len(content) // PAGE) * PAGE
        content[start : start + PAGE] = bytes(PAGE)


def overwrite_sectors(content: bytearray, random: Random) -> None:
    for _ in range(random.choice([1, 2, 6])):
        start = random.randrange(len(content) // 512) * 512
        length = 512 * random.randrange(1, 9)
        content[start : start + length] = random.randbytes(length)[: len(content) - start]


def swap_pages(content: bytearray, random: Random) -> None:
    one, other = (random.randrange(len(content) // PAGE) * PAGE for _ in range(2))
    content[one : one + PAGE], content[other : other + PAGE] = (
        content[other : other + PAGE],
        content[one : one + PAGE],
    )


def cut_off(content: bytearray, random: Random) -> None:
    del content[random.randrange(min(PAGE, len(content) - 1), len(content)) :]


def lose_the_header(content: bytearray, random: Random) -> None:
    content[: random.choice([16, 100, PAGE])] = random.randbytes(PAGE)[: random.choice([16, 100, PAGE])]


KINDS: list[Callable[[bytearray, Random], None]] = [
    flip_bits,
    zero_pages,
    overwrite_sectors,
    swap_pages,
    cut_off,
    lose_the_header,
]


def within(number: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in spans)


def check(prepared: Prepared, directory: Path, target: Path, *, is_tail_known: bool = True) -> ns.SalvageReport:
    report = ns.salvage(directory / "logs.db", target)
    with ns.LogStore(target, archive_dir=directory / "archive/logs") as store:
        rows = as_rows(store.iter())
        assert len(rows) == report.row_count
        every = {**prepared.live, **prepared.archived, **prepared.expired}
        wrong = [row for row in rows if every.get(row.id) != row and not within(row.id, report.unverified)]
        assert wrong == []
        found = {row.id for row in rows}
        assert all(set(range(first, last + 1)) <= found for first, last in report.unverified)
        lost = prepared.live.keys() - found
        assert [number for number in sorted(lost) if not within(number, report.missing)] == []
        there = found | prepared.archived.keys()
        assert [number for number in there if within(number, report.missing)] == []
        # It is a store that works, and gives out no id again.
        last = max(prepared.live)
        if is_tail_known:
            assert store.append("system", "tick").id > last
        assert store.verify().ok
    assert not [path for path in target.parent.iterdir() if path.name != target.name]
    return report


def damage(prepared: Prepared, scratch: Path, random: Random, name: str = "logs.db") -> Path:
    directory = scratch / "damaged"
    shutil.copytree(prepared.directory, directory)
    content = bytearray((directory / name).read_bytes())
    random.choice(KINDS)(content, random)
    (directory / name).write_bytes(content)
    return directory


def test_a_sound_database_is_copied(closed: Prepared, tmp_path: Path) -> None:
    before = (closed.directory / "logs.db").read_bytes(), content_of(closed.directory / "archive/logs")
    report = check(closed, closed.directory, tmp_path / "new/logs.db")
    assert report.missing == ()
    assert report.row_count == len(closed.live)
    # Only those that are in no segment yet, or in one with expired rows.
    unverified = sum(last - first + 1 for first, last in report.unverified)
    assert unverified < 2 * SEGMENT_ROWS
    assert ((closed.directory / "logs.db").read_bytes(), content_of(closed.directory / "archive/logs")) == before


def test_commits_in_the_log_are_saved(killed: Prepared, tmp_path: Path) -> None:
    assert (killed.directory / "logs.db-wal").stat().st_size > 100_000
    report = check(killed, killed.directory, tmp_path / "new/logs.db")
    assert report.row_count == len(killed.live)
    # Which commits a killed process had begun is not known: ids that were reserved, and never given out.
    ((first, last),) = report.missing
    assert first == max(killed.live) + 1
    assert last - first < 1024


def test_runs_meta_and_the_identity_are_saved(closed: Prepared, tmp_path: Path) -> None:
    check(closed, closed.directory, tmp_path / "new/logs.db")
    with ns.LogStore(tmp_path / "new/logs.db", archive_dir=closed.directory / "archive/logs") as store:
        assert store.get_all_workflow_runs() == closed.runs
        assert store.get_meta("key") == "value"
        assert store.count(archived=True) == len(closed.live) + len(closed.archived) + 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("state", ["closed", "killed"])
def test_damage(request: pytest.FixtureRequest, tmp_path: Path, state: str, seed: int) -> None:
    prepared: Prepared = request.getfixturevalue(state)
    random = Random(seed)
    directory = damage(prepared, tmp_path, random, "logs.db-wal" if state == "killed" and seed % 3 else "logs.db")
    check(prepared, directory, tmp_path / "new/logs.db", is_tail_known=False)


@pytest.mark.torture
def test_a_thousand_damages(closed: Prepared, killed: Prepared, tmp_path: Path) -> None:
    for seed in range(1000):
        prepared = killed if seed % 2 else closed
        scratch = tmp_path / str(seed)
        name = "logs.db-wal" if prepared is killed and seed % 3 else "logs.db"
        directory = damage(prepared, scratch, Random(1000 + seed), name)
        try:
            check(prepared, directory, scratch / "new/logs.db", is_tail_known=False)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        shutil.rmtree(scratch)


# --- beside SQLite's own -----------------------------------------------------------------------------------------

SHELL = os.environ.get("NERVE_SQLITE3") or shutil.which("sqlite3")
"""A shell whose `.recover` works: Debian's, and the one in apsw, are built without SQLITE_ENABLE_DBPAGE_VTAB."""


def recovered_by_sqlite(database: Path, scratch: Path) -> dict[int, Row]:
    """The rows that `sqlite3 .recover` finds."""
    assert SHELL is not None
    dump = subprocess.run([SHELL, str(database), ".recover"], capture_output=True, check=False, env=child_environment())
    subprocess.run([SHELL, str(scratch)], input=dump.stdout, capture_output=True, check=False)
    try:
        found = foreign_sql(scratch, "SELECT id, source, type, ref_id, payload, timestamp FROM logs")
    except Exception:  # noqa: BLE001 - whatever another program says of what another one made
        return {}
    return {row[0]: Row(*row) for row in found}


def as_dumped(row: Row) -> Row:
    """The dump of `.recover` ends a text at its first NUL, of a sound database, too; that is not held against it."""
    return row if row.payload is None else row._replace(payload=row.payload.split("\0")[0])


@dataclass
class Score:
    """What became of the rows of the damaged databases."""

    right: int = 0
    wrong: int = 0
    wrong_unsaid: int = 0
    """Wrong, and not listed as doubtful."""
    deleted: int = 0
    """Rows that had been deleted, since they were archived."""
    seconds: float = 0.0

    def add(self, rows: Iterable[Row], live: dict[int, Row], doubtful: Iterable[tuple[int, int]] = ()) -> None:
        for row in rows:
            if live.get(row.id) == row:
                self.right += 1
            elif row.id not in live:
                self.deleted += 1
            else:
                self.wrong += 1
                self.wrong_unsaid += not within(row.id, doubtful)


@pytest.mark.skipif(SHELL is None, reason="needs the sqlite3 shell")
@pytest.mark.parametrize("count", [8, pytest.param(240, marks=pytest.mark.torture)])
def test_it_saves_no_fewer_rows_than_sqlite(closed: Prepared, tmp_path: Path, count: int) -> None:
    if not recovered_by_sqlite(closed.directory / "logs.db", tmp_path / "sound.db"):
        pytest.skip(f"{SHELL} was built without what .recover needs; NERVE_SQLITE3 names another one")
    ours, theirs = defaultdict[str, Score](Score), defaultdict[str, Score](Score)
    there: Counter[str] = Counter()
    for seed in range(count):
        scratch = tmp_path / str(seed)
        random = Random(50 + seed)
        directory = damage(closed, scratch, random)
        kind = KINDS[Random(50 + seed).randrange(len(KINDS))].__name__
        there[kind] += len(closed.live)
        began = time.perf_counter()
        report = ns.salvage(directory / "logs.db", scratch / "new.db")
        ours[kind].seconds += time.perf_counter() - began
        with ns.LogStore(scratch / "new.db", read_only=True, archive_dir=scratch / "none") as store:
            ours[kind].add(as_rows(store.iter()), closed.live, report.unverified)
        began = time.perf_counter()
        found = recovered_by_sqlite(directory / "logs.db", scratch / "recovered.db")
        theirs[kind].seconds += time.perf_counter() - began
        theirs[kind].add(found.values(), {number: as_dumped(row) for number, row in closed.live.items()})
        shutil.rmtree(scratch)
    print(f"{count} damaged databases of {len(closed.live)} rows each")
    for kind, rows in there.items():
        print(f"{kind}, {rows} rows: {ours[kind]} (ours), {theirs[kind]} (.recover)")
        assert ours[kind].right >= theirs[kind].right
        assert ours[kind].wrong_unsaid == ours[kind].deleted == 0


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_database_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store/logs.db"
    with ns.LogStore(path) as store:
        store.append("system", "tick")
        with pytest.raises(ns.StoreIOError, match="close the store first"):
            ns.salvage(path, tmp_path / "new.db")
    ns.salvage(path, tmp_path / "new.db")
    with pytest.raises(ns.StoreIOError, match="something already"):
        ns.salvage(path, tmp_path / "new.db")


@pytest.mark.parametrize("content", [None, b"", b"notes" * 2000, os.urandom(20_000), bytes(70_000)])
def test_what_is_no_database_at_all(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "old/logs.db"
    path.parent.mkdir()
    if content is None:
        with pytest.raises(ns.StoreIOError, match="no such file"):
            ns.salvage(path, tmp_path / "new.db")
        return
    path.write_bytes(content)
    report = ns.salvage(path, tmp_path / "new.db")
    assert report.row_count == 0
    assert report.missing[-1][1] == 2**63 - 1


def test_the_archive_of_another_database_is_not_asked(tmp_path: Path, closed: Prepared) -> None:
    with ns.LogStore(tmp_path / "other/logs.db") as store:
        rows = fill(store, days=3)
    shutil.copytree(closed.directory / "archive", tmp_path / "other/archive")
    report = ns.salvage(tmp_path / "other/logs.db", tmp_path / "new/logs.db")
    with ns.LogStore(tmp_path / "new/logs.db") as store:
        assert as_rows(store.iter()) == rows
    assert report.missing == ()


def test_progress_and_its_exceptions(closed: Prepared, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    ns.salvage(closed.directory / "logs.db", tmp_path / "new.db", progress=lambda *call: calls.append(call))
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] > 0

    def stop(_done: int, _total: int) -> Any:
        raise KeyError

    with pytest.raises(KeyError):
        ns.salvage(closed.directory / "logs.db", tmp_path / "stopped/new.db", progress=stop)
    assert list((tmp_path / "stopped").iterdir()) == []


def test_a_salvaged_database_takes_the_place_of_the_damaged_one(closed: Prepared, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    shutil.copytree(closed.directory, directory)
    content = bytearray((directory / "logs.db").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3 * PAGE] = bytes(3 * PAGE)
    (directory / "logs.db").write_bytes(content)
    report = ns.salvage(directory / "logs.db", tmp_path / "saved.db")
    os.replace(tmp_path / "saved.db", directory / "logs.db")
    with ns.LogStore(directory / "logs.db") as store:
        every = {**closed.live, **closed.archived}
        rows = as_rows(store.iter(archived=True))
        assert len(rows) == report.row_count + len(closed.archived)
        assert all(every[row.id] == row for row in rows if not within(row.id, report.unverified))
        assert store.verify().ok
        store.archive_logs(now=NOW + 86_400_000 * 40, retention=timedelta(0))
        assert store.verify().ok
