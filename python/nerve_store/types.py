"""The types of arguments, by name, for annotations of your own: `from nerve_store.types import Status`.

The stub of the core and the asynchronous classes take theirs from here, so that the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import os
    from types import EllipsisType
    from typing import BinaryIO

    from typing_extensions import Buffer

    from nerve_store._core import LogEntry, NewLogEntry
    from nerve_store.records import WorkflowRunStatus

__all__ = [
    "Data",
    "Durability",
    "Expected",
    "File",
    "Json",
    "JsonArgument",
    "Path",
    "Progress",
    "Readable",
    "Row",
    "SqlParameters",
    "SqlValue",
    "Status",
    "StatusName",
    "Timestamp",
]

Durability: TypeAlias = Literal["full", "normal"]
"""What a returned call survives: "full": power loss; "normal": the kill of the process."""

StatusName: TypeAlias = Literal[
    "queued", "started", "completed", "failed", "crashed", "interrupted", "dropped", "killed"
]
"""The value of a `WorkflowRunStatus`."""

Status: TypeAlias = "WorkflowRunStatus | StatusName"
"""A state of a workflow run."""

Expected: TypeAlias = "Status | Collection[Status] | tuple[Status, ...]"
"""A state of a workflow run, or several. (mypy takes `("queued",)` for a tuple alone.)"""

Timestamp: TypeAlias = int | datetime
"""Milliseconds since the Unix epoch, UTC, or an aware `datetime`, of which the whole milliseconds count."""

Json: TypeAlias = Mapping[str, Any] | list[Any] | tuple[Any, ...] | str | int | float | bool | None
"""A JSON value."""

JsonArgument: TypeAlias = "Json | EllipsisType"
"""A JSON value; `...` stands for none, since None is one."""

Progress: TypeAlias = Callable[[int, int], object]
"""A function of (done, total)."""

Row: TypeAlias = "NewLogEntry | LogEntry | tuple[str, str, str | None, str | None, Timestamp | None]"
"""A row to append; a tuple is (source, type, ref_id, payload, timestamp)."""

SqlValue: TypeAlias = int | float | str | bytes | None
"""What SQLite stores."""

SqlParameters: TypeAlias = Sequence[SqlValue] | Mapping[str, SqlValue]
"""The parameters of a statement: by position, or by name."""

Path: TypeAlias = "str | os.PathLike[str]"
"""A path of the file system."""

Data: TypeAlias = "str | Buffer"
"""The bytes of a blob; text is stored as UTF-8."""

File: TypeAlias = "str | os.PathLike[str] | BinaryIO | Readable"
"""A path, or a file that is open for reading bytes."""


class Readable(Protocol):
    """What can be read from, piece by piece."""

    def read(self, size: int, /) -> Buffer:
        """Return up to so many bytes; none at the end."""
        ...
