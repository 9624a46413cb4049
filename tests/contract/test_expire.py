"""Deleting old days of the archive."""

from __future__ import annotations

from datetime import date, datetime

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from support.archive import NOW, at, day, message

IS_ABOUT_ARCHIVES = True


def test_old_days_expire_and_rounds_keep_their_numbers(backend: Backend, log: Log) -> None:
    log.append_many([("workflow", "thread_workflow_message", "run-1", message(n), at(n % 4)) for n in range(16)])
    log.archive_logs(now=NOW)
    rounds = log.get_thread_rounds("run-1", limit=100)
    told = log.expire_archive(before=day(2), dry_run=True)
    assert [item.day for item in told] == [day(0), day(1)]
    assert backend.days() == [day(n) for n in range(4)]
    assert log.expire_archive(before=day(2)) == told
    assert backend.days() == [day(2), day(3)]
    assert [item.day for item in log.archived_days()] == [day(2), day(3)]
    kept = {entry.id for entry in log.query(archived=True)}
    assert len(kept) == 8
    assert log.get_thread_round_count("run-1") == 16
    assert log.get_thread_rounds("run-1", limit=100) == [item for item in rounds if item.log_id in kept]
    assert log.expire_archive(before=day(2)) == []
    assert log.verify().ok
    assert log.append("system", "tick").id == 17


def test_late_rows_of_a_day_that_expired_change_no_number(log: Log) -> None:
    log.append_many([("workflow", "thread_workflow_message", "run-1", message(n), at(n % 4)) for n in range(8)])
    log.archive_logs(now=NOW)
    log.expire_archive(before=day(2))
    numbers = {item.log_id: item.round for item in log.get_thread_rounds("run-1", limit=100)}
    for count in (9, 10):
        late = log.append("workflow", "thread_workflow_message", "run-1", message(count), at(0))
        numbers[late.id] = count
        log.archive_logs(now=NOW)
        assert log.get_thread_round_count("run-1") == count
        assert {item.log_id: item.round for item in log.get_thread_rounds("run-1", limit=100)} == numbers
    log.reindex()
    assert log.get_thread_round_count("run-1") == 10
    log.expire_archive(before=day(2))
    del numbers[9], numbers[10]
    assert log.get_thread_round_count("run-1") == 10
    assert {item.log_id: item.round for item in log.get_thread_rounds("run-1", limit=100)} == numbers


def test_day_of_an_active_run_stays(backend: Backend, log: Log) -> None:
    log.append_many([("workflow", "tick", f"run-{n}", None, at(n)) for n in range(3)])
    log.archive_logs(now=NOW)
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, NOW)
    log.upsert_workflow_run(("workflow", "started", "run-1", None, NOW), run)
    assert [item.day for item in log.expire_archive(before=date(2026, 3, 1))] == [day(0), day(2)]
    log.transition("run-1", "completed")
    assert [item.day for item in log.expire_archive(before=date(2026, 3, 1))] == [day(1)]
    assert backend.days() == []


def test_a_datetime_is_no_day(log: Log) -> None:
    with pytest.raises(TypeError):
        log.expire_archive(before=datetime(2026, 1, 1))  # noqa: DTZ001
