"""Values that only another program can have stored: one row or run affects at most itself, and is reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import INSERT_ROW_WITH_ID, as_rows, foreign_many, foreign_sql
from support.archive import at, day, message

RUN = "run-1"
MESSAGE = "thread_workflow_message"
NOW = at(40)

NO_TEXT = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES ({}, ?, {}, {}, ?)"
"""Of rows with a value that is no text; the values are written into the statement."""
ODD_ROWS = {
    "bytes as a payload": NO_TEXT.format("'workflow'", f"'{RUN}'", "x'00ff'"),
    "a payload that is not UTF-8": NO_TEXT.format("'workflow'", f"'{RUN}'", "CAST(x'ff41' AS TEXT)"),
    "bytes as a source": NO_TEXT.format("x'ff'", f"'{RUN}'", "'x'"),
    "a source that is not UTF-8": NO_TEXT.format("CAST(x'ff41' AS TEXT)", f"'{RUN}'", "'x'"),
    "bytes as a reference": NO_TEXT.format("'workflow'", "x'ff'", "'x'"),
    "a reference that is not UTF-8": NO_TEXT.format("'workflow'", "CAST(x'ff41' AS TEXT)", "'x'"),
}


@pytest.mark.parametrize("odd", ODD_ROWS)
@pytest.mark.parametrize("segment_rows", [2, 4096])
def test_a_row_that_is_none_keeps_no_other_from_the_archive(data_dir: Path, odd: str, segment_rows: int) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=segment_rows) as store:
        rows = []
        for number in range(3):
            rows += as_rows([store.append("workflow", MESSAGE, RUN, message(number), at(number))])
            foreign_sql(store.path, ODD_ROWS[odd], (MESSAGE, at(1)))
        odd_ids = [row_id for (row_id,) in store.sql("SELECT id FROM logs") if row_id not in {row.id for row in rows}]
        for dry_run, days in ((True, 3), (False, 3), (False, 0)):
            result = store.archive_logs(now=NOW, retention=timedelta(0), dry_run=dry_run)
            assert (result.unarchivable_rows, len(result.days)) == (3, days)
        archived = [row for item in store.archived_days() for row in as_rows(store.read_archive(item.day))]
        assert archived == rows
        assert [row_id for (row_id,) in store.sql("SELECT id FROM logs")] == odd_ids
        found = store.verify()
        assert not found.ok
        assert all(any(f"row {row_id} " in problem.reason for row_id in odd_ids) for problem in found.problems)


@pytest.mark.parametrize("odd", ["bytes as a payload", "a payload that is not UTF-8"])
@pytest.mark.parametrize("archived", [False, True])
def test_a_message_that_is_no_text_costs_no_other(
    log_store: ns.LogStore, caplog: pytest.LogCaptureFixture, odd: str, archived: bool
) -> None:
    log_store.append("workflow", MESSAGE, RUN, message(1), at(1))
    if archived:
        log_store.archive_logs(now=NOW, retention=timedelta(0))
    foreign_sql(log_store.path, ODD_ROWS[odd], (MESSAGE, at(1)))
    foreign_sql(log_store.path, ODD_ROWS[odd], ("thread_command_event", at(1)))
    foreign_sql(log_store.path, ODD_ROWS[odd], ("started", at(1)))
    log_store.append("workflow", MESSAGE, RUN, message(2), at(2))
    log_store.append("workflow", "thread_command_event", RUN, '{"type": "call"}', at(2))
    reads: list[tuple[int, Callable[[], Any], Any]] = [
        (2, lambda: [item.content for item in log_store.get_thread_messages(RUN)], ["message 1", "message 2"]),
        (3, lambda: log_store.get_thread_events(RUN), [{"type": "call"}]),
        (4, lambda: log_store.get_trigger_payload(RUN), None),
    ]
    for row_id, read, expected in reads:
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="nerve_store"):
            assert read() == expected
        assert [f"row {row_id} " in record.getMessage() for record in caplog.records] == [True]
    assert [item.round for item in log_store.get_thread_rounds(RUN, limit=9)] == [3, 2, 1]


ODD_RUNS = {
    "no id": (None, "w", "started", 1, None),
    "bytes as an id": (b"\xff", "w", "started", 1, None),
    "bytes as a workflow": ("x", b"\xff", "started", 1, None),
    "bytes as the workflow of a queued run": ("x", b"\xff", "queued", 1, None),
    "bytes as a state": ("x", "w", b"started", 1, None),
    "bytes of no text as a state": ("x", "w", b"\xff", 1, None),
}


@pytest.mark.parametrize("odd", ODD_RUNS)
def test_a_run_that_is_none_stops_nothing(log_store: ns.LogStore, odd: str) -> None:
    log_store.append("system", "tick", "ref", None, at(0))
    log_store.create_workflow_run("good", "w", timestamp=2)
    foreign_sql(log_store.path, "INSERT INTO workflow_runs VALUES (?, ?, ?, ?, ?)", ODD_RUNS[odd])
    assert len(log_store.archive_logs(now=NOW, retention=timedelta(0)).days) == 1
    assert [run.run_id for run in log_store.get_active_workflow_runs()] == ["good"]
    assert log_store.count_workflow_runs()[ns.WorkflowRunStatus.QUEUED] >= 1
    assert sum(log_store.stats().runs.values()) == 2
    for dry_run in (True, False):
        assert [item.day for item in log_store.expire_archive(before=day(5), dry_run=dry_run)] == [day(0)]
    claim = log_store.claim_workflow_run("worker")
    assert claim is not None
    assert claim.run.run_id == "good"


def test_rounds_among_rows_that_were_read_before_are_seen(log_store: ns.LogStore) -> None:
    """What a handle has read of the end of the log is not all there is where another program writes below it."""

    def put(row_id: int) -> None:
        foreign_many(log_store.path, INSERT_ROW_WITH_ID, [(row_id, "workflow", MESSAGE, RUN, message(row_id), at(1))])

    def rounds() -> list[tuple[int, int]]:
        assert log_store.get_thread_round_count(RUN) == len(log_store.get_thread_messages(RUN))
        return [(item.round, item.log_id) for item in log_store.get_thread_rounds(RUN, limit=99)]

    log_store.append("workflow", MESSAGE, RUN, message(0), at(1))
    put(1000)
    assert rounds() == [(2, 1000), (1, 1)]
    put(500)
    assert rounds() == [(3, 1000), (2, 500), (1, 1)]
    foreign_sql(log_store.path, "UPDATE logs SET ref_id = 'other' WHERE id = 500")
    assert rounds() == [(2, 1000), (1, 1)]
    foreign_sql(log_store.path, "UPDATE logs SET ref_id = ? WHERE id = 500", (RUN,))
    put(501)
    log_store.archive_logs(now=NOW, retention=timedelta(0))
    assert rounds() == [(4, 1000), (3, 501), (2, 500), (1, 1)]


def test_rows_above_the_sequence_of_ids_are_read_once(log_store: ns.LogStore) -> None:
    """Another program may empty SQLite's table of sequences."""
    rows = as_rows([log_store.append("system", "tick", None, str(number), at(1)) for number in range(5)])
    follower = log_store.follow(after_id=0)
    foreign_sql(log_store.path, "DELETE FROM sqlite_sequence")
    assert as_rows(log_store.iter()) == as_rows(log_store.iter(archived=True)) == rows
    assert as_rows(next(follower) for _ in rows) == rows
    new = log_store.append("system", "tick", None, None, at(1))
    assert next(follower) == new
