"""A batch in an event loop."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from nerve_store._core import WriteBatch
from nerve_store.aio.base import OpenStore, documented
from nerve_store.records import WorkflowRun
from nerve_store.types import Expected, JsonArgument, Row, Status, Timestamp


class AsyncBatch:
    """A batch in an event loop, `async with logs.batch() as batch`: only its end is awaited."""

    def __init__(self, store: OpenStore, batch: WriteBatch) -> None:
        self._store = store
        self._batch = batch

    @property
    @documented(WriteBatch.ids)
    def ids(self) -> tuple[int, ...] | None:
        return self._batch.ids

    @documented(WriteBatch.append)
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
        self._batch.append(source, type, ref_id, payload, timestamp, json=json, key=key)

    @documented(WriteBatch.append_many)
    def append_many(self, entries: Iterable[Row]) -> None:
        self._batch.append_many(entries)

    @documented(WriteBatch.create_workflow_run)
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
        self._batch.create_workflow_run(
            run_id,
            workflow,
            status=status,
            payload=payload,
            json=json,
            timestamp=timestamp,
            not_before=not_before,
            exist_ok=exist_ok,
        )

    @documented(WriteBatch.upsert_workflow_run)
    def upsert_workflow_run(self, entry: Row, run: WorkflowRun, *, force: bool = False) -> None:
        self._batch.upsert_workflow_run(entry, run, force=force)

    @documented(WriteBatch.transition)
    def transition(
        self,
        run_id: str,
        status: Status,
        *,
        expect: Expected | None = None,
        exit_code: int | None = None,
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
    ) -> None:
        self._batch.transition(
            run_id, status, expect=expect, exit_code=exit_code, payload=payload, json=json, timestamp=timestamp
        )

    @documented(WriteBatch.set_meta)
    def set_meta(self, key: str, value: str) -> None:
        self._batch.set_meta(key, value)

    @documented(WriteBatch.delete_meta)
    def delete_meta(self, key: str) -> None:
        self._batch.delete_meta(key)

    async def __aenter__(self) -> WriteBatch:
        return self._batch.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is not None:
            self._batch._end()
            return
        self._batch._committed(await self._store._write(self._batch._commit))
