"""Rows, checked."""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from datetime import datetime
from typing import Any, NamedTuple

from nerve_store._core import LogEntry, NewLogEntry, check_row
from nerve_store.exceptions import TimestampUnitWarning
from nerve_store.postgres import checks

_SECONDS = (1_000_000_000, 100_000_000_000)
"""Integers that are seconds of the years 2001 to 5138, and milliseconds of the first weeks and years of 1970."""
_NO_TEXT = 2**64 - 1
_DIGEST_DIGITS = 32
"""Of the digest of a row that a key remembers, which is that of SQLite's log (docs/format.md)."""


class Rules:
    """What a store takes, and whether it has warned of timestamps that look like seconds."""

    def __init__(self, max_payload_bytes: int) -> None:
        self.max_payload_bytes = max_payload_bytes
        self._has_warned = False

    def timestamp(self, value: Any) -> int:
        """Milliseconds of the years 1970 to 9999; a warning, once a store, if they are almost surely seconds."""
        number = checks.timestamp(value, "timestamp")
        if _SECONDS[0] <= number <= _SECONDS[1] and not isinstance(value, datetime):
            self.warn_of_seconds(number)
        return number

    def warn_of_seconds(self, number: int) -> None:
        """Warn of a timestamp that looks like seconds, unless that was done."""
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"timestamp {number} looks like seconds; timestamps are milliseconds since the epoch: multiply it by "
                "1,000, or give an aware datetime",
                TimestampUnitWarning,
                stacklevel=_outside(),
            )


def _outside() -> int:
    """How far up the caller is that is none of this package."""
    level, frame = 1, sys._getframe(2)
    while frame.f_globals.get("__name__", "").startswith("nerve_store."):
        level += 1
        parent = frame.f_back
        if parent is None:
            break
        frame = parent
    return level + 1


class CheckedRow(NamedTuple):
    """A row that nothing later can refuse."""

    source: str
    type: str
    ref_id: str | None
    payload: str | None
    timestamp: int

    def stored(self, row_id: int) -> LogEntry:
        """The row under its id."""
        return LogEntry(row_id, *self)

    def digest(self) -> str:
        """What tells an append from another one with the same key; not the timestamp, which may be the clock's."""
        digest = hashlib.sha256()
        for text in self[:4]:
            content = b"" if text is None else text.encode()
            digest.update((_NO_TEXT if text is None else len(content)).to_bytes(8, "little"))
            digest.update(content)
        return digest.hexdigest()[:_DIGEST_DIGITS]


def now() -> int:
    """The clock, in milliseconds."""
    return time.time_ns() // 1_000_000


def checked(source: Any, kind: Any, ref_id: Any, payload: Any, timestamp: Any, *, rules: Rules) -> CheckedRow:
    """The row, if it can be one."""
    time, is_like_seconds = check_row(
        source, kind, ref_id, payload, timestamp, max_payload_bytes=rules.max_payload_bytes
    )
    if is_like_seconds:
        rules.warn_of_seconds(time)
    return CheckedRow(source, kind, ref_id, payload, time)


def checked_item(item: Any, *, rules: Rules) -> CheckedRow:
    """The row that a caller gave as a record or a tuple."""
    if isinstance(item, tuple):
        if len(item) != 5:
            raise TypeError(
                f"entry is, as a tuple, (source, type, ref_id, payload, timestamp); this one has {len(item)} items"
            )
        return checked(*item, rules=rules)
    if isinstance(item, NewLogEntry | LogEntry):
        return checked(item.source, item.type, item.ref_id, item.payload, item.timestamp, rules=rules)
    raise TypeError(f"entry must be a NewLogEntry, a LogEntry or a tuple, not {type(item).__name__}")
