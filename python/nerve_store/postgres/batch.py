"""Many things in one commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nerve_store._core import Check
from nerve_store.postgres.claims import carried
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.operations import change_operation, create_operation, key_operation, meta_key, run_operation
from nerve_store.postgres.texts import encode
from nerve_store.records import RunClaim, WorkflowRun
from nerve_store.types import Durability, JsonArgument, Row, Status, Timestamp

if TYPE_CHECKING:
    from nerve_store.postgres.base import OpenPostgres


class PostgresBatch:
    """What is to be written at the end of a `with` block, in one transaction, in the order of the calls.

    An exception in the block discards all of it. An illegal transition or a conflict of keys fails all of it, at the
    end of the block, and changes nothing. `ids` are then those of its rows.
    """

    def __init__(self, store: OpenPostgres, *, durability: Durability | None, claim: RunClaim | None) -> None:
        self._store = store
        self._job = store._job(durability, carried(claim))
        self._row_counts: list[int] = []
        self._is_ended = False
        self.ids: tuple[int, ...] | None = None
        """The ids of its rows, in the order of the calls; a key that was there gives the first row's. None before."""

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
    ) -> None:
        """As `append` of the store; the timestamp None is the time of this call."""
        self._check()
        row = self._store._row(source, type, ref_id, Check.payload(payload, json), timestamp)
        if key is None:
            self._job.append(row)
        else:
            self._job.change(key_operation(key, row), row)
        self._row_counts.append(1)

    def append_many(self, entries: Iterable[Row]) -> None:
        """As `append_many` of the store."""
        self._check()
        rows = Check.entries(entries)
        self._check()
        if rows:
            self._row_counts.append(self._job.append_many(rows, rules=self._store._rules))

    def create_workflow_run(
        self,
        run_id: str,
        workflow: str,
        *,
        status: Status = "queued",
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        not_before: Timestamp | None = None,
        exist_ok: bool = False,
    ) -> None:
        """As `create_workflow_run` of the store."""
        self._check()
        state = Check.status(status)
        row = self._store._row("workflow", str(state), Check.run_id(run_id), Check.payload(payload, json), timestamp)
        self._job.change(create_operation(row, workflow, state, not_before=not_before, exist_ok=exist_ok), row)
        self._row_counts.append(1)

    def upsert_workflow_run(self, entry: Row, run: WorkflowRun, *, force: bool = False) -> None:
        """As `upsert_workflow_run` of the store."""
        self._check()
        row, operation = run_operation(entry, run, force=force, rules=self._store._rules)
        self._job.change(operation, row)
        self._row_counts.append(1)

    def transition(
        self,
        run_id: str,
        status: Status,
        *,
        expect: Status | Collection[Status] | None = None,
        exit_code: int | None = None,
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
    ) -> None:
        """As `transition` of the store."""
        self._check()
        state = Check.status(status)
        row = self._store._row("workflow", str(state), Check.run_id(run_id), Check.payload(payload, json), timestamp)
        self._job.change(change_operation(row, state, expect=expect, exit_code=exit_code), row)
        self._row_counts.append(1)

    def set_meta(self, key: str, value: str) -> None:
        """As `set_meta` of the store."""
        self._check()
        self._job.change({"op": "set_meta", "key": meta_key(key), "value": encode(Check.text(value, "value"))})
        self._row_counts.append(0)

    def delete_meta(self, key: str) -> None:
        """As `delete_meta` of the store."""
        self._check()
        self._job.change({"op": "delete_meta", "key": meta_key(key)})
        self._row_counts.append(0)

    def _check(self) -> None:
        self._store._connections.check()
        if self._is_ended:
            raise RuntimeError("the batch has ended; begin another with batch()")

    def _commit(self) -> None:
        if not self._job.operations:
            self._store._check_writable()
            self.ids = ()
            return
        self._store._commit(self._job, self._end)

    def _end(self, job: Job) -> None:
        if job.is_plain:
            self.ids = tuple(range(job.first_id, job.first_id + len(job.columns)))
            return
        ids: list[int] = []
        for result, count in zip(job.results, self._row_counts, strict=True):
            if count and "id" in result:
                ids += range(result["id"], result["id"] + count)
        self.ids = tuple(ids)

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_ended = True
        if exc_type is None:
            self._commit()
