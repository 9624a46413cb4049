"""The methods of the core whose defaults are spans of time, and those with a part in Python.

The signature of a native method can show numbers and texts alone. These methods therefore call the native ones, which
have no defaults and hold the documentation. Where days lie in an object store, more is done there after a job.
"""

from __future__ import annotations

from datetime import timedelta

from nerve_store._core import DEFAULT_RETENTION, BlobStore, LogStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date
    from typing import Literal

    from nerve_store.records import ArchivedDay, ArchiveResult, CollectReport, VerifyReport
    from nerve_store.types import Progress, Timestamp

_DEFAULT_GRACE = timedelta(hours=1)


def archive_logs(
    self: LogStore,
    *,
    now: Timestamp | None = None,
    retention: timedelta = DEFAULT_RETENTION,
    max_days: int | None = None,
    vacuum: bool | Literal["incremental"] = False,
    compression: Literal["zstd"] | None = None,
    dry_run: bool = False,
    wait: float = 0.0,
    progress: Progress | None = None,
) -> ArchiveResult:
    result = self._archive_logs(
        now=now,
        retention=retention,
        max_days=max_days,
        vacuum=vacuum,
        compression=compression,
        dry_run=dry_run,
        wait=wait,
        progress=progress,
    )
    remote = self._remote
    return result if remote is None or dry_run else remote.after_job(self, result, wait)


def expire_archive(self: LogStore, *, before: date, dry_run: bool = False) -> list[ArchivedDay]:
    days = self._expire_archive(before=before, dry_run=dry_run)
    remote = self._remote
    if remote is not None and not dry_run:
        remote.after_expiry(self)
    return days


def verify(self: LogStore, *, progress: Progress | None = None) -> VerifyReport:
    report = self._verify(progress=progress)
    remote = self._remote
    return report if remote is None else remote.after_verification(self, report)


def collect(
    self: BlobStore,
    keep: Iterable[str],
    *,
    grace: timedelta = _DEFAULT_GRACE,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> CollectReport:
    return self._collect(keep, grace=grace, dry_run=dry_run, progress=progress)


def _give(cls: type, method: Callable[..., object]) -> None:
    method.__doc__ = getattr(cls, f"_{method.__name__}").__doc__
    method.__qualname__ = f"{cls.__name__}.{method.__name__}"
    method.__module__ = cls.__module__
    setattr(cls, method.__name__, method)


_give(LogStore, archive_logs)
_give(LogStore, expire_archive)
_give(LogStore, verify)
_give(BlobStore, collect)
