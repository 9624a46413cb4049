"""The methods of the core whose defaults are spans of time.

The signature of a native method can show numbers and texts alone. These methods therefore call the native ones, which
have no defaults and hold the documentation.
"""

from __future__ import annotations

from datetime import timedelta

from nerve_store._core import DEFAULT_RETENTION, BlobStore, LogStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from nerve_store.records import ArchiveResult, CollectReport
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
    return self._archive_logs(
        now=now,
        retention=retention,
        max_days=max_days,
        vacuum=vacuum,
        compression=compression,
        dry_run=dry_run,
        wait=wait,
        progress=progress,
    )


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
_give(BlobStore, collect)
