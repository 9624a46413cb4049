"""What a user would take for a queue of work instead: runs in the predecessor's schema, litequeue, persist-queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import litequeue  # type: ignore[import-untyped]  # it brings no types
import persistqueue

from peers import PEERS
from run_peers import Runs


class WorkQueue(Protocol):
    """Work that is put, taken and completed, each durable when the call returns."""

    def put(self, names: Sequence[str]) -> None: ...
    def take(self) -> Any:
        """The oldest work, which no other worker gets."""

    def complete(self, taken: Any) -> None: ...


class RunQueue:
    """Runs with their rows, by `UPDATE … RETURNING`."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.put = runs.create
        self.take = runs.take

    def complete(self, run_id: str) -> None:
        self._runs.change(run_id, "completed", 0)


class LiteQueue:
    """Messages with their state and times; no log."""

    def __init__(self, path: Path) -> None:
        self._queue = litequeue.LiteQueue(path, timeout=60)
        self._queue.conn.execute("PRAGMA synchronous = FULL")

    def put(self, names: Sequence[str]) -> None:
        with self._queue.transaction():
            for name in names:
                self._queue.put(name)

    def take(self) -> str:
        message = self._queue.pop()
        assert message is not None
        return str(message.message_id)

    def complete(self, message_id: str) -> None:
        self._queue.done(message_id)


class PersistQueue:
    """Items with their state; of one process, since two would take the same item."""

    def __init__(self, path: Path) -> None:
        # Its commits are as durable as sqlite3's by default.
        self._queue = persistqueue.SQLiteAckQueue(str(path), multithreading=True)

    def put(self, names: Sequence[str]) -> None:
        for name in names:
            self._queue.put(name)

    def take(self) -> int:
        return int(self._queue.get(block=False, raw=True)["pqid"])

    def complete(self, number: int) -> None:
        self._queue.ack(id=number)


class Locked:
    """A queue that threads share, one at a time."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self.put = queue.put

    def take(self) -> Any:
        with self._lock:
            return self._queue.take()

    def complete(self, taken: Any) -> None:
        with self._lock:
            self._queue.complete(taken)


SHARED = (*(peer.name for peer in PEERS), "litequeue")
"""Those that processes can share."""


def open_queue(name: str, directory: Path) -> WorkQueue:
    """The peer's queue in the directory, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    match name:
        case "litequeue":
            return LiteQueue(directory / "queue.db")
        case "persist-queue":
            return PersistQueue(directory)
        case _:
            (peer,) = [peer for peer in PEERS if peer.name == name]
            return RunQueue(Runs(peer(directory / "runs.db")))
