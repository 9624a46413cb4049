"""Every wrong thing that can be given to the store gets its own clear error, and nothing is changed."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import DAY_MS, MAX_TIMESTAMP
from support import (
    INSERT_ROW,
    LOG_STORE_CALLS,
    LOG_STORE_READS,
    LOG_STORE_WRITES,
    as_rows,
    database_rows,
    foreign_script,
    foreign_sql,
    is_one_line,
    public_methods,
    read_only_directory,
    tiny_disk,
    tree,
)

LONE_SURROGATES = ("\ud800", "a\udfff", "\ud83e x", "x" * 5000 + "\udc00")
NOT_TEXT: tuple[Any, ...] = (b"bytes", 7, 1.5, True, ["x"], object())
NOT_A_TIMESTAMP: tuple[Any, ...] = (
    1.0,
    1.5,
    float("nan"),
    True,
    False,
    "1",
    b"1",
    [1],
    datetime(2026, 1, 1, tzinfo=UTC),
    date(2026, 1, 1),
)
OUT_OF_RANGE = (-1, MAX_TIMESTAMP + 1, -(2**63), 2**63 - 1, 2**63, -(2**63) - 1, 2**200)


@pytest.fixture
def kept(log_store: ns.LogStore) -> Iterator[ns.LogStore]:
    """A store with a row, a run and a meta value, of which a test must leave everything as it is."""
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
    log_store.upsert_workflow_run(("workflow", "started", "run-1", "{}", 1), run)
    log_store.set_meta("key", "value")
    rows = log_store.query()
    yield log_store
    assert log_store.query() == rows
    assert log_store.get_all_workflow_runs() == [run]
    assert log_store.sql("SELECT * FROM meta") == [("key", "value")]
    assert not Path(log_store.archive_dir).exists()
    assert log_store.append("system", "next", timestamp=0).id == 2


def refused(
    expected: type[Exception] | tuple[type[Exception], ...], call: Callable[..., object], *arguments: Any, **named: Any
) -> Exception:
    """The error that `call` raises, which must be one of `expected` and print on one line."""
    with pytest.raises(expected) as raised:
        call(*arguments, **named)
    assert is_one_line(raised.value)
    return raised.value


# --- rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NOT_TEXT, ids=lambda value: type(value).__name__)
def test_text_of_another_type_is_a_type_error(kept: ns.LogStore, value: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.append(value, "type"),
        lambda: kept.append("source", value),
        lambda: kept.append("source", "type", value),
        lambda: kept.append("source", "type", None, value),
        lambda: kept.append_many([("source", "type", None, value, 1)]),
        lambda: kept.append_many([("source", value, None, None, 1)]),
        lambda: ns.NewLogEntry(value, "type"),
        lambda: ns.NewLogEntry("source", "type", value),
        lambda: ns.LogEntry(1, "source", "type", None, value, 1),
        lambda: kept.query(source=value),
        lambda: kept.query(type=value),
        lambda: kept.iter(ref_id=value),
        lambda: kept.count(ref_id=value),
        lambda: kept.sql(value),
        lambda: kept.get_meta(value),
        lambda: kept.set_meta(value, "x"),
        lambda: kept.set_meta("key", value),
        lambda: kept.transition(value, "started"),
        lambda: kept.transition("run-1", "completed", payload=value),
        lambda: kept.get_workflow_run(value),
        lambda: kept.get_all_workflow_runs(value),
        lambda: kept.get_active_workflow_runs(value),
        lambda: kept.get_trigger_payload(value),
        lambda: kept.get_thread_events(value),
        lambda: kept.get_thread_messages(value),
        lambda: kept.get_thread_round_count(value),
        lambda: kept.get_thread_rounds(value, limit=1),
    ]
    for call in calls:
        refused(TypeError, call)


def test_required_text_may_not_be_none(kept: ns.LogStore) -> None:
    none: Any = None
    calls: list[Callable[[], object]] = [
        lambda: kept.append(none, "type"),
        lambda: kept.append("source", none),
        lambda: kept.append_many([(none, "type", None, None, 1)]),
        lambda: kept.set_meta("key", none),
        lambda: kept.get_meta(none),
        lambda: kept.get_workflow_run(none),
        lambda: kept.transition("run-1", none),
        lambda: kept.get_thread_messages(none),
    ]
    for call in calls:
        refused(TypeError, call)


@pytest.mark.parametrize("text", LONE_SURROGATES, ids=range(len(LONE_SURROGATES)))
def test_lone_surrogate_is_a_value_error(kept: ns.LogStore, text: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.append(text, "type"),
        lambda: kept.append("source", text),
        lambda: kept.append("source", "type", text),
        lambda: kept.append("source", "type", None, text),
        lambda: kept.append_many([("source", "type", None, None, 1), ("source", "type", None, text, 1)]),
        lambda: kept.append_many([ns.NewLogEntry("source", "type", None, text, 1)]),
        lambda: kept.set_meta(text, "x"),
        lambda: kept.set_meta("key", text),
        lambda: kept.transition("run-1", "completed", payload=text),
        lambda: kept.transition(text, "completed"),
        lambda: kept.upsert_workflow_run(
            ("workflow", "completed", text, None, 1),
            ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1),
        ),
        lambda: kept.upsert_workflow_run(
            ("workflow", "completed", "run-1", None, 1),
            ns.WorkflowRun(text, "deploy", ns.WorkflowRunStatus.COMPLETED, 1),
        ),
    ]
    for call in calls:
        refused(ValueError, call)


def test_lone_surrogate_in_a_filter_is_a_value_error(kept: ns.LogStore) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.query(ref_id="\ud800"),
        lambda: kept.count(source="\ud800"),
        lambda: kept.iter(type="\ud800"),
        lambda: kept.get_meta("\ud800"),
        lambda: kept.get_workflow_run("\ud800"),
        lambda: kept.get_thread_messages("\ud800"),
        lambda: kept.sql("SELECT '\ud800'"),
        lambda: kept.sql("SELECT ?", ("\ud800",)),
    ]
    for call in calls:
        refused(ValueError, call)


@pytest.mark.parametrize("value", NOT_A_TIMESTAMP, ids=repr)
def test_timestamp_that_is_no_integer_is_a_type_error(kept: ns.LogStore, value: Any) -> None:
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1)
    calls: list[Callable[[], object]] = [
        lambda: kept.append("source", "type", timestamp=value),
        lambda: kept.append_many([("source", "type", None, None, 1), ("source", "type", None, None, value)]),
        lambda: kept.append_many([ns.NewLogEntry("source", "type", timestamp=value)]),
        lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", None, value), run),
        lambda: kept.transition("run-1", "completed", timestamp=value),
        lambda: kept.query(since=value),
        lambda: kept.iter(until=value),
        lambda: kept.count(since=value),
        lambda: kept.archive_logs(now=value),
        lambda: ns.utc_day(value),
        lambda: ns.last_archivable_day(value),
    ]
    for call in calls:
        refused(TypeError, call)


@pytest.mark.parametrize("value", OUT_OF_RANGE)
def test_timestamp_outside_of_1970_to_9999_is_a_value_error(kept: ns.LogStore, value: int) -> None:
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1)
    late_run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, value)
    calls: list[Callable[[], object]] = [
        lambda: kept.append("source", "type", timestamp=value),
        lambda: kept.append_many([("source", "type", None, None, 1), ("source", "type", None, None, value)]),
        lambda: kept.append_many([ns.NewLogEntry("source", "type", timestamp=value)]),
        lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", None, value), run),
        lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", None, 1), late_run),
        lambda: kept.transition("run-1", "completed", timestamp=value),
        lambda: kept.archive_logs(now=value),
        lambda: ns.utc_day(value),
        lambda: ns.last_archivable_day(value),
    ]
    for call in calls:
        refused(ValueError, call)


def test_time_helpers_know_their_bounds() -> None:
    assert ns.utc_day(0) == date(1970, 1, 1)
    assert ns.utc_day(DAY_MS - 1) == date(1970, 1, 1)
    assert ns.utc_day(DAY_MS) == date(1970, 1, 2)
    assert ns.utc_day(951_782_400_000) == date(2000, 2, 29)
    assert ns.utc_day(MAX_TIMESTAMP) == date.max
    assert ns.last_archivable_day(DAY_MS) == date(1970, 1, 1)
    assert ns.last_archivable_day(2 * DAY_MS - 1) == date(1970, 1, 1)
    assert ns.last_archivable_day(MAX_TIMESTAMP) == date(9999, 12, 30)
    for boundary in (0, DAY_MS - 1):
        refused(ValueError, ns.last_archivable_day, boundary)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0" * 64, "0" * 64),
        ("AB" * 32, "ab" * 32),
        ("aB" * 32, "ab" * 32),
        ("", None),
        ("0" * 63, None),
        ("0" * 65, None),
        ("g" * 64, None),
        ("../" + "0" * 61, None),
        ("0" * 63 + "\n", None),
        (" " + "0" * 63, None),
        ("\u0660" * 64, None),
        ("\ud800" * 64, None),
    ],
)
def test_blob_hash_is_64_hexadecimal_digits(text: str, expected: str | None) -> None:
    try:
        assert ns.normalize_blob_hash(text) == expected
    except ValueError:
        assert "\ud800" in text


def test_blob_hash_of_another_type_is_a_type_error() -> None:
    for value in (None, b"0" * 64, 7):
        refused(TypeError, ns.normalize_blob_hash, value)


def test_row_that_is_no_row_is_refused_with_its_index(kept: ns.LogStore) -> None:
    good = ("source", "type", None, None, 1)
    bad: list[Any] = [
        None,
        "abcde",
        b"abcde",
        7,
        (),
        ("source",),
        ("source", "type"),
        ("source", "type", None, None),
        ("source", "type", None, None, 1, 2),
        {"source": "s", "type": "t"},
        object(),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1),
    ]
    for row in bad:
        error = refused((TypeError, ValueError), kept.append_many, [good, good, good, row, good])
        assert "3" in str(error), f"{row!r}: {error}"


def test_error_in_a_row_names_its_index(kept: ns.LogStore) -> None:
    good = ("source", "type", None, None, 1)
    for row in (("source", "type", None, None, -1), ("source", "\ud800", None, None, 1), ("source", 7, None, None, 1)):
        rows: Any = [good] * 41 + [row]
        error = refused((TypeError, ValueError), kept.append_many, rows)
        assert "41" in str(error)


def test_append_many_of_what_cannot_be_iterated(kept: ns.LogStore) -> None:
    for value in (None, 7, ns.NewLogEntry("source", "type")):
        refused(TypeError, kept.append_many, value)


def test_iterable_that_raises_leaves_nothing_behind(kept: ns.LogStore) -> None:
    def rows() -> Iterator[tuple[str, str, None, None, int]]:
        for _ in range(5_000):
            yield ("source", "type", None, None, 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kept.append_many(rows())


def test_wrong_arguments_are_type_errors(kept: ns.LogStore) -> None:
    store: Any = kept
    calls: list[Callable[..., object]] = [
        store.append,
        lambda: store.append("source"),
        lambda: store.append("source", "type", None, None, None, "full"),
        lambda: store.append("source", "type", colour="red"),
        lambda: store.query("workflow"),
        lambda: store.query(archived_by="me"),
        lambda: store.get_thread_rounds("run-1"),
        lambda: store.get_thread_rounds("run-1", 0, 5),
        lambda: store.archive_logs(1_800_000_000_000),
        lambda: store.transition("run-1"),
        ns.LogStore,
    ]
    for call in calls:
        refused(TypeError, call)


@pytest.mark.parametrize("durability", ["FULL", "", "none", "full ", 1, True, b"full"])
def test_unknown_durability_is_refused(kept: ns.LogStore, tmp_path: Path, durability: Any) -> None:
    expected = ValueError if isinstance(durability, str) else TypeError
    refused(expected, lambda: kept.append("source", "type", durability=durability))
    refused(expected, lambda: kept.append_many([("source", "type", None, None, 1)], durability=durability))
    refused(expected, lambda: kept.transition("run-1", "completed", durability=durability))
    refused(expected, lambda: ns.LogStore(tmp_path / "other" / "logs.db", durability=durability))
    refused(expected, lambda: ns.Store(tmp_path / "other", durability=durability))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("value", [-1, -(2**63), 2**64, 1.5, "1", True])
def test_limit_is_a_count(kept: ns.LogStore, value: Any) -> None:
    expected = ValueError if type(value) is int else TypeError
    refused(expected, lambda: kept.query(limit=value))
    refused(expected, lambda: kept.iter(limit=value))
    refused(expected, lambda: kept.count(limit=value))
    refused(expected, lambda: kept.get_thread_rounds("run-1", limit=value))
    refused(expected, lambda: kept.get_thread_rounds("run-1", before=value, limit=1))
    refused(expected, lambda: kept.archive_logs(max_days=value))


@pytest.mark.parametrize("value", [1.5, "1", True, [1]])
def test_id_bound_of_another_type_is_a_type_error(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: kept.query(after_id=value))
    refused(TypeError, lambda: kept.iter(before_id=value))


@pytest.mark.parametrize("value", [30, 30.0, "30", None, date(2026, 1, 1)])
def test_retention_is_a_timedelta(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: kept.archive_logs(retention=value))


def test_negative_retention_is_refused(kept: ns.LogStore) -> None:
    """It would archive what is still to come."""
    refused(ValueError, lambda: kept.archive_logs(retention=timedelta(days=-1)))
    refused(ValueError, lambda: kept.archive_logs(now=MAX_TIMESTAMP, retention=timedelta.min))


def test_progress_must_be_callable(kept: ns.LogStore) -> None:
    refused(TypeError, lambda: kept.archive_logs(progress=7))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["2026-01-01", 20260101, None, 1.5])
def test_read_archive_takes_a_date(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: list(kept.read_archive(value)))


def test_days_before_1970_are_not_in_the_archive(kept: ns.LogStore) -> None:
    for day in (date.min, date(1969, 12, 31)):
        refused((ns.ArchiveError, ValueError), kept.read_archive, day)


@pytest.mark.parametrize("value", [1.5, "0", True, b"0", [0]])
def test_exit_code_is_an_integer(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: kept.transition("run-1", "failed", exit_code=value))
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.FAILED, 1, value)
    refused(TypeError, lambda: kept.upsert_workflow_run(("workflow", "failed", "run-1", None, 1), run))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**200])
def test_exit_code_has_64_bits(kept: ns.LogStore, value: int) -> None:
    refused(ValueError, lambda: kept.transition("run-1", "failed", exit_code=value))


# --- statuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["paused", "", "STARTED", "started ", "completed\0"])
def test_unknown_status_is_a_value_error(kept: ns.LogStore, status: str) -> None:
    error = refused(ValueError, lambda: kept.transition("run-1", status))
    assert not isinstance(error, ns.IllegalTransitionError)
    refused(ValueError, lambda: kept.transition("run-1", "completed", expect=status))
    refused(ValueError, lambda: kept.transition("run-1", "completed", expect=["started", status]))
    refused(ValueError, lambda: ns.WorkflowRun("run-1", "deploy", status, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [None, 7, b"started", True])
def test_status_of_another_type_is_refused(kept: ns.LogStore, status: Any) -> None:
    refused(TypeError, lambda: kept.transition("run-1", status))
    refused((TypeError, ValueError), lambda: ns.WorkflowRun("run-1", "deploy", status, 1))
    if status is not None:
        refused(TypeError, lambda: kept.transition("run-1", "completed", expect=status))
        refused(TypeError, lambda: kept.transition("run-1", "completed", expect=["started", status]))


def test_illegal_transition_changes_nothing(kept: ns.LogStore) -> None:
    error = refused(ns.IllegalTransitionError, lambda: kept.transition("run-1", "queued"))
    assert isinstance(error, ns.IllegalTransitionError)
    assert (error.run_id, error.from_status, error.to_status) == ("run-1", "started", "queued")
    assert set(error.allowed) >= {"completed", "failed", "crashed", "interrupted", "dropped", "killed"}


# --- size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["x", "é", "🧠"])
def test_payload_over_the_limit_is_refused_before_anything_is_written(data_dir: Path, unit: str) -> None:
    size = len(unit.encode())
    with ns.LogStore(data_dir / "logs.db", max_payload_bytes=120) as store:
        fits, over = unit * (120 // size), unit * (120 // size) + "x"
        assert store.append("source", "type", None, fits, 1).payload == fits
        error = refused(ValueError, lambda: store.append("source", "type", None, over, 1))
        assert "120" in str(error)
        error = refused(ValueError, lambda: store.append_many([("s", "t", None, fits, 1), ("s", "t", None, over, 1)]))
        assert "120" in str(error)
        assert "1" in str(error)
        run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
        refused(ValueError, lambda: store.upsert_workflow_run(("workflow", "started", "run-1", over, 1), run))
        store.upsert_workflow_run(("workflow", "started", "run-1", fits, 1), run)
        refused(ValueError, lambda: store.transition("run-1", "completed", payload=over))
        assert store.get_all_workflow_runs() == [run]
        assert store.count() == 2
        # The limit is of what is written: rows that are there are read.
    with ns.LogStore(data_dir / "logs.db", max_payload_bytes=10) as store:
        assert store.query(limit=1)[0].payload == fits


def test_default_limit_is_64_mebibytes(log_store: ns.LogStore) -> None:
    limit = 64 << 20
    refused(ValueError, lambda: log_store.append("source", "type", None, "x" * (limit + 1), 1))
    assert log_store.count() == 0
    assert log_store.append("source", "type", None, "x" * limit, 1).id == 1


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, 2**70])
def test_limit_of_a_payload_is_a_size(data_dir: Path, value: Any) -> None:
    expected = ValueError if type(value) is int else TypeError
    refused(expected, lambda: ns.LogStore(data_dir / "logs.db", max_payload_bytes=value))
    assert not data_dir.exists()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", 1e300])
def test_busy_timeout_is_a_number_of_seconds(data_dir: Path, value: Any) -> None:
    refused(
        TypeError if isinstance(value, str) else ValueError,
        lambda: ns.LogStore(data_dir / "logs.db", busy_timeout=value),
    )
    assert not data_dir.exists()


# --- paths -------------------------------------------------------------------------------------------------------


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


def closed_store(path: Path) -> None:
    with ns.LogStore(path) as store:
        store.append("system", "tick", timestamp=0)


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


# --- disks -------------------------------------------------------------------------------------------------------


def test_read_only_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ns.Store(data) as store:
        row = store.logs.append("system", "tick", timestamp=0)
        digest = store.blobs.write("text")
    with read_only_directory(data):
        before = tree(data)
        error = refused(ns.StoreIOError, lambda: ns.LogStore(data / "new.db"))
        assert isinstance(error, OSError)
        assert error.errno == errno.EROFS
        error = refused(ns.StoreIOError, lambda: ns.LogStore(data / "logs.db"))
        assert isinstance(error, OSError)
        assert error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        blobs = ns.BlobStore(data / "blobs")
        assert blobs.read(digest) == b"text"
        error = refused(ns.StoreIOError, lambda: blobs.write("other"))
        assert isinstance(error, OSError)
        assert error.errno == errno.EROFS
        assert tree(data) == before
    with ns.LogStore(data / "logs.db") as logs:
        assert logs.query() == [row]
        assert logs.append("system", "tick").id == 2


def test_directory_that_becomes_read_only_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ns.LogStore(data / "logs.db") as store:
        row = store.append("system", "tick", timestamp=0)
    with read_only_directory(data):
        try:
            reader = ns.LogStore(data / "logs.db", read_only=True)
        except ns.StoreIOError:
            return  # SQLite cannot share memory there; the error says so
        with reader:
            assert reader.query() == [row]


def fill_up(store: ns.LogStore, *, rows_per_call: int) -> tuple[list[int], Exception]:
    """Append until the disk is full: the acknowledged ids and the error."""
    acknowledged: list[int] = []
    for number in range(10_000):
        try:
            rows = [("system", "tick", None, f"{number} {'x' * 2000}", n) for n in range(rows_per_call)]
            acknowledged += store.append_many(rows) if rows_per_call > 1 else [store.append(*rows[0]).id]
        except ns.NerveStoreError as error:
            return acknowledged, error
    pytest.fail("the disk did not fill up")


@pytest.mark.parametrize("rows_per_call", [1, 30])
def test_full_disk_acknowledges_nothing_and_reads_go_on(tmp_path: Path, rows_per_call: int) -> None:
    with tiny_disk(tmp_path / "disk", "1m") as resize:
        path = tmp_path / "disk" / "logs.db"
        with ns.LogStore(path) as store:
            run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
            store.upsert_workflow_run(("workflow", "started", "run-1", None, 1), run)
            acknowledged, error = fill_up(store, rows_per_call=rows_per_call)
            assert isinstance(error, ns.StoreFullError)
            assert error.errno == errno.ENOSPC
            assert error.path is not None
            assert is_one_line(error)
            for _ in range(3):
                refused(ns.StoreFullError, lambda: store.append("system", "big", None, "x" * 100_000, 1))
                refused(ns.StoreFullError, lambda: store.transition("run-1", "failed", payload="x" * 100_000))
                assert [entry.id for entry in store.query()] == [1, *acknowledged]
                assert store.count(type="tick") == len(acknowledged)
                assert store.get_workflow_run("run-1") == run
            resize("8m")
            assert store.append("system", "after", timestamp=0).id == len(acknowledged) + 2
            assert store.transition("run-1", "completed").status == "completed"
        with ns.LogStore(path) as store:
            ids = [entry.id for entry in store.query()]
            assert ids == list(range(1, len(acknowledged) + 4))
        assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_full_disk_refuses_a_new_store(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k"):
        (tmp_path / "disk" / "filler").write_bytes(b"x" * 60_000)
        refused(ns.StoreFullError, lambda: ns.LogStore(tmp_path / "disk" / "logs.db"))
        (tmp_path / "disk" / "filler").unlink()


def test_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """`ulimit -f`, in a process of its own: the limit would hold for the test process too."""
    script = (
        "import resource, signal, sys, nerve_store as ns\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = ns.LogStore(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "done = 0\n"
        "try:\n"
        "    while done < 1000:\n"
        "        store.append('system', 'tick', None, 'x' * 5000, 0)\n"
        "        done += 1\n"
        "except ns.StoreFullError:\n"
        "    pass\n"
        "assert 0 < done < 1000, done\n"
        "assert store.count() == done\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "logs.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# --- a closed store ----------------------------------------------------------------------------------------------


def test_every_public_method_is_tried_on_a_closed_store() -> None:
    assert set(LOG_STORE_CALLS) == public_methods(ns.LogStore) - {"close"}


@pytest.mark.parametrize("name", LOG_STORE_CALLS)
def test_closed_store_refuses(data_dir: Path, name: str) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.append("system", "tick", timestamp=0)
    store.close()
    before = tree(data_dir)
    error = refused(ns.StoreClosedError, lambda: LOG_STORE_CALLS[name](store))
    assert isinstance(error, ns.NerveStoreError)
    assert tree(data_dir) == before


def test_closed_store_is_not_entered_again(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.close()
    with pytest.raises(ns.StoreClosedError), store:
        pytest.fail("entered")


def test_closed_store_still_tells_its_path(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.close()
    assert Path(store.path) == (data_dir / "logs.db").resolve()
    assert str(data_dir) in store.archive_dir
    assert "closed" in repr(store) or str(data_dir) in repr(store)


def test_iterators_end_with_their_store(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.append_many([("system", "tick", None, None, n) for n in range(20_000)])
    rows, unused = store.iter(), store.iter()
    next(rows)
    store.close()

    def exhaust() -> None:
        for _ in rows:
            pass

    refused(ns.StoreClosedError, exhaust)
    refused(ns.StoreClosedError, lambda: next(unused))


@pytest.mark.parametrize("name", LOG_STORE_WRITES)
def test_read_only_store_refuses_every_write(data_dir: Path, name: str) -> None:
    closed_store(data_dir / "logs.db")
    with ns.LogStore(data_dir / "logs.db") as writer:
        writer.upsert_workflow_run(
            ("workflow", "started", "run-1", None, 1),
            ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1),
        )
        rows = writer.query()
        with ns.LogStore(data_dir / "logs.db", read_only=True) as store:
            refused(ns.NerveStoreError, lambda: LOG_STORE_WRITES[name](store))
            assert store.query() == rows
        assert writer.query() == rows
        assert not (data_dir / "archive").exists()


@pytest.mark.parametrize("name", LOG_STORE_READS)
def test_read_only_store_answers_every_read(data_dir: Path, name: str) -> None:
    closed_store(data_dir / "logs.db")
    with ns.LogStore(data_dir / "logs.db") as writer, ns.LogStore(data_dir / "logs.db", read_only=True) as store:

        def outcome(of: ns.LogStore) -> object:
            try:
                return LOG_STORE_READS[name](of)
            except ns.ArchiveError as error:
                return type(error)

        assert outcome(store) == outcome(writer)


# --- all or nothing, and the errors themselves -------------------------------------------------------------------


def test_failed_transaction_changes_nothing(kept: ns.LogStore) -> None:
    """A row that only the database itself refuses, in the middle of a call."""
    foreign_script(
        kept.path,
        "CREATE TRIGGER t BEFORE INSERT ON logs WHEN NEW.payload = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    rows = [("system", "tick", None, "bad" if n == 50 else "good", n) for n in range(100)]
    refused(ns.NerveStoreError, lambda: kept.append_many(rows))
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1)
    refused(ns.NerveStoreError, lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", "bad", 1), run))
    refused(ns.NerveStoreError, lambda: kept.transition("run-1", "completed", payload="bad"))
    foreign_sql(kept.path, "DROP TRIGGER t")


def test_bad_call_leaves_the_store_usable(kept: ns.LogStore) -> None:
    for _ in range(50):
        refused(ValueError, lambda: kept.append("system", "tick", timestamp=-1))
        refused(ns.IllegalTransitionError, lambda: kept.transition("run-1", "queued"))
        refused(ValueError, lambda: kept.sql("SELECT nothing"))
    assert as_rows(kept.query()) == database_rows(kept)


def test_errors_have_the_bases_of_the_contract() -> None:
    bases: dict[type[Exception], tuple[type[Exception], ...]] = {
        ns.StoreClosedError: (),
        ns.ForkedStoreError: (),
        ns.StoreBusyError: (TimeoutError,),
        ns.StoreIOError: (OSError,),
        ns.StoreFullError: (ns.StoreIOError, OSError),
        ns.CorruptStoreError: (),
        ns.SchemaVersionError: (),
        ns.IllegalTransitionError: (ValueError,),
        ns.ArchiveError: (),
        ns.ArchiveBusyError: (ns.ArchiveError, ns.StoreBusyError),
        ns.ArchiveCorruptError: (ns.ArchiveError, ns.CorruptStoreError),
        ns.BlobCorruptError: (),
        ns.BlobNotFoundError: (FileNotFoundError,),
    }
    for error, more in bases.items():
        assert issubclass(error, ns.NerveStoreError)
        for base in more:
            assert issubclass(error, base)


def test_errors_pickle_with_their_fields(kept: ns.LogStore, tmp_path: Path) -> None:
    (tmp_path / "file.db").write_bytes(b"no database" * 1000)
    errors = [
        refused(ns.IllegalTransitionError, lambda: kept.transition("run-1", "queued")),
        refused(ns.StoreIOError, lambda: ns.LogStore(tmp_path)),
        refused(ns.CorruptStoreError, lambda: ns.LogStore(tmp_path / "file.db")),
        refused(ns.ArchiveError, lambda: list(kept.read_archive(date(2026, 1, 1)))),
        refused(ns.BlobNotFoundError, lambda: ns.BlobStore(tmp_path / "blobs").size("0" * 64)),
    ]
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
        assert getattr(copy, "errno", None) == getattr(error, "errno", None)


def test_row_of_another_program_with_a_huge_payload_is_read(log_store: ns.LogStore) -> None:
    foreign_sql(log_store.path, INSERT_ROW, ("system", "tick", None, "x" * 3_000_000, 0))
    assert len(log_store.query()[0].payload or "") == 3_000_000


def test_path_objects_of_every_kind_are_taken(tmp_path: Path) -> None:
    class Fspath:
        def __fspath__(self) -> str:
            return str(tmp_path / "logs.db")

    with ns.LogStore(Fspath()) as store:
        assert store.append("system", "tick").id == 1
