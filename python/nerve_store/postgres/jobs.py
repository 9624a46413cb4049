"""What a call wants written: a job, all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from nerve_store._core import Columns
from nerve_store.postgres.entries import CheckedRow, Rules
from nerve_store.records import RunClaim

Operation: TypeAlias = dict[str, Any]


class Job:
    """Rows and operations of one call, and what became of them."""

    def __init__(self, *, is_durable: bool, claim: dict[str, Any] | None = None) -> None:
        self.columns = Columns()
        self.operations: list[Operation] = []
        self.claim = claim
        self.is_durable = is_durable
        self.is_plain = claim is None
        """Whether it only appends rows, which nothing can refuse."""
        self.first_id = 0
        self.results: list[Any] = []
        self.error: BaseException | None = None
        self.is_queued = False
        """Whether it was given to be committed."""
        self._has_ended = False
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def append(self, row: CheckedRow) -> None:
        """A row as it is."""
        self.operations.append({"op": "rows", "row": len(self.columns) + 1, "rows": 1})
        self.columns.add(*row)

    def append_many(self, entries: Iterable[Any], *, rules: Rules, claim: RunClaim | None = None) -> int:
        """The rows of a call, all of which must be rows; returns how many there are."""
        first = len(self.columns) + 1
        rows = self.columns.add_new(entries, rules.max_payload_bytes, rules.warn_of_seconds, claim)
        if rows:
            self.operations.append({"op": "rows", "row": first, "rows": rows})
        return rows

    def change(self, operation: Operation, row: CheckedRow | None = None) -> None:
        """Another operation, and the row that it logs."""
        self.is_plain = False
        if row is not None:
            operation["row"] = len(self.columns) + 1
            self.columns.add(*row)
        # A member that is None is left out: it then is NULL, and not JSON's null.
        self.operations.append({name: value for name, value in operation.items() if value is not None})

    def has_ended(self) -> bool:
        """Whether its outcome is known."""
        return self._has_ended

    def check(self) -> None:
        """Raise what refused it."""
        if self.error is not None:
            raise self.error

    def wait(self, timeout: float = -1) -> None:
        """Wait until it is woken, for so many seconds at the most; a signal interrupts."""
        self._sleep.acquire(timeout=timeout)

    def wake(self) -> None:
        """Wake its caller, once."""
        with suppress(RuntimeError):
            self._sleep.release()

    def succeed(self, first_id: int, results: list[Any]) -> None:
        """It was committed; `results` has one item for each operation."""
        self.first_id, self.results = first_id, results
        self._has_ended = True
        self.wake()

    def fail(self, error: BaseException) -> None:
        """It was not committed, or it is unknown whether it was."""
        self.error = error
        self._has_ended = True
        self.wake()


def as_operations(jobs: list[Job]) -> list[dict[str, Any]]:
    """Several jobs as the database takes them, with their rows one after the other."""
    described: list[dict[str, Any]] = []
    offset = 0
    for job in jobs:
        operations = [
            {**operation, "row": operation["row"] + offset} if "row" in operation else operation
            for operation in job.operations
        ]
        described.append({"ops": operations} if job.claim is None else {"ops": operations, "claim": job.claim})
        offset += len(job.columns)
    return described
