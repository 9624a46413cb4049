"""Reading rows: filters, iteration, SQL, and what a closed or read-only log refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from reference import Log as Model
from reference import Row
from support import as_rows, is_one_line
from support.calls import LOG_STORE_READS, LOG_STORE_WRITES
from test_query import FILTERS, RUNS, SOURCES, TYPES

_CLAIM = ns.RunClaim(ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 0), "worker", 1, 1, 0)
WRITES: dict[str, Callable[[Any], object]] = {
    **LOG_STORE_WRITES,
    # Those of SQLite look for a claim in its tables.
    "renew_claim": lambda log: log.renew_claim(_CLAIM),
    "release_claim": lambda log: log.release_claim(_CLAIM),
}
CALLS: dict[str, Callable[[Any], object]] = {**LOG_STORE_READS, **WRITES}


def queried(log: Log) -> Model:
    """A log of 60 rows and the plain list of it."""
    rows = [(SOURCES[n % 3], TYPES[n // 3 % 3], (None, *RUNS)[n % 4], str(n), (n * 37) % 100) for n in range(60)]
    model = Model()
    for row_id, row in zip(log.append_many(rows), rows, strict=True):
        model.append(Row(row_id, *row))
    return model


def test_filters_select_what_a_plain_filter_selects(log: Log) -> None:
    model = queried(log)
    for filters in FILTERS:
        for descending in (False, True):
            expected = model.query(**filters, descending=descending)
            assert as_rows(log.query(**filters, descending=descending)) == expected, filters
            assert as_rows(log.iter(**filters, descending=descending)) == expected, filters
            assert log.count(**filters, descending=descending) == len(expected), filters
            assert as_rows(log.query(**filters, descending=descending, archived=True)) == expected, filters


def test_filters_compare_text_exactly(log: Log) -> None:
    for ref_id in ("run", "RUN", "run ", "run\0", "rün", "%", "r_n", "", "ru\u0308n"):
        log.append("system", "tick", ref_id, None, 0)
    for entry in log.query():
        assert log.query(ref_id=entry.ref_id) == [entry]


def test_bounds_of_ids_may_be_anything(log: Log) -> None:
    queried(log)
    largest = 2**63 - 1
    assert log.count(after_id=0, before_id=largest) == 60
    assert log.count(after_id=-largest) == 60
    assert log.count(after_id=largest) == 0
    assert log.count(before_id=-1) == 0
    assert log.count(limit=largest) == 60
    assert log.count(since=-largest, until=largest) == 60


def test_iter_leaves_out_rows_appended_after_the_call(log: Log) -> None:
    log.append_many([("system", "tick", None, None, 0)] * 5_000)
    rows, unused = log.iter(), log.iter()
    next(rows)
    log.append("system", "late")
    assert sum(1 for _ in rows) == 4_999
    assert sum(1 for _ in unused) == 5_000
    assert list(rows) == []
    assert log.count() == 5_001


@pytest.mark.parametrize("descending", [False, True])
def test_iter_crosses_its_pages_without_gap_or_repeat(log: Log, descending: bool) -> None:
    log.append_many([("system", "tick", f"run-{n % 3}", None, n) for n in range(15_000)])
    ids = [entry.id for entry in log.iter(ref_id="run-1", limit=4_500, descending=descending)]
    assert ids == [entry.id for entry in log.query(ref_id="run-1", limit=4_500, descending=descending)]
    assert len(ids) == 4_500


def test_sql_reads_and_refuses_what_writes(log: Log) -> None:
    log.append("system", "tick", "run-1", "🧠", 5)
    assert log.sql("SELECT id, type, ref_id, payload, timestamp FROM logs") == [(1, "tick", "run-1", "🧠", 5)]
    for statement in (
        "INSERT INTO logs (source, type, timestamp) VALUES ('a', 'b', 0)",
        "UPDATE logs SET type = 'x'",
        "DELETE FROM logs",
        "DELETE FROM logs RETURNING id",
        "DROP TABLE logs",
        "CREATE TABLE other (x int)",
        "BEGIN",
        "COMMIT",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nothing",
        "not sql",
        "",
    ):
        with pytest.raises(ValueError, match=r".") as refused:
            log.sql(statement)
        assert is_one_line(refused.value)
    assert [entry.type for entry in log.query()] == ["tick"]
    assert log.sql("SELECT count(*) FROM logs") == [(1,)]
    assert log.append("system", "tick").id == 2


def test_sql_ends_after_its_timeout(log: Log) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) SELECT max(i) FROM n"
    )
    with pytest.raises(ns.QueryTimeoutError) as late:
        log.sql(endless, timeout=0.2)
    assert isinstance(late.value, TimeoutError)
    assert log.sql("SELECT 1") == [(1,)]


def test_closed_log_refuses_every_call(backend: Backend) -> None:
    log = backend.open()
    log.append("system", "tick", timestamp=0)
    iterator = log.iter()
    log.close()
    log.close()
    assert log.closed
    for call in CALLS.values():
        with pytest.raises(ns.StoreClosedError) as refused:
            call(log)
        assert is_one_line(refused.value)
    with pytest.raises(ns.StoreClosedError):
        next(iterator)
    with pytest.raises(ns.StoreClosedError), log:
        pytest.fail("entered")


def test_read_only_log_refuses_every_write(backend: Backend) -> None:
    writer = backend.open()
    writer.upsert_workflow_run(
        ("workflow", "started", "run-1", None, 1),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1),
    )
    rows = writer.query()
    log = backend.open(read_only=True)
    assert log.read_only
    for name, call in WRITES.items():
        with pytest.raises(ns.NerveStoreError):
            call(log)
        assert log.query() == writer.query() == rows, name


def test_read_only_opening_makes_no_log(backend: Backend) -> None:
    with pytest.raises(ns.NerveStoreError):
        backend.open(read_only=True)


def test_meta_is_set_overwritten_and_kept(backend: Backend) -> None:
    with backend.open() as log:
        assert log.get_meta("名前") is None
        log.set_meta("名前", "値 🧠")
        log.set_meta("", "empty key")
        assert log.get_meta("名前") == "値 🧠"
        log.set_meta("名前", "")
    log = backend.open()
    assert log.get_meta("名前") == ""
    assert log.get_meta("") == "empty key"
    assert log.get_meta("NAME") is None


def test_stats_give_the_figures(log: Log) -> None:
    log.append_many([("system", "tick", None, "x" * 100, t) for t in (500, 100, 900)])
    log.upsert_workflow_run(
        ("workflow", "queued", "run-1", None, 700),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.QUEUED, 700),
    )
    stats = log.stats(exact=True)
    assert (stats.row_count, stats.first_id, stats.last_id) == (4, 1, 4)
    assert (stats.first_timestamp, stats.last_timestamp) == (100, 900)
    assert {status: count for status, count in stats.runs.items() if count} == {"queued": 1}
    assert stats.database_bytes > 0
