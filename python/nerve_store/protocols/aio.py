"""What an asynchronous log can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from nerve_store._core import DEFAULT_RETENTION, ArrowStream, LogEntry
from nerve_store.protocols.batch import AsyncBatch
from nerve_store.records import (
    ArchivedDay,
    ArchiveResult,
    LogStats,
    RunClaim,
    ThreadMessage,
    ThreadRound,
    VerifyReport,
    WorkflowRun,
    WorkflowRunStatus,
)
from nerve_store.types import Durability, JsonArgument, Path, Progress, Row, Status, Timestamp


class AsyncFollowing(Protocol):
    """A `Following` in an event loop: `async with` begins it at once, and closes it at the end."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> LogEntry: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class AsyncLog(Protocol):
    """A `Log` whose methods are awaited."""

    @property
    def path(self) -> str: ...
    @property
    def archive_dir(self) -> str: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    async def append(
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
    ) -> LogEntry: ...
    async def append_many(
        self,
        entries: Iterable[Row],
        *,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> range: ...
    def batch(self, *, durability: Durability | None = None, claim: RunClaim | None = None) -> AsyncBatch: ...
    async def query(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> list[LogEntry]: ...
    def iter(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> AsyncIterator[LogEntry]: ...
    def arrow(
        self,
        *,
        batch_rows: int = 65536,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> ArrowStream: ...
    async def count(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> int: ...
    def follow(
        self,
        *,
        after_id: int | None = None,
        poll_interval: float = 0.05,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        archived: bool = True,
    ) -> AsyncFollowing: ...
    async def sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] = (), *, timeout: float | None = None
    ) -> list[tuple[Any, ...]]: ...
    async def get_meta(self, key: str) -> str | None: ...
    async def set_meta(self, key: str, value: str) -> None: ...
    async def delete_meta(self, key: str) -> bool: ...
    async def list_meta(self, prefix: str = "") -> dict[str, str]: ...
    async def create_workflow_run(
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
        durability: Durability | None = None,
    ) -> WorkflowRun: ...
    async def upsert_workflow_run(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry: ...
    async def append_with_workflow_update(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry: ...
    async def transition(
        self,
        run_id: str,
        status: Status,
        *,
        expect: Status | Collection[Status] | None = None,
        exit_code: int | None = None,
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> WorkflowRun: ...
    async def get_workflow_run(self, run_id: str) -> WorkflowRun | None: ...
    async def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]: ...
    async def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]: ...
    async def query_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> list[WorkflowRun]: ...
    def iter_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> AsyncIterator[WorkflowRun]: ...
    async def count_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
    ) -> dict[WorkflowRunStatus, int]: ...
    async def delete_workflow_runs(
        self, *, before: Timestamp, workflow: str | Collection[str] | None = None
    ) -> int: ...
    async def claim_workflow_run(
        self,
        owner: str,
        *,
        workflow: str | Collection[str] | None = None,
        run_id: str | None = None,
        lease: float | timedelta = 60.0,
        wait: float | timedelta = 0.0,
        max_attempts: int | None = None,
        durability: Durability | None = None,
    ) -> RunClaim | None: ...
    async def renew_claim(self, claim: RunClaim, *, lease: float | timedelta | None = None) -> RunClaim: ...
    async def release_claim(self, claim: RunClaim, *, delay: float | timedelta = 0.0) -> WorkflowRun: ...
    async def get_trigger_payload(self, run_id: str) -> Any: ...
    async def get_thread_events(self, run_id: str) -> list[dict[str, Any]]: ...
    async def get_thread_messages(self, run_id: str) -> list[ThreadMessage]: ...
    async def get_thread_round_count(self, run_id: str) -> int: ...
    async def get_thread_rounds(self, run_id: str, *, before: int = 0, limit: int) -> list[ThreadRound]: ...
    async def archive_logs(
        self,
        *,
        now: Timestamp | None = None,
        retention: timedelta = DEFAULT_RETENTION,
        max_days: int | None = None,
        vacuum: bool | Literal["incremental"] = False,
        compression: Literal["zstd"] | None = None,
        dry_run: bool = False,
        wait: float = 0.0,
        progress: Progress | None = None,
    ) -> ArchiveResult: ...
    async def archived_days(self) -> list[ArchivedDay]: ...
    def read_archive(self, day: date) -> AsyncIterator[LogEntry]: ...
    async def restore_archive(self, day: date, *, progress: Progress | None = None) -> int: ...
    async def expire_archive(self, *, before: date, dry_run: bool = False) -> list[ArchivedDay]: ...
    async def verify(self, *, progress: Progress | None = None) -> VerifyReport: ...
    async def reindex(self, *, progress: Progress | None = None) -> None: ...
    async def stats(self, *, exact: bool = False) -> LogStats: ...
    async def backup(self, target: Path, *, progress: Progress | None = None) -> object: ...
    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
