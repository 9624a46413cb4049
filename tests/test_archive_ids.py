"""A database that is older than its archive: no id of an archived row is given out again, and where that has happened
before, no row is hidden by another one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

import nerve_store as ns
from reference import Row
from support import INSERT_ROW, INSERT_ROW_WITH_ID, as_row, as_rows, database_rows, day_files, foreign_many, foreign_sql
from support.archive import MARK, NOW, append, at, day, gained, message

Compression = Literal["zstd"] | None
COMPRESSIONS: list[Compression] = [None, "zstd"]


def remove_database(path: Path) -> None:
    for sidecar in path.parent.glob("logs.db*"):
        sidecar.unlink()


def archived_store(path: Path, compression: Compression) -> tuple[list[Row], bytes]:
    """A store whose rows of two days are archived; the rows, and the database as it was after the first day's."""
    with ns.LogStore(path) as store:
        store.append_many([("s", "t", f"old-{n}", "x", at(0, n)) for n in range(10)])
    backup = path.read_bytes()
    with ns.LogStore(path) as store:
        store.append_many([("s", "t", f"new-{n}", "x", at(1, n)) for n in range(10)])
        rows = database_rows(store)
        store.archive_logs(now=NOW, compression=compression)
    return rows, backup


def restore_backup(path: Path, backup: bytes) -> None:
    remove_database(path)
    path.write_bytes(backup)


def delete_database(path: Path, _backup: bytes) -> None:
    remove_database(path)


def delete_manifest(path: Path, backup: bytes) -> None:
    """A backup that another program has made, without anything of ours."""
    restore_backup(path, backup)
    for table in ("archive_days", "archive_contents", "archive_refs"):
        foreign_sql(path, f"DROP TABLE IF EXISTS {table}")


LOSSES: dict[str, Callable[[Path, bytes], None]] = {
    "restored": restore_backup,
    "deleted": delete_database,
    "restored without a manifest": delete_manifest,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_no_id_of_an_archived_row_is_given_out_again(
    data_dir: Path, loss: Callable[[Path, bytes], None], compression: Compression
) -> None:
    path = data_dir / "logs.db"
    rows, backup = archived_store(path, compression)
    loss(path, backup)
    with ns.LogStore(path) as store:
        fresh = [append(store, at(5, n), f"fresh-{n}") for n in range(10)]
        assert fresh[0].id > rows[-1].id
        assert as_rows(store.query(archived=True)) == [*rows, *fresh]
        assert store.count(archived=True) == len(rows) + len(fresh)
        assert next(store.follow(after_id=rows[-1].id, archived=True)).id == fresh[0].id
        assert store.verify().ok
        store.archive_logs(now=NOW)
        assert as_rows(store.query(archived=True)) == [*rows, *fresh]
        assert store.verify().ok
    with ns.LogStore(path) as store:
        assert append(store, at(6)).id > fresh[-1].id


@pytest.mark.parametrize("damage", ["torn", "unreadable end", "last line"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_ids_in_a_damaged_file_are_not_given_out_again(data_dir: Path, compression: Compression, damage: str) -> None:
    path = data_dir / "logs.db"
    rows, _ = archived_store(path, compression)
    file = day_files(path.parent / "archive" / "logs")[day(1)]
    whole = file.read_bytes()
    if damage == "torn":
        file.write_bytes(whole[:-9])
    elif damage == "unreadable end":
        file.write_bytes(whole[:-5] + b"\0\0\0\0\0")
    else:
        file.write_bytes(whole + b'{"id":40,"source":"s","ty')
    remove_database(path)
    with ns.LogStore(path) as store:
        assert append(store, at(5)).id >= (40 if damage == "last line" and compression is None else rows[-1].id)


def test_opening_writes_nothing_where_nothing_is_to_be_raised(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    archived_store(path, None)
    ns.LogStore(path).close()
    before = path.read_bytes()
    ns.LogStore(path).close()
    assert path.read_bytes() == before


def test_files_that_come_later_raise_the_ids_when_they_are_adopted(data_dir: Path, tmp_path: Path) -> None:
    rows, _ = archived_store(tmp_path / "other" / "logs.db", None)
    with ns.LogStore(data_dir / "logs.db") as store:
        append(store, at(30))
        shutil.copytree(tmp_path / "other" / "archive" / "logs", store.archive_dir, dirs_exist_ok=True)
        (Path(store.archive_dir) / MARK).unlink()
        store.archive_logs(now=at(12), retention=timedelta(0))
        assert append(store, at(31)).id > rows[-1].id


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_days_that_gained_rows_after_the_backup_are_read_as_they_are(data_dir: Path, compression: Compression) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        rows = [append(store, at(0, 2 * n), f"ref-{n}") for n in range(5)]
        store.archive_logs(now=NOW, compression=compression)
    backup = path.read_bytes()
    with ns.LogStore(path) as store:
        rows += [append(store, at(0, 2 * n + 1), f"late-{n}") for n in range(5)]
        store.archive_logs(now=NOW)
    restore_backup(path, backup)
    with ns.LogStore(path) as store:
        assert as_rows(store.query(archived=True)) == rows
        assert store.count(archived=True) == len(rows)
        assert as_rows(store.query(archived=True, ref_id="late-3")) == [rows[8]]
        assert as_rows(store.read_archive(day(0))) == rows
        rows.append(append(store, at(0, 99)))
        assert rows[-1].id > rows[-2].id
        assert gained(store.archive_logs(now=NOW)) == {day(0): 1}
        assert as_rows(store.query(archived=True)) == rows
        assert store.verify().ok


# --- what is there twice already ---------------------------------------------------------------------------------


@pytest.fixture
def conflicted(data_dir: Path) -> Iterator[tuple[ns.LogStore, list[Row], list[Row]]]:
    """A store in which ten rows of the database have the ids of archived ones, and ten after them have not; the
    archived rows, of which the database has the first ten as well, and the other rows of the database.
    """
    path = data_dir / "logs.db"
    backup, archived = b"", list[Row]()
    for begin in (0, 10):
        with ns.LogStore(path, segment_rows=8) as store:
            for number in range(begin, begin + 10):
                store.append("workflow", "thread_workflow_message", "run-1", message(number), at(begin // 10, number))
            archived = database_rows(store)
        if begin == 0:
            backup = path.read_bytes()
    with ns.LogStore(path, segment_rows=8) as store:
        store.archive_logs(now=NOW)
    restore_backup(path, backup)
    fresh = [
        Row(n, "workflow", "thread_workflow_message", "run-1" if n % 2 else "run-2", message(n + 100), at(50, n))
        for n in range(11, 31)
    ]
    foreign_many(path, INSERT_ROW, [row[1:] for row in fresh])
    with ns.LogStore(path, segment_rows=8) as store:
        assert database_rows(store) == [*archived[:10], *fresh]
        yield store, archived, fresh


READS: dict[str, Callable[[ns.LogStore], Any]] = {
    "query": lambda store: store.query(archived=True),
    "query descending": lambda store: store.query(archived=True, descending=True),
    "query of a run": lambda store: store.query(ref_id="run-1", archived=True),
    "iter": lambda store: list(store.iter(archived=True)),
    "count": lambda store: store.count(archived=True),
    "count of a run": lambda store: store.count(ref_id="run-1", archived=True),
    "follow": lambda store: [
        next(follower) for follower in [store.follow(after_id=0, archived=True)] for _ in range(30)
    ],
    "messages": lambda store: store.get_thread_messages("run-1"),
    "rounds": lambda store: store.get_thread_rounds("run-1", limit=100),
    "round count": lambda store: store.get_thread_round_count("run-1"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_rows_with_the_id_of_another_are_not_hidden_in_silence(
    conflicted: tuple[ns.LogStore, list[Row], list[Row]], read: Callable[[ns.LogStore], Any]
) -> None:
    store, _, _ = conflicted
    with pytest.raises(ns.ArchiveError, match=r"reindex\(\)") as refused:
        read(store)
    assert not isinstance(refused.value, ns.ArchiveCorruptError)
    assert "11" in str(refused.value)
    assert f"{day(1)}.jsonl" in str(refused.value)


def test_what_is_not_concerned_is_read_and_archived(conflicted: tuple[ns.LogStore, list[Row], list[Row]]) -> None:
    store, archived, fresh = conflicted
    assert as_rows(store.query(archived=True, until=at(1) - 1)) == archived[:10]
    assert as_rows(store.query(archived=True, ref_id="run-2")) == [row for row in fresh if row.ref_id == "run-2"]
    assert as_rows(store.read_archive(day(1))) == archived[10:]
    late = append(store, at(20), "late")
    with pytest.raises(ns.ArchiveError, match=r"reindex\(\)"):
        store.archive_logs(now=NOW)
    assert as_rows(store.read_archive(day(20))) == [late]
    # The ten that have ids of their own have left; the others stay, and no file has got an id twice.
    assert database_rows(store) == fresh[:10]
    assert as_rows(store.read_archive(day(50))) == fresh[10:]


def test_verification_names_the_ids(conflicted: tuple[ns.LogStore, list[Row], list[Row]]) -> None:
    store, _, _ = conflicted
    (problem,) = [problem for problem in store.verify().problems if problem.day == day(1)]
    assert (problem.first_id, problem.last_id) == (11, 20)
    assert "reindex()" in problem.reason


def test_rebuilding_gives_the_rows_of_the_database_new_ids_in_their_order(
    conflicted: tuple[ns.LogStore, list[Row], list[Row]], caplog: pytest.LogCaptureFixture
) -> None:
    store, archived, fresh = conflicted
    store.reindex()
    assert "new ids" in caplog.text
    found = as_rows(store.query(archived=True))
    assert found[:20] == archived
    moved = found[20:]
    assert [row._replace(id=0) for row in moved] == [row._replace(id=0) for row in fresh]
    assert moved[0].id > fresh[-1].id
    assert store.verify().ok
    assert store.count(archived=True) == 40
    of_run = [row for row in found if row.ref_id == "run-1"]
    numbers = [*range(20), *(n + 100 for n in range(11, 31, 2))]
    assert [entry.content for entry in store.get_thread_messages("run-1")] == [f"message {n}" for n in numbers]
    assert store.get_thread_round_count("run-1") == len(of_run)
    assert [item.log_id for item in store.get_thread_rounds("run-1", limit=100)] == [row.id for row in of_run][::-1]
    late = append(store, at(51))
    assert late.id > moved[-1].id
    store.archive_logs(now=NOW)
    assert as_rows(store.query(archived=True)) == [*found, late]
    assert store.verify().ok
    before = as_rows(store.query(archived=True))
    store.reindex()
    assert as_rows(store.query(archived=True)) == before


def test_state_changes_keep_their_order_under_new_ids(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        archived = [append(store, at(0, n)) for n in range(4)]
        store.archive_logs(now=NOW)
    fresh = [
        Row(2, "workflow", "started", "run", '{"prompt": "p", "maxRounds": 3}', at(50)),
        Row(9, "workflow", "completed", "run", None, at(50)),
    ]
    foreign_many(path, INSERT_ROW_WITH_ID, fresh)
    with ns.LogStore(path) as store:
        store.reindex()
        history = [as_row(entry) for entry in store.query(ref_id="run", archived=True)]
        assert [row.type for row in history] == ["started", "completed"]
        assert history[0].id > archived[-1].id
        assert store.get_trigger_payload("run") == {"prompt": "p", "maxRounds": 3, "dryRun": False}
        assert gained(store.archive_logs(now=NOW)) == {day(50): 2}


def test_rows_that_are_the_same_in_both_places_keep_their_ids(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        rows = [append(store, at(n // 3, n), "run") for n in range(9)]
        store.archive_logs(now=NOW)
        assert store.restore_archive(day(1)) == 3
    other = Row(2, "system", "tick", None, "another", at(50))
    foreign_sql(path, INSERT_ROW_WITH_ID, other)
    with ns.LogStore(path) as store:
        store.reindex()
        found = as_rows(store.query(archived=True))
        assert found[:9] == rows
        assert found[9] == other._replace(id=found[9].id)
        assert {row.id for row in database_rows(store)} == {4, 5, 6, found[9].id}
        assert store.verify().ok
