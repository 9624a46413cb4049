"""The predecessor archives beside us, in place and by time: what its files hold is read as it is, or refused."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nerve_store as ns
from reference import Row, archive_line
from support import as_row, as_rows, day_files, foreign_sql, read_day_file
from support.archive import NOW, append, at, day, gained, message
from support.predecessor import archive as archive_as_predecessor

Compression = Literal["zstd"] | None
INSERT = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?)"


def insert_as_predecessor(path: Path, timestamp: int, run_id: str, text: str | None, type: str = "") -> None:
    foreign_sql(path, INSERT, ("workflow", type or "thread_workflow_message", run_id, text, timestamp))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_messages_of_a_second_file_are_read_and_merged(data_dir: Path, compression: Compression) -> None:
    """The predecessor writes beside a compressed file, and over a plain one."""
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        first = append(store, at(0), "run", message(1))
        store.archive_logs(now=NOW, compression="zstd")
        insert_as_predecessor(path, at(0, 1), "run", message(2))
        archive_as_predecessor(path, last_day=day(40), max_days=1)
        assert [entry.content for entry in store.get_thread_messages("run")] == ["message 1", "message 2"]
        assert store.get_thread_round_count("run") == 2
        assert [item.round for item in store.get_thread_rounds("run", limit=5)] == [2, 1]
        assert store.count(archived=True) == 2
        assert [problem.day for problem in store.verify().problems] == [day(0)]
        result = store.archive_logs(now=NOW, compression=compression)
        assert gained(result) == {day(0): 1}
        assert [entry.content for entry in store.get_thread_messages("run")] == ["message 1", "message 2"]
        assert store.get_thread_round_count("run") == 2
        assert [item.round for item in store.get_thread_rounds("run", limit=5)] == [2, 1]
        assert [item.row_count for item in store.archived_days()] == [2]
        assert as_rows(store.query(archived=True))[0] == first
        assert store.verify().ok


@pytest.fixture
def cut(data_dir: Path) -> tuple[Path, list[Row], list[Row]]:
    """A closed store of which the predecessor has cut twenty files to one line: the rows of ours, of which all but
    those of the last day are gone, and the predecessor's.
    """
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        ours = [append(store, at(n, k), f"run-{n}", message(k)) for n in range(21) for k in range(3)]
        store.archive_logs(now=NOW)
    for number in range(20):
        insert_as_predecessor(path, at(number, 9), "late", '{"prompt": "p", "maxRounds": 3}', "started")
    foreign_sql(path, "DELETE FROM meta")
    archive_as_predecessor(path, last_day=day(19))
    files = day_files(path.parent / "archive" / "logs")
    late = [row for number in range(20) for row in read_day_file(files[day(number)])]
    assert [row.ref_id for row in late] == ["late"] * 20
    return path, ours, late


CUT_READS: dict[str, Callable[[ns.LogStore], Any]] = {
    "trigger": lambda store: store.get_trigger_payload("late"),
    "query": lambda store: store.query(archived=True),
    "query of a lost run": lambda store: store.query(archived=True, ref_id="run-3"),
    "messages of a lost run": lambda store: store.get_thread_messages("run-3"),
    "rounds of a lost run": lambda store: store.get_thread_round_count("run-3"),
    "count": lambda store: store.count(archived=True),
    "count of the day": lambda store: store.count(archived=True, since=at(3), until=at(4) - 1),
    "day": lambda store: list(store.read_archive(day(3))),
    "iter": lambda store: list(store.iter(archived=True)),
    "follow": lambda store: next(store.follow(after_id=0, archived=True)),
}


@pytest.mark.parametrize("read", CUT_READS.values(), ids=CUT_READS.keys())
def test_files_that_were_written_anew_are_refused_until_they_are_accepted(
    cut: tuple[Path, list[Row], list[Row]], read: Callable[[ns.LogStore], Any]
) -> None:
    path, ours, _ = cut
    with ns.LogStore(path) as store:
        with pytest.raises(ns.ArchiveCorruptError, match=r"2026-01-\d\d\.jsonl.*reindex\(\)"):
            read(store)
        assert as_rows(store.query(archived=True, since=at(20))) == ours[-3:]
        assert len(store.get_thread_messages("run-20")) == 3
        assert len(store.archive_logs(now=NOW).problems) == 20


def test_rebuilding_takes_the_files_as_they_are_and_reports_what_is_missing(
    cut: tuple[Path, list[Row], list[Row]], caplog: pytest.LogCaptureFixture
) -> None:
    path, ours, late = cut
    with ns.LogStore(path) as store:
        store.reindex()
        assert caplog.text.count("3 rows that it held are gone") == 20
        there = sorted([*ours[-3:], *late])
        assert sorted(as_rows(store.query(archived=True))) == there
        assert store.count(archived=True) == len(there)
        assert store.get_trigger_payload("late") == {"prompt": "p", "maxRounds": 3, "dryRun": False}
        assert store.get_thread_messages("run-3") == []
        problems = store.verify().problems
        assert [problem.day for problem in problems] == [day(number) for number in range(20)]
        assert all("gone" in problem.reason for problem in problems)
        assert (problems[3].first_id, problems[3].last_id) == (ours[9].id, ours[11].id)
        # A day that is put back from a backup is whole again.
        lines = [*ours[9:12], late[3]]
        file = day_files(path.parent / "archive" / "logs")[day(3)]
        file.write_text("".join(f"{archive_line(row)}\n" for row in lines), encoding="utf-8")
        store.reindex()
        assert day(3) not in {problem.day for problem in store.verify().problems}
        assert [entry.content for entry in store.get_thread_messages("run-3")] == [f"message {n}" for n in range(3)]


# --- every interleaving ------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3), st.sampled_from(["run-1", "run-2"])),
        st.tuples(st.just("append as predecessor"), st.integers(0, 3), st.sampled_from(["run-1", "run-2"])),
        st.tuples(st.just("archive"), st.sampled_from([None, "zstd"]), st.integers(1, 4)),
        st.tuples(st.just("archive as predecessor"), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("reindex"), st.none(), st.none()),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    min_size=1,
    max_size=12,
)


def rows_that_are_there(path: Path) -> dict[int, Row]:
    """Every row in the database or in a file, by other code than the store's."""
    found = {}
    columns = "id, source, type, ref_id, payload, timestamp"
    for row in foreign_sql(path, f"SELECT {columns} FROM logs"):
        found[row[0]] = Row(*row)
    directory = path.parent / "archive" / "logs"
    for file in sorted(directory.glob("*.jsonl*")) if directory.is_dir() else []:
        for row in read_day_file(file):
            assert found.setdefault(row.id, row) == row
    return found


def check(store: ns.LogStore, there: dict[int, Row]) -> None:
    """What is there is read, or a file is refused by name; a read never misses a row in silence."""
    expected = [there[row_id] for row_id in sorted(there)]
    refused = False
    for run_id in (None, "run-1", "run-2"):
        wanted = [row for row in expected if run_id is None or row.ref_id == run_id]
        try:
            assert as_rows(store.query(archived=True, ref_id=run_id)) == wanted
            assert store.count(archived=True, ref_id=run_id) == len(wanted)
            if run_id is not None:
                assert len(store.get_thread_messages(run_id)) == len(wanted)
                assert store.get_thread_round_count(run_id) >= len(wanted)
                assert [item.log_id for item in store.get_thread_rounds(run_id, limit=99)] == [
                    r.id for r in wanted[::-1]
                ]
        except ns.ArchiveCorruptError as error:
            refused = "reindex()" in str(error)
            if not refused:
                raise
    if refused:
        assert not store.verify().ok


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_no_interleaving_of_the_two_archives_loses_a_row_in_silence(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="nerve-store-predecessor-") as scratch:
        path = Path(scratch) / "data" / "logs.db"
        store = ns.LogStore(path, segment_rows=4)
        try:
            for clock, (step, first, second) in enumerate(steps):
                if step == "append":
                    append(store, at(first, clock), second, message(clock))
                elif step == "append as predecessor":
                    insert_as_predecessor(path, at(first, clock), second, message(clock))
                elif step == "archive":
                    before = rows_that_are_there(path)
                    with contextlib.suppress(ns.ArchiveCorruptError):
                        store.archive_logs(now=at(4), retention=timedelta(0), compression=first, max_days=second)
                    assert rows_that_are_there(path) == before
                elif step == "archive as predecessor":
                    archive_as_predecessor(path, last_day=day(3), max_days=first, delete=second)
                elif step == "reindex":
                    before = rows_that_are_there(path)
                    store.reindex()
                    assert rows_that_are_there(path) == before
                    expected = [before[row_id] for row_id in sorted(before)]
                    assert as_rows(store.query(archived=True)) == expected
                    assert store.count(archived=True) == len(expected)
                else:
                    store.close()
                    store = ns.LogStore(path, segment_rows=4)
                check(store, rows_that_are_there(path))
            store.reindex()
            there = rows_that_are_there(path)
            assert as_rows(store.query(archived=True)) == [there[row_id] for row_id in sorted(there)]
            known = max(there, default=0)
            assert as_row(store.append("s", "t")).id > known
        finally:
            store.close()


def test_a_file_of_a_day_before_1970_is_named_by_verify(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        append(store, at(0))
        store.archive_logs(now=NOW)
        strangers = [Path(store.archive_dir, name) for name in ("1969-12-31.jsonl", "2026-02-31.jsonl.zst")]
        for stranger in strangers:
            stranger.write_text("{}\n")
        Path(store.archive_dir, "notes.jsonl").write_text("{}\n")
        problems = store.verify().problems
        assert [Path(problem.path) for problem in problems] == strangers
        assert all("1970" in problem.reason for problem in problems)
        assert store.count(archived=True) == 1
        for stranger in strangers:
            stranger.unlink()
        assert store.verify().ok
