"""What the lists of runs read: pages of many runs with one timestamp, and active runs beside many that have ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contract.backends import Backend

RUNS, PAGE = 20_000, 50

FILL = """
INSERT INTO workflow_runs (run_id, workflow, status, timestamp, created_id)
  SELECT md5(n::text), 'deploy', CASE WHEN mod(n, 1000) = 0 THEN 'queued' ELSE 'completed' END, 5 + n / 10000, n
  FROM generate_series(1, %s) AS n
"""


@pytest.fixture
def log(place: Backend) -> Any:
    """A log of runs of two timestamps."""
    log = place.open()
    place.execute(FILL, (RUNS,))
    place.execute("ANALYZE workflow_runs")
    return log


def scanned(log: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[str, int]:
    """The index that a list is read from, and how many of its entries are."""
    with monkeypatch.context() as patch:
        patch.setattr(log, "_runs", lambda *call: call)
        condition, parameters, order, limit = log.query_workflow_runs(**options)
    statement = f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM workflow_runs WHERE {condition} ORDER BY {order}"
    ((found,),) = log.sql(f"{statement} LIMIT {limit}", parameters)
    node = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    while "Plans" in node:
        (node,) = node["Plans"]
    return node["Index Name"], node["Actual Rows"] + node.get("Rows Removed by Filter", 0)


@pytest.mark.parametrize("descending", [False, True])
def test_page_of_runs_with_one_timestamp_reads_what_it_has(
    log: Any, monkeypatch: pytest.MonkeyPatch, descending: bool
) -> None:
    options: dict[str, Any] = {"limit": PAGE, "descending": descending, "after": None}
    for _ in range(3):
        index, count = scanned(log, monkeypatch, **options)
        assert index == "workflow_runs_time"
        assert count <= PAGE + 2
        options["after"] = log.query_workflow_runs(**options)[-1]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("status", ["queued", ["queued", "started"]])
def test_active_runs_are_read_without_those_that_have_ended(
    log: Any, monkeypatch: pytest.MonkeyPatch, status: Any, descending: bool
) -> None:
    options: dict[str, Any] = {"status": status, "limit": 5, "descending": descending, "after": None}
    for _ in range(3):
        index, count = scanned(log, monkeypatch, **options)
        assert index == "workflow_runs_active"
        assert count <= RUNS // 1_000
        options["after"] = log.query_workflow_runs(**options)[-1]
