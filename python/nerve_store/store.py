"""The facade over one data directory, or over a log on a server and an object store."""

from __future__ import annotations

import os

from nerve_store._core import BlobStore, LogStore
from nerve_store._places import MAX_CACHE_BYTES, below, check_cache, check_remote, directory_path, is_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Self

    from nerve_store.records import BackupReport
    from nerve_store.types import Durability, Path, Progress

__all__ = ["Store"]

SCHEMA, SEGMENT_ROWS = "nerve", 4096


class Store:
    """One data directory: `logs.db` and its archive behind `logs`, the blobs behind `blobs`.

    The directory is created when it is missing, with mode 0700. Use it as a context manager, or call `close()`.

    In place of a directory, `path` may be `postgresql://user@host/database`: `logs` is then a `PostgresLogStore`, and
    `remote` has all the days and blobs. Needs the extras `postgres` and `s3`.

    - `remote`: a URL as `ObjectBlobStore` takes it, for `blobs`, which is then one of these (under `blobs/` there), and
      for the files of archived days (under `logs/`): `archive_logs` sends each of them there, reads it back, and only
      then removes it here. Reads fetch it again, through the directory `cache`; where the object store gives no answer,
      they raise `StoreUnavailableError`. Opening the store asks the object store, too. Needs the extra `s3`.
    - `remote_options`: the `options` of `ObjectBlobStore`.
    - `cache`: the directory for what was fetched; `cache` in the data directory, or on a server a temporary one. Only
      files that a cache has made are removed there; one that is not apart from the days or the blobs is a `ValueError`.
    - `max_cache_bytes`: what it may hold; a day that is larger is kept alone.
    - `schema`, `listen_url`: on a server, those of `PostgresLogStore`.
    """

    logs: LogStore
    """On a server a `PostgresLogStore`, which has the same methods."""
    _local_blobs: BlobStore | None = None
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
        segment_rows: int = SEGMENT_ROWS,
        max_payload_bytes: int = 67108864,
        progress: Progress | None = None,
        remote: str | None = None,
        remote_options: Mapping[str, Any] | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
        cache: Path | None = None,
        schema: str = SCHEMA,
        listen_url: str | None = None,
    ) -> None:
        """Open the directory `path`, or the log there; the other options are those of `LogStore` and `BlobStore`."""
        check_remote(remote, remote_options, max_cache_bytes)
        if isinstance(path, str) and is_url(path):
            place = remote_of_server(remote, archive_dir, segment_rows, progress)
            from nerve_store.postgres import PostgresLogStore
            from nerve_store.remote import ObjectBlobStore

            objects: Any = ObjectBlobStore(below(place, "blobs"), options=remote_options, read_only=read_only)
            logs: Any = PostgresLogStore(
                path,
                schema=schema,
                archive=place,
                archive_options=remote_options,
                cache=cache,
                max_cache_bytes=max_cache_bytes,
                listen_url=listen_url,
                durability=durability,
                read_only=read_only,
                busy_timeout=busy_timeout,
                max_payload_bytes=max_payload_bytes,
            )
            self.blobs, self.logs = objects, logs
            self._path = self.logs.path
            return
        self._path = directory_path(path)
        refuse_server_options(schema, listen_url)
        fetched = cache_directory(self._path, cache, archive_dir, remote)
        # It opens nothing, so that nothing is left open if the log cannot be opened.
        local = BlobStore(os.path.join(self._path, "blobs"), durability=durability, read_only=read_only)
        self._local_blobs = local
        if remote is None:
            self.blobs = local
        else:
            from nerve_store.remote.blobs.store import ObjectBlobStore

            blobs: Any = ObjectBlobStore(below(remote, "blobs"), options=remote_options, read_only=read_only)
            self.blobs = blobs
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
            attach_days(self.logs, self._path, remote, remote_options, max_cache_bytes, cache=fetched)

    @property
    def path(self) -> str:
        """The directory, absolute; on a server the URL without its password, `#` and the schema."""
        return self._path

    @property
    def archive_dir(self) -> str:
        """The absolute path of the directory of the day files; on a server the URL of the days."""
        return self.logs.archive_dir

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self.logs.closed

    def backup(self, target: Path, *, progress: Progress | None = None) -> BackupReport:
        """Copy the store to the directory `target`, while others write, append, archive and store blobs.

        The copy is a data directory of its own: `logs.db`, `archive/logs` and `blobs`, wherever `archive_dir` of this
        store is. Every row acknowledged before the call is in it. What is copied is read back and compared with its
        checksums before it gets its name. Archive files and blobs that are damaged, are missing or cannot be read are
        in the report, and all others are copied; a damaged database is a `CorruptStoreError`. With `remote`, days that
        lie there are fetched, so that the copy is whole without it; blobs there are not copied.

        Given again with the same `target`, only new archive files and blobs are copied, and the database as a whole.
        Files that are there with the same size and time of last write are not read again: `verify` of the copy reads
        them, and `verify` of the store reads the originals. Nothing is deleted there. Where the file system can,
        compressed archive files and blobs share their bytes with the originals. The target is a whole backup at every
        instant, or refuses to be opened: a call that was interrupted is simply repeated. A directory with a database
        that is no backup of this one, or that was opened for writing since, is refused (`StoreIOError`), and so is a
        part of this store (`ValueError`). `progress` is called with (done, total) bytes. A log on a server is backed up
        by the server's own means (`NerveStoreError`).
        """
        if self._local_blobs is None:
            return self.logs.backup(target)
        report: BackupReport = self.logs._backup_directory(  # noqa: SLF001
            target, self._local_blobs, progress=progress
        )
        return report

    def close(self) -> None:
        """Close the log database, and let go of the blobs' directories; harmless when that was done already."""
        try:
            self.logs.close()
        finally:
            self.blobs.close()
            if self._local_blobs is not None:
                self._local_blobs.close()

    def __enter__(self) -> Self:
        self.logs.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self._path!r})"


def remote_of_server(remote: str | None, archive_dir: Path | None, segment_rows: int, progress: Progress | None) -> str:
    """The place for the days and blobs of a log on a server; refuses what is about files of this machine."""
    for name, is_given in (
        ("archive_dir", archive_dir is not None),
        ("segment_rows", segment_rows != SEGMENT_ROWS),
        ("progress", progress is not None),
    ):
        if is_given:
            raise ValueError(f"{name} is for a data directory, and path is a log on a server")
    if remote is None:
        raise ValueError("a store on a server needs remote= for its days and blobs; PostgresLogStore is the log alone")
    return remote


def refuse_server_options(schema: str, listen_url: str | None) -> None:
    """Refuse what is about a server."""
    for name, is_given in (("schema", schema != SCHEMA), ("listen_url", listen_url is not None)):
        if is_given:
            raise ValueError(f"{name} is for a log on a server, and path is a data directory")


def cache_directory(path: str, cache: Path | None, archive_dir: Path | None, remote: str | None) -> str | None:
    """`cache` of the data directory `path`, absolute; `ValueError` if it is not apart from days and blobs."""
    if cache is None or remote is None:
        return None
    directory = directory_path(cache, "cache")
    days = os.path.join(path, "archive") if archive_dir is None else directory_path(archive_dir, "archive_dir")
    check_cache(directory, os.path.join(path, "blobs"), days, remote)
    return directory


def attach_days(
    logs: LogStore,
    path: str,
    remote: str,
    options: Mapping[str, Any] | None,
    max_cache_bytes: int,
    *,
    cache: str | None = None,
) -> None:
    """Have the days of the log of the data directory `path` in the object store."""
    from nerve_store.remote.days.archive import RemoteDays

    directory = cache or os.path.join(path, "cache")
    days = RemoteDays(below(remote, "logs"), options or {}, cache=directory, most_cached_bytes=max_cache_bytes)
    try:
        days.attach_to(logs)
    except BaseException:
        logs.close()
        raise
