"""Many things in one commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Protocol, Self

from nerve_store.records import (
    WorkflowRun,
)
from nerve_store.types import JsonArgument, Row, Status, Timestamp


class _Batching(Protocol):
    """What a batch notes; nothing is written before its block ends."""

    @property
    def ids(self) -> tuple[int, ...] | None: ...

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
    ) -> None: ...
    def append_many(self, entries: Iterable[Row]) -> None: ...
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
    ) -> None: ...
    def upsert_workflow_run(self, entry: Row, run: WorkflowRun, *, force: bool = False) -> None: ...
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
    ) -> None: ...
    def set_meta(self, key: str, value: str) -> None: ...
    def delete_meta(self, key: str) -> None: ...


class Batch(_Batching, Protocol):
    """Many things in one commit."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class AsyncBatch(_Batching, Protocol):
    """Many things in one commit; only its end is awaited."""

    async def __aenter__(self) -> _Batching: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
