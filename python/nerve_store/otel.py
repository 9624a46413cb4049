"""Figures of a store as OpenTelemetry metrics; needs `opentelemetry-api` (the extra `otel`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from nerve_store._core import __version__
from nerve_store._logs import log_of
from nerve_store.exceptions import NerveStoreError

if TYPE_CHECKING:
    from nerve_store.protocols import Log
    from nerve_store.records import LogStats
    from nerve_store.store import Store

__all__ = ["observe"]

_FRESH = 1.0
"""Seconds for which figures serve all instruments: a collection asks each of them in turn."""


def observe(store: Log | Store, meter: Meter | None = None) -> None:
    """Create instruments that observe a log, or that of a store, whenever metrics are collected.

    They are made on `meter`, by default the global one: `nerve_store.log.rows`, `nerve_store.log.last_id`,
    `nerve_store.log.size`, `nerve_store.log.wal.size`, `nerve_store.log.free` (bytes), and `nerve_store.runs` by
    `status`, each with the attribute `db.namespace`, the `path` of the log. A store
    that is closed, or cannot be read, is not observed.
    """
    logs = log_of(store)
    given: Any = meter  # what a caller without a type checker passes
    if not isinstance(given, Meter | None):
        raise TypeError(f"meter must be Meter or None, not {type(given).__name__}")
    meter = get_meter("nerve_store", __version__) if meter is None else meter
    figures = _Figures(logs)
    path = {"db.namespace": logs.path}

    def gauge(name: str, unit: str, description: str, figure: Callable[[LogStats], int | None]) -> None:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            stats = figures.get()
            value = None if stats is None else figure(stats)
            return [] if value is None else [Observation(value, path)]

        meter.create_observable_gauge(name, [callback], unit, description)

    gauge("nerve_store.log.rows", "{row}", "Rows in the database", lambda stats: stats.row_count)
    gauge("nerve_store.log.last_id", "{row}", "The greatest id in the database", lambda stats: stats.last_id)
    gauge("nerve_store.log.size", "By", "Size of the database file", lambda stats: stats.database_bytes)
    gauge("nerve_store.log.wal.size", "By", "Size of the write-ahead log", lambda stats: stats.wal_bytes)
    gauge("nerve_store.log.free", "By", "Space in the database that new rows use first", lambda stats: stats.free_bytes)

    def runs(_: CallbackOptions) -> Iterable[Observation]:
        stats = figures.get()
        return [] if stats is None else [Observation(n, path | {"status": str(s)}) for s, n in stats.runs.items()]

    meter.create_observable_gauge("nerve_store.runs", [runs], "{run}", "Workflow runs")


class _Figures:
    """The figures of a store, at most a second old."""

    def __init__(self, store: Log) -> None:
        self._store = store
        self._stats: LogStats | None = None
        self._taken_at = float("-inf")
        self._lock = threading.Lock()

    def get(self) -> LogStats | None:
        with self._lock:
            if time.monotonic() - self._taken_at > _FRESH:
                try:
                    self._stats = self._store.stats()
                except NerveStoreError:
                    self._stats = None
                self._taken_at = time.monotonic()
            return self._stats
