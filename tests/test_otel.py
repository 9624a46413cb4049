"""`nerve_store.otel.observe`: the figures of a store as metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support.argument_names import check_that_what_is_no_log_is_refused

metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics")
metrics_export = pytest.importorskip("opentelemetry.sdk.metrics.export")
otel = pytest.importorskip("nerve_store.otel")


def collected(reader: Any) -> dict[str, list[tuple[dict[str, str], int]]]:
    data = reader.get_metrics_data()
    found: dict[str, list[tuple[dict[str, str], int]]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [(dict(point.attributes), point.value) for point in metric.data.data_points]
    return found


def test_figures_of_a_store_are_observed(data_dir: Path) -> None:
    reader = metrics_export.InMemoryMetricReader()
    provider = metrics_sdk.MeterProvider([reader])
    store = ns.Store(data_dir)
    otel.observe(store, provider.get_meter("test"))
    store.logs.append_many([("s", "t", None, None, 1)] * 3)
    store.logs.upsert_workflow_run(("workflow", "queued", "r", None, 1), ns.WorkflowRun("r", "w", "queued", 1))
    found = collected(reader)
    place = {"db.namespace": store.logs.path}
    assert found["nerve_store.log.rows"] == [(place, 4)]
    assert found["nerve_store.log.last_id"] == [(place, 4)]
    assert found["nerve_store.log.size"][0][1] >= 0
    assert found["nerve_store.log.wal.size"][0][1] > 0
    assert (place | {"status": "queued"}, 1) in found["nerve_store.runs"]
    store.close()


def test_a_closed_store_is_not_observed(data_dir: Path) -> None:
    reader = metrics_export.InMemoryMetricReader()
    provider = metrics_sdk.MeterProvider([reader])
    store = ns.LogStore(data_dir / "logs.db")
    otel.observe(store, provider.get_meter("test"))
    store.close()
    assert not any(collected(reader).values())


def test_what_is_no_log_and_no_meter_is_refused(tmp_path: Path, log_store: ns.LogStore) -> None:
    check_that_what_is_no_log_is_refused(otel.observe, tmp_path)
    for wrong in (5, 0, "meter", metrics_sdk.MeterProvider()):
        with pytest.raises(TypeError, match=f"^meter must be Meter or None, not {type(wrong).__name__}$"):
            otel.observe(log_store, wrong)
