"""Opening and closing a store: its files, its paths, several handles on one database."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

import nerve_store as ns
from reference import MAX_TIMESTAMP
from support import INSERT_ROW, foreign_many, foreign_script, foreign_sql


def test_new_directories_and_files_are_the_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with ns.Store(tmp_path / "a" / "b" / "data") as store:
            store.logs.append("system", "tick", timestamp=0)
            store.logs.archive_logs()
            store.blobs.write("text")
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
            kinds = {path.suffix or path.name for path in modes}
    finally:
        os.umask(old)
    assert {".db", ".jsonl", "blobs", "archive"} <= kinds
    assert {oct(mode) for path, mode in modes.items() if path.is_dir()} == {"0o700"}
    assert {oct(mode) for path, mode in modes.items() if path.is_file() and path.suffix} == {"0o600"}


def test_a_store_takes_a_path_object_or_text(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir.mkdir()
    with ns.LogStore(data_dir / "logs.db") as store:
        store.append("system", "tick")
    with ns.LogStore(str(data_dir / "logs.db")) as store:
        assert store.count() == 1
    monkeypatch.chdir(data_dir)
    with ns.LogStore("logs.db") as store:
        assert store.count() == 1
        monkeypatch.chdir("/")
        assert store.append("system", "tick").id == 2
        store.archive_logs(now=MAX_TIMESTAMP)
        assert len(store.archived_days()) == 1
    assert sorted(path.name for path in data_dir.iterdir()) == ["archive", "logs.db"]


@pytest.mark.parametrize(
    "name",
    ["a?b#c%20d", "file:x?mode=ro", ":memory:", 'it\'s "quoted"', "工作 🧠", os.fsdecode(b"\xff\xfe"), " ", "-wal"],
)
def test_any_file_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / name
    with ns.LogStore(path) as store:
        store.append("system", "tick", timestamp=0)
        store.append("system", "tick", timestamp=MAX_TIMESTAMP)
        store.archive_logs()
    with ns.LogStore(path) as store:
        assert Path(store.path) == path
        assert store.count() == 1
        assert [day.row_count for day in store.archived_days()] == [1]
    assert sorted(item.name for item in path.parent.iterdir()) == sorted([name, "archive"])
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_default_archive_directory_is_beside_the_database(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        assert Path(store.path).samefile(data_dir / "logs.db")
        assert Path(store.archive_dir) == (data_dir / "archive" / "logs").resolve()


def test_archive_directory_may_be_elsewhere(data_dir: Path, tmp_path: Path) -> None:
    with ns.LogStore(data_dir / "logs.db", archive_dir=tmp_path / "cold") as store:
        store.append("system", "tick", timestamp=0)
        store.archive_logs()
    assert (tmp_path / "cold" / "1970-01-01.jsonl").is_file()
    assert not (data_dir / "archive").exists()


def test_directory_may_be_reached_through_a_symbolic_link(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir()
    (tmp_path / "link").symlink_to(data_dir)
    with ns.Store(tmp_path / "link") as store:
        store.logs.append("system", "tick")
    with ns.Store(data_dir) as store:
        assert store.logs.count() == 1


def test_closing_leaves_one_file_and_may_be_repeated(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.append("system", "tick")
    assert not store.closed
    store.close()
    store.close()
    assert store.closed
    assert [path.name for path in data_dir.iterdir()] == ["logs.db"]


def test_leaving_the_context_closes(data_dir: Path) -> None:
    with ns.Store(data_dir) as store:
        assert not store.logs.closed
    assert store.logs.closed
    with pytest.raises(KeyError), ns.LogStore(data_dir / "logs.db") as logs:
        raise KeyError
    assert logs.closed


def test_two_stores_of_one_process_share_a_database(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as first:
        first.append("system", "first", timestamp=0)
        with ns.LogStore(path) as second:
            second.append("system", "second", timestamp=0)
            assert [entry.type for entry in first.query()] == ["first", "second"]
        first.append("system", "third", timestamp=0)
        assert foreign_sql(path, "SELECT count(*) FROM logs") == [(3,)]


@pytest.mark.parametrize("segment_rows", [2, 7, 1_000])
def test_stores_that_append_in_turns_seal_every_row_once(data_dir: Path, segment_rows: int) -> None:
    path = data_dir / "logs.db"
    expected: list[ns.LogEntry] = []
    with ns.LogStore(path, segment_rows=segment_rows) as first, ns.LogStore(path, segment_rows=segment_rows) as second:
        for turn in range(60):
            store = (first, second)[turn % 2]
            rows = [("workflow", "thread_workflow_message", f"run-{turn % 3}", '{"role":"a","content":""}', turn)]
            rows *= 1 + turn % 5 * 4
            expected += [ns.LogEntry(id, *row) for id, row in zip(store.append_many(rows), rows, strict=True)]
            if turn % 7 == 0:
                with pytest.raises(ValueError, match="surrogates"):
                    store.append_many([*rows, ("\ud800", "", None, None, 0)])
        for store in (first, second):
            assert store.query() == expected
            for run in range(3):
                mine = [entry for entry in expected if entry.ref_id == f"run-{run}"]
                assert store.query(ref_id=f"run-{run}") == mine
                rounds = store.get_thread_rounds(f"run-{run}", limit=1_000)
                assert [(one.round, one.log_id) for one in reversed(rounds)] == [
                    (number, entry.id) for number, entry in enumerate(mine, 1)
                ]
            assert store.verify().ok
        segments = foreign_sql(path, "SELECT first_id, last_id FROM log_segments ORDER BY first_id")
    assert len(segments) == len(expected) // segment_rows
    assert all(last - first == segment_rows - 1 for first, last in segments)


def test_read_only_store_reads_and_refuses_to_write(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as writer, ns.LogStore(path, read_only=True) as reader:
        assert reader.read_only
        assert not writer.read_only
        entry = writer.append("system", "tick")
        assert reader.query() == [entry]
        with pytest.raises(ns.NerveStoreError):
            reader.append("system", "tick")
        with pytest.raises(ns.NerveStoreError):
            reader.set_meta("a", "b")
        with pytest.raises(ns.NerveStoreError):
            reader.archive_logs()
        assert writer.query() == [entry]
    assert sorted(item.name for item in data_dir.iterdir()) == ["logs.db"]


def test_database_left_by_a_killed_process_is_opened(data_dir: Path, tmp_path: Path) -> None:
    """A write-ahead log that no close has folded into the database, without its index."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with ns.LogStore(data_dir / "logs.db") as store:
        entry = store.append("system", "tick")
        # In another process: closing a file of a live database here would drop the store's locks on it.
        files = [str(data_dir / name) for name in ("logs.db", "logs.db-wal")]
        subprocess.run(["cp", *files, str(copy)], check=True)
    with ns.LogStore(copy / "logs.db", read_only=True) as store:
        assert store.query() == [entry]
    with ns.LogStore(copy / "logs.db") as store:
        assert store.query() == [entry]
    assert [path.name for path in copy.iterdir()] == ["logs.db"]


def test_database_written_by_others_in_rollback_mode_is_opened(data_dir: Path) -> None:
    data_dir.mkdir()
    path = data_dir / "logs.db"
    foreign_script(
        path,
        """
        CREATE TABLE logs (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, type TEXT NOT NULL,
          ref_id TEXT, payload TEXT, timestamp INTEGER NOT NULL);
        """,
    )
    foreign_many(path, INSERT_ROW, [("system", "tick", None, None, n) for n in range(10)])
    with ns.LogStore(path) as store:
        assert store.count() == 10
        assert store.append("system", "tick").id == 11


def test_path_objects_of_every_kind_are_taken(tmp_path: Path) -> None:
    class Fspath:
        def __fspath__(self) -> str:
            return str(tmp_path / "logs.db")

    with ns.LogStore(Fspath()) as store:
        assert store.append("system", "tick").id == 1
