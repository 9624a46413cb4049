"""The facade over one data directory."""

from __future__ import annotations

import os

from nerve_store._core import BlobStore, LogStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal, Self

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
