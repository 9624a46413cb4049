"""What every log and every blob store of nerve_store can do, whatever lies beneath: types for programs that take either.

The methods mean what `LogStore` and `BlobStore` document. A `LogStore` and a `PostgresLogStore` are a `Log`; the
asynchronous stores are an `AsyncLog`, in which `iter`, `follow`, `read_archive` and `batch` are not awaited.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol, Self, TypeAlias

from nerve_store._core import DEFAULT_RETENTION, LogEntry, NewLogEntry
from nerve_store.records import (
    ArchivedDay,
    ArchiveResult,
    BlobStats,
    BlobVerifyReport,
    CollectReport,
    LogStats,
    RunClaim,
    ThreadMessage,
    ThreadRound,
    VerifyReport,
    WorkflowRun,
    WorkflowRunStatus,
)

__all__ = ["AsyncBatch", "AsyncBlobs", "AsyncLog", "Batch", "BlobWriting", "Blobs", "Following", "Log"]

Durability: TypeAlias = Literal["full", "normal"]
Row: TypeAlias = NewLogEntry | LogEntry | tuple[str, str, str | None, str | None, int | None]
Status: TypeAlias = WorkflowRunStatus | str
Time: TypeAlias = int | datetime
Progress: TypeAlias = Callable[[int, int], object]
Buffer: TypeAlias = bytes | bytearray | memoryview


class Following(Protocol):
    """The rows of a filter as they are appended; `close()` from any thread ends the iteration."""

    def __iter__(self) -> Iterator[LogEntry]: ...
    def __next__(self) -> LogEntry: ...
    def close(self) -> None: ...


class _Batching(Protocol):
    """What a batch notes; nothing is written before its block ends."""

    ids: tuple[int, ...] | None

    def append(
        self,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: Time | None = None,
        *,
        json: Any = ...,
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
        json: Any = ...,
        timestamp: Time | None = None,
        not_before: Time | None = None,
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
        json: Any = ...,
        timestamp: Time | None = None,
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

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


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
        timestamp: Time | None = None,
        *,
        json: Any = ...,
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
        since: Time | None = None,
        until: Time | None = None,
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
        since: Time | None = None,
        until: Time | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> Iterator[LogEntry]: ...
    def count(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
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
        since: Time | None = None,
        until: Time | None = None,
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
        json: Any = ...,
        timestamp: Time | None = None,
        not_before: Time | None = None,
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
        json: Any = ...,
        timestamp: Time | None = None,
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
        since: Time | None = None,
        until: Time | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> list[WorkflowRun]: ...
    def iter_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
        since: Time | None = None,
        until: Time | None = None,
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
    def delete_workflow_runs(self, *, before: Time, workflow: str | Collection[str] | None = None) -> int: ...
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
        now: Time | None = None,
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
    def backup(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
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
        timestamp: Time | None = None,
        *,
        json: Any = ...,
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
        since: Time | None = None,
        until: Time | None = None,
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
        since: Time | None = None,
        until: Time | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> AsyncIterator[LogEntry]: ...
    async def count(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
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
        since: Time | None = None,
        until: Time | None = None,
        archived: bool = True,
    ) -> AsyncIterator[LogEntry]: ...
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
        json: Any = ...,
        timestamp: Time | None = None,
        not_before: Time | None = None,
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
        json: Any = ...,
        timestamp: Time | None = None,
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
        since: Time | None = None,
        until: Time | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> list[WorkflowRun]: ...
    def iter_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
        since: Time | None = None,
        until: Time | None = None,
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
    async def delete_workflow_runs(self, *, before: Time, workflow: str | Collection[str] | None = None) -> int: ...
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
        now: Time | None = None,
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
    async def backup(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> None: ...
    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class BlobWriting(Protocol):
    """A file that becomes a blob when it is closed."""

    @property
    def hash(self) -> str: ...
    def write(self, data: str | Buffer) -> int: ...
    def close(self) -> None: ...
    def discard(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


class Blobs(Protocol):
    """Content-addressed bytes, named by their sha256."""

    def write(self, data: str | Buffer) -> str: ...
    def write_many(self, items: Iterable[str | Buffer]) -> list[str]: ...
    def write_file(self, file: str | os.PathLike[str] | BinaryIO) -> str: ...
    def writer(self) -> BlobWriting: ...
    def read(self, hash: str) -> bytes | None: ...
    def open(self, hash: str) -> BinaryIO: ...
    def exists(self, hash: str, *, verify: bool = True) -> bool: ...
    def delete(self, hash: str) -> bool: ...
    def size(self, hash: str) -> int: ...
    def stats(self) -> BlobStats: ...
    def verify(self, *, progress: Progress | None = None) -> BlobVerifyReport: ...
    def collect(
        self,
        keep: Iterable[str],
        *,
        grace: timedelta = timedelta(hours=1),
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CollectReport: ...
    def close(self) -> None: ...
    def __contains__(self, hash: str, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...


class AsyncBlobs(Protocol):
    """`Blobs` whose methods are awaited."""

    async def write(self, data: str | Buffer) -> str: ...
    async def write_many(self, items: Iterable[str | Buffer]) -> list[str]: ...
    async def write_file(self, file: str | os.PathLike[str] | BinaryIO) -> str: ...
    async def read(self, hash: str) -> bytes | None: ...
    async def exists(self, hash: str, *, verify: bool = True) -> bool: ...
    async def delete(self, hash: str) -> bool: ...
    async def size(self, hash: str) -> int: ...
    async def stats(self) -> BlobStats: ...
    async def verify(self, *, progress: Progress | None = None) -> BlobVerifyReport: ...
    async def collect(
        self,
        keep: Iterable[str],
        *,
        grace: timedelta = timedelta(hours=1),
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CollectReport: ...
    async def close(self) -> None: ...
