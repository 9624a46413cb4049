"""What a log can do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from types import TracebackType
from typing import Any, Literal, Protocol, Self, runtime_checkable

from nerve_store._core import DEFAULT_RETENTION, ArrowStream, LogEntry
from nerve_store.protocols.batch import Batch
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


class Following(Protocol):
    """The rows of a filter as they are appended; `close()` from any thread ends the iteration."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> LogEntry: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Log(Protocol):
    """An append-only log with workflow runs, meta and an archive."""

    @property
    def path(self) -> str: ...
    @property
    def archive_dir(self) -> str: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
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
    ) -> LogEntry: ...
    def append_many(
        self,
        entries: Iterable[Row],
        *,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> range: ...
    def batch(self, *, durability: Durability | None = None, claim: RunClaim | None = None) -> Batch: ...
    def query(
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
    ) -> Iterator[LogEntry]: ...
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
    def count(
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
    ) -> Following: ...
    def sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] = (), *, timeout: float | None = None
    ) -> list[tuple[Any, ...]]: ...
    def get_meta(self, key: str) -> str | None: ...
    def set_meta(self, key: str, value: str) -> None: ...
    def delete_meta(self, key: str) -> bool: ...
    def list_meta(self, prefix: str = "") -> dict[str, str]: ...
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
        durability: Durability | None = None,
    ) -> WorkflowRun: ...
    def upsert_workflow_run(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry: ...
    def append_with_workflow_update(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry: ...
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
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> WorkflowRun: ...
    def get_workflow_run(self, run_id: str) -> WorkflowRun | None: ...
    def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]: ...
    def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]: ...
    def query_workflow_runs(
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
    ) -> Iterator[WorkflowRun]: ...
    def count_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
    ) -> dict[WorkflowRunStatus, int]: ...
    def delete_workflow_runs(self, *, before: Timestamp, workflow: str | Collection[str] | None = None) -> int: ...
    def claim_workflow_run(
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
    def renew_claim(self, claim: RunClaim, *, lease: float | timedelta | None = None) -> RunClaim: ...
    def release_claim(self, claim: RunClaim, *, delay: float | timedelta = 0.0) -> WorkflowRun: ...
    def get_trigger_payload(self, run_id: str) -> Any: ...
    def get_thread_events(self, run_id: str) -> list[dict[str, Any]]: ...
    def get_thread_messages(self, run_id: str) -> list[ThreadMessage]: ...
    def get_thread_round_count(self, run_id: str) -> int: ...
    def get_thread_rounds(self, run_id: str, *, before: int = 0, limit: int) -> list[ThreadRound]: ...
    def archive_logs(
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
    def archived_days(self) -> list[ArchivedDay]: ...
    def read_archive(self, day: date) -> Iterator[LogEntry]: ...
    def restore_archive(self, day: date, *, progress: Progress | None = None) -> int: ...
    def expire_archive(self, *, before: date, dry_run: bool = False) -> list[ArchivedDay]: ...
    def verify(self, *, progress: Progress | None = None) -> VerifyReport: ...
    def reindex(self, *, progress: Progress | None = None) -> None: ...
    def stats(self, *, exact: bool = False) -> LogStats: ...
    def backup(self, target: Path, *, progress: Progress | None = None) -> object: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
