"""The facade over one data directory."""

from __future__ import annotations

import os

from nerve_store._core import BlobStore, LogStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Self

    from nerve_store.records import BackupReport
    from nerve_store.types import Durability, Path, Progress

__all__ = ["Store"]

MAX_CACHE_BYTES = 1 << 30
_SCHEMES = ("s3://", "gs://", "az://", "file://", "memory://")


class Store:
    """One data directory: `logs.db` and its archive behind `logs`, the blobs behind `blobs`.

    The directory is created when it is missing, with mode 0700. Use it as a context manager, or call `close()`.

    - `remote`: a URL as `ObjectBlobStore` takes it, for `blobs`, which is then one of these (under `blobs/` there), and
      for the files of archived days (under `logs/`): `archive_logs` sends each of them there, reads it back, and only
      then removes it here. Reads fetch it again, through the directory `cache`; where the object store gives no answer,
      they raise `StoreUnavailableError`. Opening the store asks the object store, too. Needs the extra `s3`.
    - `remote_options`: the `options` of `ObjectBlobStore`.
    - `max_cache_bytes`: what `cache` may hold; a day that is larger is kept alone.
    """

    logs: LogStore
    blobs: BlobStore
    """With `remote` an `ObjectBlobStore`, which has the same methods."""

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        archive_dir: Path | None = None,
        segment_rows: int = 4096,
        max_payload_bytes: int = 67108864,
        progress: Progress | None = None,
        remote: str | None = None,
        remote_options: Mapping[str, Any] | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        """Open the directory `path`; the other options are those of `LogStore` and `BlobStore`."""
        self._path = directory_path(path)
        check_remote(remote, remote_options, max_cache_bytes)
        # It opens nothing, so that nothing is left open if the log cannot be opened.
        local = BlobStore(os.path.join(self._path, "blobs"), durability=durability, read_only=read_only)
        self._local_blobs = local
        if remote is None:
            self.blobs = local
        else:
            from nerve_store.remote.blobs.store import ObjectBlobStore

            objects: Any = ObjectBlobStore(below(remote, "blobs"), options=remote_options, read_only=read_only)
            self.blobs = objects
        self.logs = LogStore(
            os.path.join(self._path, "logs.db"),
            durability=durability,
            read_only=read_only,
            busy_timeout=busy_timeout,
            archive_dir=archive_dir,
            segment_rows=segment_rows,
            max_payload_bytes=max_payload_bytes,
            progress=progress,
        )
        if remote is not None:
            attach_days(self.logs, self._path, remote, remote_options, max_cache_bytes)

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._path

    @property
    def archive_dir(self) -> str:
        """The absolute path of the directory of the day files."""
        return self.logs.archive_dir

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self.logs.closed

    def backup(self, target: Path, *, progress: Progress | None = None) -> BackupReport:
        """Copy the store to the directory `target`, while others write, append, archive and store blobs.

        The copy is a data directory of its own: `logs.db`, `archive/logs` and `blobs`, wherever `archive_dir` of this
        store is. Every row acknowledged before the call is in it. What is copied is read back and compared with its
        checksums before it gets its name. Archive files and blobs that are damaged or missing are in the report; a
        damaged database is a `CorruptStoreError`. With `remote`, days that lie there are fetched, so that the copy is
        whole without it; blobs there are not copied.

        Given again with the same `target`, only new archive files and blobs are copied, and the database as a whole.
        Nothing is deleted there. Where the file system can, compressed archive files and blobs share their bytes with
        the originals. The target is a whole backup at every instant, or refuses to be opened: a call that was
        interrupted is simply repeated. A directory with a database that is no backup of this one, or that was opened
        for writing since, is refused (`StoreIOError`). `progress` is called with (done, total) bytes.
        """
        report: BackupReport = self.logs._backup_directory(  # noqa: SLF001
            target, self._local_blobs, progress=progress
        )
        return report

    def close(self) -> None:
        """Close the log database, and let go of the blobs' directories; harmless when that was done already."""
        self.logs.close()
        self.blobs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self._path!r})"


def check_remote(remote: object, options: object, max_cache_bytes: object) -> None:
    """Refuse what names no place in an object store."""
    if not isinstance(remote, str | None):
        raise TypeError(f"remote must be a URL or None, not {type(remote).__name__}")
    if remote is not None and not remote.startswith(_SCHEMES):
        known = ", ".join(_SCHEMES)
        raise ValueError(f"remote {remote!r} is no place in an object store: begin with {known}")
    if remote is None and options is not None:
        raise ValueError("remote_options are for a remote, and there is none")
    if isinstance(max_cache_bytes, bool) or not isinstance(max_cache_bytes, int):
        raise TypeError(f"max_cache_bytes must be int, not {type(max_cache_bytes).__name__}")
    if max_cache_bytes < 0:
        raise ValueError(f"max_cache_bytes is at least 0, not {max_cache_bytes}")


def below(remote: str, folder: str) -> str:
    """The URL of a folder."""
    return f"{remote.rstrip('/')}/{folder}"


def attach_days(
    logs: LogStore, path: str, remote: str, options: Mapping[str, Any] | None, max_cache_bytes: int
) -> None:
    """Have the days of the log in the object store."""
    from nerve_store.remote.days.archive import RemoteDays

    cache = os.path.join(path, "cache")
    days = RemoteDays(below(remote, "logs"), options or {}, cache=cache, most_cached_bytes=max_cache_bytes)
    try:
        days.attach_to(logs)
    except BaseException:
        logs.close()
        raise


def directory_path(path: Path) -> str:
    """The absolute path of a data directory."""
    given: Any = path  # what a caller without a type checker passes
    text: Any = os.fspath(given) if isinstance(given, str) or hasattr(given, "__fspath__") else given
    if not isinstance(text, str):
        raise TypeError(f"path must be str or os.PathLike, not {type(text).__name__}")
    if "\0" in text:
        raise ValueError("path is no path: it contains a NUL character")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        error.reason += " in path"
        raise
    return os.path.abspath(text)
