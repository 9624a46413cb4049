"""Writers that a fault interrupts, and what they were told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, Self

import psycopg

import nerve_store as ns


class Appending(Protocol):
    """What is tried: a log, or a control that does it worse."""

    def append(self, source: str, type: str, ref_id: str | None = None, payload: str | None = None) -> Any: ...


class Writers:
    """Threads that append numbered rows until they are told to end."""

    def __init__(self, log: Appending, count: int) -> None:
        self.log = log
        self.acknowledged: dict[str, int] = {}
        """What was acknowledged, with its id."""
        self.attempted: set[str] = set()
        self.errors: list[Exception] = []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        position = 0
        while not self._ending.is_set():
            payload = f"{number}-{position}"
            position += 1
            with self._lock:
                self.attempted.add(payload)
            try:
                entry = self.log.append("system", "tick", None, payload)
            except (ns.NerveStoreError, psycopg.Error) as error:
                self.errors.append(error)
                time.sleep(0.01)
                continue
            with self._lock:
                self.acknowledged[payload] = entry.id


class Losses:
    """What became of the rows."""

    def __init__(self, writers: Writers, rows: list[tuple[int, str | None]]) -> None:
        there = Counter(payload for _, payload in rows)
        ids = Counter(row_id for row_id, _ in rows)
        by_payload = {payload: row_id for row_id, payload in rows}
        self.lost = [payload for payload in writers.acknowledged if payload not in there]
        self.doubled = [payload for payload, count in there.items() if count > 1]
        self.strange = [payload for payload in there if payload not in writers.attempted]
        self.reused = [row_id for row_id, count in ids.items() if count > 1]
        self.misnumbered = [
            payload for payload, row_id in writers.acknowledged.items() if by_payload.get(payload, row_id) != row_id
        ]

    def counts(self) -> dict[str, int]:
        """How many rows were lost, doubled and so on."""
        return {kind: len(rows) for kind, rows in vars(self).items()}

    def none(self) -> bool:
        return not any(self.counts().values())


def kill_connections(url: str, count: int, *, application: str = "") -> int:
    """End connections of other sessions that are in the middle of a call; returns how many were ended."""
    killed = 0
    with psycopg.connect(url, autocommit=True) as session:
        end = time.monotonic() + 60 + count / 5
        while killed < count and time.monotonic() < end:
            row = session.execute(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND state = 'active' AND backend_type = 'client backend' "
                "AND query ~ %s LIMIT 1) AS busy",
                (application or r"^(CALL|INSERT)",),
            ).fetchone()
            killed += row[0] if row else 0
            time.sleep(0.002)
    return killed


def patiently(call: Callable[[], Any], seconds: float = 60) -> Any:
    """What a call gives once it does not fail any more."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (ns.NerveStoreError, psycopg.Error):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
