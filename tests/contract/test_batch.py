"""Many things in one commit, and appends that happen once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Batch, Log
from support import as_rows

RUN = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 5)


def everything(log: Log) -> tuple[Any, ...]:
    return log.query(), log.get_all_workflow_runs(), log.list_meta()


def test_batch_writes_all_of_it_in_the_order_of_the_calls(log: Log) -> None:
    log.append("system", "before")
    with log.batch() as batch:
        batch.append("system", "first", timestamp=1)
        batch.append_many([("system", "second", None, None, 2), ns.NewLogEntry("system", "third", timestamp=3)])
        batch.create_workflow_run("run-1", "deploy", status="started", timestamp=4)
        batch.transition("run-1", "completed", exit_code=0, timestamp=5)
        batch.upsert_workflow_run(
            ("workflow", "started", "run-2", None, 6), ns.WorkflowRun("run-2", "w", RUN.status, 6)
        )
        batch.set_meta("a", "1")
        batch.set_meta("b", "2")
        batch.delete_meta("a")
        batch.append_many([])
        assert batch.ids is None
        assert log.count() == 1
    assert batch.ids is not None
    assert batch.ids == (2, 3, 4, 5, 6, 7)
    assert [(entry.id, entry.type) for entry in log.query(after_id=1)] == list(
        zip(batch.ids, ["first", "second", "third", "started", "completed", "started"], strict=True)
    )
    assert log.get_workflow_run("run-1") == ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 5, 0)
    assert log.list_meta() == {"b": "2"}


def test_rows_that_were_refused_are_not_in_the_batch(log: Log) -> None:
    with log.batch() as batch:
        batch.append("system", "first", timestamp=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ns.TimestampUnitWarning):
                batch.append_many(
                    [("system", "refused", None, None, 2), ("system", "refused", None, None, 1_700_000_000)]
                )
        wrong: Any = [("system", "refused", None, None, 2), ("system", "refused", None, 7, 2)]
        with pytest.raises(TypeError):
            batch.append_many(wrong)
        batch.append_many([("system", "second", None, None, 2)])
    assert [entry.type for entry in log.query()] == ["first", "second"]
    assert batch.ids == (1, 2)


def test_exception_in_the_block_discards_everything(log: Log) -> None:
    before = everything(log)
    with pytest.raises(ZeroDivisionError), log.batch() as batch:  # noqa: PT012
        batch.append("system", "tick")
        batch.set_meta("a", "1")
        raise ZeroDivisionError
    assert batch.ids is None
    assert everything(log) == before
    assert log.append("system", "tick").id == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_refused_fails_all_of_the_batch(log: Log, place: int) -> None:
    log.upsert_workflow_run(("workflow", "started", "run-1", None, 5), RUN)
    log.append("system", "once", key="k")
    before = everything(log)
    bad: list[Callable[[Batch], None]] = [
        lambda batch: batch.transition("run-1", "queued"),
        lambda batch: batch.create_workflow_run("run-1", "deploy"),
        lambda batch: batch.append("system", "other", key="k"),
        lambda batch: batch.transition("absent", "started"),
    ]
    errors = [ns.IllegalTransitionError, ns.RunExistsError, ns.IdempotencyError, ns.IllegalTransitionError]
    for action, error in zip(bad, errors, strict=True):
        with pytest.raises(error), log.batch() as batch:  # noqa: PT012
            for position in range(3):
                if position == place:
                    action(batch)
                batch.append("system", str(position))
                batch.set_meta(str(position), "x")
        assert batch.ids is None
        assert everything(log) == before
    assert log.append("system", "next").id == len(before[0]) + 1


def test_wrong_arguments_are_refused_at_the_call(log: Log) -> None:
    with log.batch() as batch:
        batch.append("system", "good")
        calls: list[Callable[[], None]] = [
            lambda: batch.append("system", "tick", timestamp=-1),
            lambda: batch.append_many([("system", "tick", None, None, -1)]),
            lambda: batch.transition("run-1", "paused"),  # type: ignore[arg-type]
            lambda: batch.set_meta("a", "\ud800"),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"."):
                call()
    assert [entry.type for entry in log.query()] == ["good"]


def test_jobs_that_share_a_commit_do_not_suffer_for_each_other(backend: Backend) -> None:
    log = backend.open()
    log.create_workflow_run("done", "deploy", status="completed")

    def work(number: int) -> bool:
        with log.batch() as batch:
            batch.append("system", f"w{number}")
            if number % 3 == 0:
                batch.transition("done", "started")
            batch.append("system", f"w{number}")
        return True

    with ThreadPoolExecutor(12) as pool:
        done = [pool.submit(work, number) for number in range(48)]
    for number, item in enumerate(done):
        if number % 3 == 0:
            assert isinstance(item.exception(), ns.IllegalTransitionError)
        else:
            assert item.result()
    for number in range(48):
        assert log.count(type=f"w{number}") == (0 if number % 3 == 0 else 2)
    ids = [entry.id for entry in log.query()]
    assert ids == list(range(1, len(ids) + 1))


def test_key_appends_once(backend: Backend) -> None:
    log, other = backend.open(), backend.open()
    first = log.append("system", "tick", "ref", "p", 7, key="k\0")
    assert log.append("system", "tick", "ref", "p", 9, key="k\0") == first
    assert other.append("system", "tick", "ref", "p", key="k\0") == first
    assert other.append("system", "tick", "ref", "p", 7, key="k").id == 2
    for changed in (("x", "tick", "ref", "p"), ("system", "x", "ref", "p"), ("system", "tick", None, "p"),
                    ("system", "tick", "ref", None), ("system", "tick", "ref", "")):  # fmt: skip
        with pytest.raises(ns.IdempotencyError) as refused:
            other.append(*changed, key="k\0")
        assert isinstance(refused.value, ValueError)
        assert (refused.value.key, refused.value.first_id) == ("k\0", first.id)
    assert log.count() == 2


def test_key_is_appended_once_by_many_at_the_same_time(backend: Backend) -> None:
    logs = [backend.open(durability="normal") for _ in range(2)]

    def work(number: int) -> list[int]:
        return [logs[number % 2].append("system", "tick", None, str(n), key=f"key-{n}").id for n in range(20)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert len({tuple(ids) for ids in results}) == 1
    assert logs[0].count() == 20


def test_key_in_a_batch_gives_the_first_rows_id(log: Log) -> None:
    first = log.append("system", "tick", key="k")
    with log.batch() as batch:
        batch.append("system", "tick", key="k")
        batch.append("system", "tock", key="l")
        batch.append("system", "tock", key="l")
    assert batch.ids == (first.id, 2, 2)
    assert log.count() == 2


def test_key_outlives_the_archiving_of_its_row(log: Log) -> None:
    first = log.append("system", "tick", None, "p", 5, key="k")
    log.archive_logs()
    assert log.count() == 0
    assert log.append("system", "tick", None, "p", key="k") == first
    assert log.count() == 0


def test_json_is_serialized_as_the_payload(log: Log) -> None:
    values: list[Any] = [None, True, 0, 1.5, "ü\0", [1, {"a": []}], {"b": 1, "a": "🧠"}, 2**70]
    for value in values:
        entry = log.append("system", "tick", json=value)
        assert entry.payload == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert entry.json() == value
    for bad in (float("nan"), float("inf"), [float("nan")]):
        with pytest.raises(ValueError, match=r"."):
            log.append("system", "tick", json=bad)
    with pytest.raises(TypeError):
        log.append("system", "tick", json=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        log.append("system", "tick", payload="x", json=1)
    log.create_workflow_run("run-1", "deploy", json={"prompt": "go", "maxRounds": 1})
    log.transition("run-1", "started", json=None)
    assert [entry.payload for entry in log.query(ref_id="run-1")] == ['{"prompt":"go","maxRounds":1}', "null"]


def test_aware_times_are_taken_and_naive_ones_refused(log: Log) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 1_999, tzinfo=timezone(timedelta(hours=2)))
    milliseconds = 1_772_359_200_001
    entry = log.append("system", "tick", timestamp=moment)
    assert entry.timestamp == milliseconds
    assert log.query(since=moment, until=moment) == [entry]
    assert log.count(since=moment + timedelta(seconds=1)) == 0
    naive = moment.replace(tzinfo=None)
    for call in (
        lambda: log.append("system", "tick", timestamp=naive),
        lambda: log.query(since=naive),
        lambda: log.count(until=naive),
        lambda: log.archive_logs(now=naive),
    ):
        with pytest.raises(ValueError, match=r"naive|zone|aware"):
            call()
    assert log.append("system", "tick", timestamp=datetime(1970, 1, 1, tzinfo=UTC)).timestamp == 0
    assert len(as_rows(log.query())) == 2


def test_timestamp_that_looks_like_seconds_is_warned_of_once(backend: Backend) -> None:
    seconds = 1_772_359_200
    for _ in range(2):
        log = backend.open()
        log.append("system", "tick", timestamp=datetime.fromtimestamp(seconds / 1000, UTC))
        with pytest.warns(ns.TimestampUnitWarning, match=str(seconds)) as warned:
            assert log.append("system", "tick", timestamp=seconds).timestamp == seconds
        assert [warning.filename for warning in warned] == [__file__]
        log.append_many([("system", "tick", None, None, seconds)])
