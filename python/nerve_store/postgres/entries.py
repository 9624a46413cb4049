"""Rows, checked."""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from typing import Any, NamedTuple

from nerve_store._core import Check, LogEntry
from nerve_store.exceptions import TimestampUnitWarning

_NO_TEXT = 2**64 - 1
_DIGEST_DIGITS = 32
"""Of the digest of a row that a key remembers, which is that of SQLite's log (docs/format.md)."""


class Rules:
    """What a store takes, and whether it has warned of timestamps that look like seconds."""

    def __init__(self, max_payload_bytes: int) -> None:
        self.max_payload_bytes = max_payload_bytes
        self._has_warned = False

    def fitting(self, found: tuple[tuple[str, str, str | None, str | None, int], bool]) -> CheckedRow:
        """The row of these fields; a warning if its timestamp looks like seconds."""
        row = CheckedRow(*found[0])
        if found[1]:
            self.warn_of_seconds(row.timestamp)
        return row

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
    return rules.fitting(Check.row(source, kind, ref_id, payload, timestamp, max_payload_bytes=rules.max_payload_bytes))


def checked_entry(entry: Any, *, rules: Rules) -> CheckedRow:
    """The row that a caller gave as a record or a tuple."""
    return rules.fitting(Check.entry(entry, max_payload_bytes=rules.max_payload_bytes))
