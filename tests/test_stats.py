"""The figures of a store."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import nerve_store as ns
from support import foreign_sql


def test_stats_give_the_figures(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        empty = store.stats()
        assert (empty.row_count, empty.first_id, empty.last_id) == (0, None, None)
        assert (empty.first_timestamp, empty.last_timestamp, empty.archived_up_to) == (None, None, None)
        assert dict(empty.runs) == {} or set(empty.runs.values()) == {0}
        store.append_many([("system", "tick", None, "x" * 100, t) for t in (500, 100, 900)])
        store.upsert_workflow_run(
            ("workflow", "queued", "run-1", None, 700),
            ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.QUEUED, 700),
        )
        foreign_sql(path, "INSERT INTO meta VALUES ('archived_up_to', '2026-03-25')")
        stats = store.stats()
        assert Path(stats.path).samefile(path)
        assert (stats.row_count, stats.first_id, stats.last_id) == (4, 1, 4)
        assert (stats.first_timestamp, stats.last_timestamp) == (100, 900)
        assert {status: count for status, count in stats.runs.items() if count} == {"queued": 1}
        assert stats.archived_up_to == date(2026, 3, 25)
        assert stats.database_bytes > 0
        assert stats.wal_bytes >= 0
        assert stats.free_bytes >= 0


def test_stats_count_space_that_deleted_rows_left(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, "x" * 1000, n) for n in range(1000)])
    assert log_store.stats().free_bytes < 100_000
    log_store.archive_logs()
    assert log_store.stats().free_bytes > 500_000
