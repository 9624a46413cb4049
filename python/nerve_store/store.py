"""The facade over one data directory."""

from __future__ import annotations

import os

from nerve_store._core import BlobStore, LogStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from nerve_store.records import BackupReport
    from nerve_store.types import Durability, Path, Progress

__all__ = ["Store"]


class Store:
    """One data directory: `logs.db` and its archive behind `logs`, the blobs behind `blobs`.

    The directory is created when it is missing, with mode 0700. Use it as a context manager, or call `close()`.
    """

    logs: LogStore
    blobs: BlobStore

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
    ) -> None:
        """Open the directory `path`; the options are those of `LogStore` and `BlobStore`."""
        self._path = directory_path(path)
        # It opens nothing, so that nothing is left open if the log cannot be opened.
        self.blobs = BlobStore(os.path.join(self._path, "blobs"), durability=durability, read_only=read_only)
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
        damaged database is a `CorruptStoreError`.

        Given again with the same `target`, only new archive files and blobs are copied, and the database as a whole.
        Nothing is deleted there. Where the file system can, compressed archive files and blobs share their bytes with
        the originals. The target is a whole backup at every instant, or refuses to be opened: a call that was
        interrupted is simply repeated. A directory with a database that is no backup of this one, or that was opened
        for writing since, is refused (`StoreIOError`). `progress` is called with (done, total) bytes.
        """
        report: BackupReport = self.logs._backup_directory(target, self.blobs, progress=progress)  # noqa: SLF001
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
