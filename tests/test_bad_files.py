"""Paths, files and databases that are not what a store needs are refused, and left as they are."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

import nerve_store as ns
from support import closed_store, foreign_script, foreign_sql, refused, tree


def test_path_of_another_type_is_a_type_error() -> None:
    for value in (None, 7, ["logs.db"], object()):
        refused(TypeError, ns.LogStore, value)
        refused(TypeError, ns.BlobStore, value)
        refused(TypeError, ns.Store, value)


def test_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    refused((ValueError, ns.StoreIOError), lambda: ns.LogStore(f"{tmp_path}/a\0b"))
    assert list(tmp_path.iterdir()) == []


def test_path_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "logs.db").mkdir()
    error = refused(ns.StoreIOError, lambda: ns.LogStore(tmp_path / "logs.db"))
    assert isinstance(error, OSError)
    assert error.errno == errno.EISDIR
    assert str(tmp_path / "logs.db") in str(error)
    assert list((tmp_path / "logs.db").iterdir()) == []


def test_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for call, path in ((ns.LogStore, tmp_path / "file" / "logs.db"), (ns.Store, tmp_path / "file")):
        error = refused(ns.StoreIOError, call, path)
        assert isinstance(error, OSError)
        assert error.errno in (errno.ENOTDIR, errno.EEXIST)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("name", ["symbolic link", "dangling link", "fifo", "socket"])
def test_database_that_is_no_regular_file_is_refused(tmp_path: Path, name: str) -> None:
    path, target = tmp_path / "logs.db", tmp_path / "target.db"
    if "link" in name:
        path.symlink_to(target)
    elif name == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    if name == "symbolic link":
        with ns.LogStore(target) as store:
            store.append("system", "tick", timestamp=0)
    before = tree(tmp_path)
    for read_only in (False, True):
        error = refused(ns.StoreIOError, ns.LogStore, path, read_only=read_only)
        assert isinstance(error, OSError)
        assert error.errno == (errno.ELOOP if "link" in name else errno.EINVAL)
    assert tree(tmp_path) == before
    assert target.exists() == (name == "symbolic link")


def test_read_only_store_of_a_missing_database_creates_nothing(tmp_path: Path) -> None:
    for path in (tmp_path / "logs.db", tmp_path / "missing" / "logs.db"):
        error = refused(ns.StoreIOError, ns.LogStore, path, read_only=True)
        assert isinstance(error, OSError)
        assert error.errno == errno.ENOENT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"this is no database, but a text\n" * 100,
        b"\0" * 4096,
        os.urandom(8192),
        b"x",
        b"SQLite format 3\0" + b"\xff" * 8176,
        b"\x28\xb5\x2f\xfd" + b"\0" * 100,
    ],
    ids=["text", "zeros", "random", "one byte", "header then garbage", "zstd"],
)
def test_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "logs.db"
    path.write_bytes(content)
    for read_only in (False, True):
        error = refused(ns.CorruptStoreError, ns.LogStore, path, read_only=read_only)
        assert isinstance(error, ns.CorruptStoreError)
        assert str(path) in str(error)
        assert error.path is not None
        assert Path(error.path) == path
    assert path.read_bytes() == content
    assert [item.name for item in tmp_path.iterdir()] == ["logs.db"]


def test_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "logs.db").touch()
    with ns.LogStore(tmp_path / "logs.db") as store:
        assert store.append("system", "tick").id == 1


def test_truncated_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("system", "tick", None, "x" * 500, n) for n in range(1000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])

    def read() -> None:
        with ns.LogStore(path) as store:
            store.query()

    refused(ns.CorruptStoreError, read)


def test_damaged_page_is_reported_by_the_read_that_meets_it(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("system", "tick", None, "x" * 500, n) for n in range(1000)])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xa5" * 4096
    path.write_bytes(content)

    def open_and_read() -> None:
        with ns.LogStore(path) as store:
            store.query()

    assert str(path) in str(refused(ns.CorruptStoreError, open_and_read))
    assert path.read_bytes()[middle : middle + 4096] == b"\xa5" * 4096


def row_of_another_program(path: Path, column: str, expression: str) -> None:
    values = {"source": "'s'", "type": "'t'", "ref_id": "NULL", "payload": "NULL", "timestamp": "0", column: expression}
    foreign_sql(path, f"INSERT INTO logs ({', '.join(values)}) VALUES ({', '.join(values.values())})")


@pytest.mark.parametrize(
    ("column", "expression"),
    [
        ("payload", "x'00ff'"),
        ("payload", "CAST(x'ff' AS TEXT)"),
        ("source", "x'00'"),
        ("type", "CAST(x'c328' AS TEXT)"),
        ("ref_id", "x'00'"),
        ("timestamp", "'yesterday'"),
    ],
)
def test_row_that_cannot_be_a_row_of_ours_is_reported_by_its_id(
    log_store: ns.LogStore, column: str, expression: str
) -> None:
    log_store.append("system", "before", timestamp=0)
    row_of_another_program(Path(log_store.path), column, expression)
    log_store.append("system", "after", timestamp=0)
    error = refused(ns.CorruptStoreError, log_store.query)
    assert "2" in str(error)
    assert column in str(error)
    assert [entry.id for entry in log_store.query(after_id=2)] == [3]
    assert [entry.id for entry in log_store.query(before_id=2)] == [1]
    assert log_store.sql("SELECT count(*) FROM logs") == [(3,)]


# --- other people's databases ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "marks",
    [
        "PRAGMA user_version = 999",
        "PRAGMA user_version = 2147483647",
        "PRAGMA application_id = 305419896",
        "PRAGMA application_id = 305419896; PRAGMA user_version = 0",
    ],
)
def test_newer_or_other_database_is_refused_and_untouched(tmp_path: Path, marks: str) -> None:
    path = tmp_path / "logs.db"
    closed_store(path)
    foreign_script(path, marks)
    before = tree(tmp_path)
    for read_only in (False, True):
        error = refused(ns.SchemaVersionError, ns.LogStore, path, read_only=read_only)
        assert isinstance(error, ns.SchemaVersionError)
        assert str(path) in str(error)
        assert isinstance(error.supported, int)
        assert error.found == foreign_sql(path, "PRAGMA user_version")[0][0]
        assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE notes (text TEXT)",
        "CREATE TABLE logs (line TEXT)",
        "CREATE TABLE logs (id INTEGER PRIMARY KEY, source TEXT, type TEXT, ref_id TEXT, payload TEXT)",
        "PRAGMA user_version = 7; CREATE TABLE notes (text TEXT)",
    ],
)
def test_database_with_other_tables_is_refused_and_untouched(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "logs.db"
    foreign_script(path, schema)
    before = tree(tmp_path)
    for read_only in (False, True):
        refused(ns.NerveStoreError, ns.LogStore, path, read_only=read_only)
        assert tree(tmp_path) == before


def test_database_of_upstream_before_exit_codes_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    foreign_script(
        path,
        """
        CREATE TABLE logs (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, type TEXT NOT NULL,
          ref_id TEXT, payload TEXT, timestamp INTEGER NOT NULL);
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
        CREATE TABLE workflow_runs (run_id TEXT PRIMARY KEY, workflow TEXT NOT NULL, status TEXT NOT NULL,
          timestamp INTEGER NOT NULL);
        INSERT INTO workflow_runs VALUES ('run-1', 'deploy', 'started', 5);
        """,
    )
    with ns.LogStore(path) as store:
        assert store.transition("run-1", "completed", exit_code=0).exit_code == 0


def test_trigger_in_the_database_cannot_do_harm(log_store: ns.LogStore) -> None:
    """A trigger that another program left in the file either works as SQL or fails the append; it loses no row."""
    foreign_script(log_store.path, "CREATE TRIGGER t AFTER INSERT ON logs BEGIN SELECT RAISE(ABORT, 'no'); END")
    refused(ns.NerveStoreError, lambda: log_store.append("system", "tick"))
    assert log_store.count() == 0
    foreign_sql(log_store.path, "DROP TRIGGER t")
    assert log_store.append("system", "tick").id == 1
