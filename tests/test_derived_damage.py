"""One bit of a derived table is flipped: no read is wrong without verify() saying so, and reindex() heals it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import Row
from support import INSERT_RUN, as_rows, foreign_sql
from support.archive import MARK

DAY_MS = 86_400_000
MESSAGE = "thread_workflow_message"
RUNS = ("run-0", "run-1", "run-2")
SEGMENT_ROWS = 18

COLUMNS = {
    "log_segments": ("first_id", "last_id", "row_count", "min_timestamp", "max_timestamp", "checksum"),
    "log_gaps": ("segment", "ids"),
    "log_zones": ("segment", "zones"),
    "log_kinds": ("source", "type", "segment", "ids", "row_count"),
    "log_deleted": ("first_id", "last_id"),
    "log_restored": ("first_id", "last_id"),
    "log_builds": ("build",),
    "log_ids": ("slot", "greatest", "complement"),
    "log_fresh": ("segment", "postings"),
    "log_postings": ("ref_id", "first_id", "ids", "round_count", "rounds_before", "rounds"),
    "archive_days": (
        "day",
        "state",
        "format",
        "row_count",
        "first_id",
        "last_id",
        "size",
        "raw_size",
        "sha256",
        "has_rounds",
        "kinds",
    ),
    "archive_contents": ("day", "state", "ids", "blocks"),
    "archive_refs": ("day", "ref_id", "first_id", "ids", "rounds"),
}
"""Every column of every derived table, but for `archived_at`, with which nothing can be compared."""


def some_rows(first: int, count: int) -> list[tuple[str, str, str | None, str | None, int]]:
    rows: list[tuple[str, str, str | None, str | None, int]] = []
    for n in range(first, first + count):
        payload = json.dumps({"role": "assistant", "content": f"message {n}"})
        match n % 5:
            case 0 | 1:
                rows.append(("workflow", MESSAGE, RUNS[n % 3], payload, n // 160 * DAY_MS + n))
            case 2:
                rows.append(("workflow", "note", RUNS[n % 3], None, n // 160 * DAY_MS + n))
            case 3:
                rows.append((f"source-{n % 4}", "tick", f"ref-{n % 7}", "x", n // 160 * DAY_MS + n))
            case _:
                rows.append(("rare" if n % 60 == 4 else "common", "tock", None, "y", n // 160 * DAY_MS + n))
    return rows


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Merged, fresh and unsealed rows, days of ours and of the predecessor, and a day that was put back."""
    data = tmp_path_factory.mktemp("derived") / "data"
    path = data / "logs.db"
    # What the predecessor archived: its rounds are known to the manifest alone.
    with ns.LogStore(path, segment_rows=10**6) as store:
        store.append_many(some_rows(0, 120))
        (archived,) = store.archive_logs(now=40 * DAY_MS, retention=timedelta(days=30)).days
    for table in COLUMNS:
        foreign_sql(path, f"DELETE FROM {table}")
    aside = Path(archived.path).rename(data / "aside")
    foreign_sql(path, INSERT_RUN, ["run-1", "deploy", "started", 1, None])
    with ns.LogStore(path, segment_rows=SEGMENT_ROWS) as store:
        store.append_many(some_rows(160, 1_040))
        store.archive_logs(now=33 * DAY_MS, retention=timedelta(days=30))
        # The rows of the active run stay, in segments with gaps.
        store.reindex()
        aside.rename(archived.path)
        store.append_many(some_rows(1_200, 240))
        store.archive_logs(now=35 * DAY_MS, retention=timedelta(days=30), compression="zstd")
        store.restore_archive(store.archived_days()[-1].day)
        store.append_many(some_rows(1_440, 120))
        assert store.verify().ok, store.verify().problems
    for table in COLUMNS:
        assert foreign_sql(path, f"SELECT count(*) FROM {table}")[0][0] > 0, table
    return data


def rows_of(store: ns.LogStore, options: dict[str, Any]) -> list[Row]:
    return as_rows(store.query(**options))


def days_of(store: ns.LogStore) -> list[tuple[Any, ...]]:
    return [(day.day, day.row_count, day.size) for day in store.archived_days()]


def answers(store: ns.LogStore) -> dict[str, Any]:
    """Every way of reading, and what it returns or raises."""
    calls: dict[str, Callable[[], Any]] = {}
    filters: list[dict[str, Any]] = [{}]
    filters += [{"ref_id": ref} for ref in (*RUNS, *(f"ref-{n}" for n in range(7)), "nothing")]
    filters += [{"source": source} for source in ("workflow", "source-3", "rare", "common")]
    filters += [{"type": kind} for kind in (MESSAGE, "tick", "tock")]
    filters += [{"source": "workflow", "type": "note"}, {"source": "rare", "type": "tock"}]
    filters += [{"since": day * DAY_MS, "until": day * DAY_MS + 20} for day in range(9)]
    filters += [{"source": "common", "type": "tock", "since": 100, "until": 5 * DAY_MS}, {"after_id": 150, "limit": 9}]
    for options in filters:
        for archived in (False, True):
            chosen = {**options, "archived": archived}
            newest = {**chosen, "limit": 3, "descending": True}
            calls[f"query {chosen}"] = partial(rows_of, store, chosen)
            calls[f"query {newest}"] = partial(rows_of, store, newest)
            if "limit" not in chosen:
                calls[f"count {chosen}"] = partial(store.count, **chosen)
    for run in RUNS:
        calls[f"rounds {run}"] = partial(store.get_thread_rounds, run, limit=1_000)
        calls[f"round count {run}"] = partial(store.get_thread_round_count, run)
        calls[f"messages {run}"] = partial(store.get_thread_messages, run)
    calls["days"] = partial(days_of, store)
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except (ns.CorruptStoreError, ns.ArchiveError) as error:
            found[name] = error
    return found


def flipped(value: Any, chance: random.Random) -> Any:
    """The value with one bit of what is stored of it flipped."""
    if isinstance(value, int):
        size = max(1, (abs(value).bit_length() + 8) // 8)
        raw = bytearray(value.to_bytes(size, "big", signed=True))
        raw[chance.randrange(size)] ^= 1 << chance.randrange(8)
        return int.from_bytes(raw, "big", signed=True)
    raw = bytearray(value.encode() if isinstance(value, str) else value)
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return bytes(raw)


def keys_of(table: str) -> str:
    return {
        "log_kinds": "source, type, segment",
        "log_postings": "ref_id, first_id",
        "archive_days": "day, state",
        "archive_contents": "day, state",
        "archive_refs": "day, ref_id, first_id",
    }.get(table, COLUMNS[table][0])


def damage(path: Path, table: str, column: str, chance: random.Random, other: object = None) -> str | None:
    """Flips a bit, or puts `other` there; says what was done, or None where SQLite would not have it."""
    keys = keys_of(table).split(", ")
    rows = foreign_sql(path, f"SELECT {', '.join(keys)}, {column} FROM {table} WHERE length({column}) > 0")
    row = chance.choice(rows)
    new = flipped(row[-1], chance) if other is None else other
    value = "CAST(? AS TEXT)" if isinstance(row[-1], str) and other is None else "?"
    where = " AND ".join(f"{key} = ?" for key in keys)
    try:
        foreign_sql(path, f"UPDATE {table} SET {column} = {value} WHERE {where}", [new, *row[:-1]])
    except RuntimeError as refusal:
        # A key that is taken, or an integer that became another type.
        if "IntegrityError" in str(refusal):
            return None
        raise
    return f"{table}.{column} of {row[:-1]}: {row[-1]!r} -> {new!r}"


LATE = [("late", "tick", "run-0", None, 400 * DAY_MS)] * SEGMENT_ROWS * 2


@pytest.fixture(scope="module")
def truth(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the undamaged store answers, and what it answers after `LATE` was appended."""
    data = tmp_path_factory.mktemp("truth") / "data"
    shutil.copytree(template, data)
    with ns.LogStore(data / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        before = answers(store)
        store.append_many(LATE)
        after = answers(store)
    assert not any(isinstance(answer, Exception) for answer in (*before.values(), *after.values()))
    return before, after


def try_damage(
    template: Path,
    truth: tuple[dict[str, Any], dict[str, Any]],
    scratch: Path,
    table: str,
    column: str,
    seed: int,
    other: object = None,
) -> None:
    data = scratch / "data"
    shutil.copytree(template, data)
    path = data / "logs.db"
    what = damage(path, table, column, random.Random(f"{table} {column} {seed}"), other)
    if what is None:
        return
    with ns.LogStore(path, segment_rows=SEGMENT_ROWS) as store:
        found = answers(store)
        wrong = [name for name, answer in found.items() if answer != truth[0][name]]
        problems = store.verify().problems
        if wrong:
            assert problems, f"{what}: {wrong} and verify() says ok"
            assert any("reindex()" in problem.reason or problem.day for problem in problems), problems
        store.append_many(LATE)
        store.reindex()
        wrong = [name for name, answer in answers(store).items() if answer != truth[1][name]]
        assert not wrong, f"{what}: {wrong} are still wrong after reindex()"
        assert store.verify().ok, (what, store.verify().problems)


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, columns in COLUMNS.items() for column in columns]
)
@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(6, 60), marks=pytest.mark.torture)], ids=["few", "many"]
)
def test_flipped_bit_of_a_derived_table_is_told_and_healed(
    template: Path,
    truth: tuple[dict[str, Any], dict[str, Any]],
    tmp_path: Path,
    table: str,
    column: str,
    seeds: range,
) -> None:
    for seed in seeds:
        scratch = tmp_path / str(seed)
        scratch.mkdir()
        try_damage(template, truth, scratch, table, column, seed)
        shutil.rmtree(scratch)


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, columns in COLUMNS.items() for column in columns]
)
def test_value_of_another_kind_in_a_derived_table_is_told_and_healed(
    template: Path, truth: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path, table: str, column: str
) -> None:
    for number, other in enumerate([-1, -(2**63), 2**62, "x", b"\xff", 0.5]):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        try_damage(template, truth, scratch, table, column, number, other)
        shutil.rmtree(scratch)


# --- what is derived from nothing --------------------------------------------------------------------------------

GONE = "5 rows that it held are gone"
UNIQUE = {"archive_missing": ("day", "ids"), "archive_owner": ("id",)}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a day whose file has lost rows."""
    data = tmp_path_factory.mktemp("cut") / "data"
    with ns.LogStore(data / "logs.db") as store:
        store.append_many([("source", "tick", f"ref-{n % 3}", "x", n // 40 * DAY_MS + n) for n in range(120)])
        store.archive_logs(now=9 * DAY_MS, retention=timedelta(0))
        file = Path(store.archived_days()[0].path)
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:20] + lines[25:]))
        store.reindex()
        assert [GONE in problem.reason for problem in store.verify().problems] == [True]
    return data


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in UNIQUE for column in UNIQUE[table]])
@pytest.mark.parametrize(
    "seeds", [range(20), pytest.param(range(20, 200), marks=pytest.mark.torture)], ids=["few", "many"]
)
def test_flipped_bit_of_what_is_stored_once_is_told_and_bars_nothing_for_good(
    cut: Path, tmp_path: Path, table: str, column: str, seeds: range
) -> None:
    for seed in seeds:
        data = tmp_path / str(seed)
        shutil.copytree(cut, data)
        path = data / "logs.db"
        (old,) = foreign_sql(path, f"SELECT {column} FROM {table}")[0]
        new = flipped(old, random.Random(f"{table} {column} {seed}"))
        value = "CAST(? AS TEXT)" if isinstance(old, str) else "?"
        foreign_sql(path, f"UPDATE {table} SET {column} = {value}", [new])
        with ns.LogStore(path) as store:
            store.append("source", "late", None, None, 9 * DAY_MS)
            reasons = [problem.reason for problem in store.verify().problems]
            if table == "archive_missing":
                assert any("damaged" in reason for reason in reasons), (new, reasons)
            elif any(MARK in reason for reason in reasons):
                with pytest.raises(ns.ArchiveError, match=MARK):
                    store.count(archived=True)
                # The way out that it names.
                (Path(store.archive_dir) / MARK).unlink()
            assert store.count(archived=True) == 116
            store.reindex()
            store.archive_logs(now=11 * DAY_MS, retention=timedelta(0))
            assert store.count(archived=True) == 116
            reasons = [problem.reason for problem in store.verify().problems]
            assert [reason for reason in reasons if GONE not in reason] == []
            assert len(reasons) == (table == "archive_owner")
        shutil.rmtree(data)


# --- pages -------------------------------------------------------------------------------------------------------


def pages_of_derived_tables(path: Path) -> list[int]:
    tables = ", ".join(f"'{table}'" for table in COLUMNS)
    try:
        rows = foreign_sql(path, f"SELECT pageno FROM dbstat WHERE name IN ({tables}) ORDER BY pageno")
    except RuntimeError:
        pytest.skip("this Python's SQLite has no dbstat")
    return [row[0] for row in rows]


def read_page(path: Path, number: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek((number - 1) * size)
        return file.read(size)


def write_page(path: Path, number: int, page: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * len(page))
        file.write(page)


def stale(earlier: Path, path: Path, chance: random.Random) -> str | None:
    """A page as it was before the last rows: the disk has lost a write."""
    (size,) = foreign_sql(path, "PRAGMA page_size")[0]
    pages = [
        number
        for number in set(pages_of_derived_tables(earlier)) & set(pages_of_derived_tables(path))
        if read_page(earlier, number, size) != read_page(path, number, size)
    ]
    if not pages:
        return None
    number = chance.choice(sorted(pages))
    write_page(path, number, read_page(earlier, number, size))
    return f"page {number} is stale"


def swapped(_: Path, path: Path, chance: random.Random) -> str | None:
    """Two pages have changed places."""
    (size,) = foreign_sql(path, "PRAGMA page_size")[0]
    one, other = chance.sample(pages_of_derived_tables(path), 2)
    pages = read_page(path, one, size), read_page(path, other, size)
    write_page(path, one, pages[1])
    write_page(path, other, pages[0])
    return f"pages {one} and {other} are swapped"


@pytest.mark.parametrize("kind", [stale, swapped])
@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(6, 60), marks=pytest.mark.torture)], ids=["few", "many"]
)
def test_wrong_pages_of_derived_tables_are_told(
    template: Path,
    tmp_path: Path,
    kind: Callable[[Path, Path, random.Random], str | None],
    seeds: range,
) -> None:
    now = tmp_path / "now"
    shutil.copytree(template, now)
    with ns.LogStore(now / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        store.append_many(some_rows(1_600, 400))
        right = answers(store)
        assert store.verify().ok
    for seed in seeds:
        data = tmp_path / str(seed)
        shutil.copytree(now, data)
        what = kind(template / "logs.db", data / "logs.db", random.Random(f"{kind.__name__} {seed}"))
        if what is None:
            continue
        try:
            store = ns.LogStore(data / "logs.db", segment_rows=SEGMENT_ROWS)
        except ns.CorruptStoreError:
            continue
        with store:
            wrong = [name for name, answer in answers(store).items() if answer != right[name]]
            assert not wrong or not store.verify().ok, f"{what}: {wrong} and verify() says ok"
        shutil.rmtree(data)
