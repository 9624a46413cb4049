"""What the calls of a log and of a blob store take."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal, TypeAlias

from nerve_store._core import LogEntry, NewLogEntry
from nerve_store.records import (
    WorkflowRunStatus,
)

Durability: TypeAlias = Literal["full", "normal"]
Row: TypeAlias = NewLogEntry | LogEntry | tuple[str, str, str | None, str | None, int | None]
Status: TypeAlias = WorkflowRunStatus | str
Time: TypeAlias = int | datetime
Progress: TypeAlias = Callable[[int, int], object]
Buffer: TypeAlias = bytes | bytearray | memoryview
