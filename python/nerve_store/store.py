"""The facade over one data directory."""

from __future__ import annotations

import os

from nerve_store._core import BlobStore, LogStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Literal, Self

    from nerve_store.records import BackupReport

__all__ = ["Store"]


class Store:
    """One data directory: `logs.db` and its archive behind `logs`, the blobs behind `blobs`.

    The directory is created when it is missing, with mode 0700. Use it as a context manager, or call `close()`.
    """

    logs: LogStore
    blobs: BlobStore

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal"] = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
    ) -> None:
        """Open the directory `path`; the options are those of `LogStore` and `BlobStore`."""
        directory = os.fspath(path)
        self.path = directory
        self.logs = LogStore(
            os.path.join(directory, "logs.db"),
            durability=durability,
            read_only=read_only,
            busy_timeout=busy_timeout,
        )
        self.blobs = BlobStore(os.path.join(directory, "blobs"), durability=durability, read_only=read_only)

    def backup(
        self, target: str | os.PathLike[str], *, progress: Callable[[int, int], object] | None = None
    ) -> BackupReport:
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
        return f"Store({self.path!r})"
