"""Querying rows: what the filters select."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import Log, Row
from support import as_rows

SOURCES = ("workflow", "system", "reflex")
TYPES = ("started", "tick", "thread_workflow_message")
RUNS = ("run-1", "run-2", "run-3")


def queried(log_store: ns.LogStore) -> Log:
    """A log of 60 rows and the plain list of it."""
    rows = [(SOURCES[n % 3], TYPES[n // 3 % 3], (None, *RUNS)[n % 4], str(n), (n * 37) % 100) for n in range(60)]
    model = Log()
    for row_id, row in zip(log_store.append_many(rows), rows, strict=True):
        model.append(Row(row_id, *row))
    return model


FILTERS: list[dict[str, Any]] = [
    {},
    {"source": "workflow"},
    {"type": "tick"},
    {"source": "workflow", "type": "tick"},
    {"ref_id": "run-2"},
    {"ref_id": "run-2", "type": "started", "source": "system"},
    {"ref_id": "nobody"},
    {"since": 50},
    {"until": 50},
    {"since": 37, "until": 37},
    {"since": 60, "until": 40},
    {"after_id": 55},
    {"before_id": 5},
    {"after_id": 10, "before_id": 20},
    {"after_id": 20, "before_id": 21},
    {"after_id": 60},
    {"limit": 0},
    {"limit": 7},
    {"limit": 1000},
    {"source": "reflex", "limit": 3},
    {"ref_id": "run-1", "since": 20, "until": 80, "after_id": 5, "before_id": 50, "limit": 4},
]


@pytest.mark.parametrize("segment_rows", [2, 7, 32, 60, 4096])
def test_filters_select_what_a_plain_filter_selects(data_dir: Path, segment_rows: int) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=segment_rows) as store:
        model = queried(store)
        for filters in FILTERS:
            for descending in (False, True):
                expected = model.query(**filters, descending=descending)
                assert as_rows(store.query(**filters, descending=descending)) == expected, filters
                assert as_rows(store.iter(**filters, descending=descending)) == expected, filters
                assert store.count(**filters, descending=descending) == len(expected), filters


def test_a_filter_of_none_does_not_filter(log_store: ns.LogStore) -> None:
    queried(log_store)
    everything = log_store.query(
        source=None, type=None, ref_id=None, since=None, until=None, after_id=None, before_id=None, limit=None
    )
    assert len(everything) == 60


def test_filters_compare_text_exactly(log_store: ns.LogStore) -> None:
    for ref_id in ("run", "RUN", "run ", "run\0", "rün", "%", "r_n", ""):
        log_store.append("system", "tick", ref_id, None, 0)
    for entry in log_store.query():
        assert log_store.query(ref_id=entry.ref_id) == [entry]


def test_bounds_of_ids_may_be_anything(log_store: ns.LogStore) -> None:
    queried(log_store)
    largest = 2**63 - 1
    assert log_store.count(after_id=0, before_id=largest) == 60
    assert log_store.count(after_id=-largest) == 60
    assert log_store.count(after_id=largest) == 0
    assert log_store.count(before_id=-1) == 0
    assert log_store.count(limit=largest) == 60
