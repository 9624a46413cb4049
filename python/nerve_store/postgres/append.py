"""Appending rows, alone or with a key."""

from __future__ import annotations

from collections.abc import Iterable

from nerve_store._core import Check, LogEntry
from nerve_store.postgres.base import OpenPostgres
from nerve_store.postgres.batch import PostgresBatch
from nerve_store.postgres.claims import carried
from nerve_store.postgres.entries import CheckedRow
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.operations import key_operation
from nerve_store.records import RunClaim
from nerve_store.types import Durability, JsonArgument, Row, Timestamp


def _stored(row: CheckedRow, job: Job) -> LogEntry:
    """The row that the job appended, or that one with its key did before."""
    if job.is_plain:
        return row.stored(job.first_id)
    (result,) = job.results
    if "timestamp" in result:
        row = row._replace(timestamp=result["timestamp"])
    return row.stored(result["id"])


def _ids(job: Job) -> range:
    """The ids of the rows that the job appended."""
    first_id = job.first_id if job.is_plain else job.results[0]["id"]
    return range(first_id, first_id + len(job.columns))


class Appends(OpenPostgres):
    """Appending."""

    def append(
        self,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: Timestamp | None = None,
        *,
        json: JsonArgument = ...,
        key: str | None = None,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry:
        """Append one row and return it; it is as durable as asked when this returns. `timestamp` None: now.

        `key` makes it idempotent: a later append with the same key appends nothing and returns the first row, or is an
        `IdempotencyError` if it has another source, type, ref_id or payload. `claim` fences: a claim that is not the
        newest of its run is a `ClaimLostError`. `json` is serialized as the payload.
        """
        row = self._row(source, type, ref_id, Check.payload(payload, json), timestamp)
        job = self._job(durability, carried(claim, row.ref_id))
        if key is None:
            job.append(row)
        else:
            job.change(key_operation(key, row), row)
        return self._commit(job, lambda job: _stored(row, job))

    def append_many(
        self,
        entries: Iterable[Row],
        *,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> range:
        """Append rows in one transaction, all or none; returns their ids.

        A tuple is (source, type, ref_id, payload, timestamp); the id of a `LogEntry` is ignored. Every row is checked
        before anything is written; an error names the index of the row. Rows of over 1 GiB together are a `ValueError`.
        """
        job = self._job(durability, carried(claim))
        if not job.append_many(entries, rules=self._rules, claim=claim):
            self._check_writable()
            return range(0)
        return self._commit(job, _ids)

    def batch(self, *, durability: Durability | None = None, claim: RunClaim | None = None) -> PostgresBatch:
        """Many things in one commit: a context manager that writes at its end what was noted, all or nothing."""
        return PostgresBatch(self, durability=durability, claim=claim)
