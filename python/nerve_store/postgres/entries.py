"""Checked rows, as columns."""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from nerve_store._core import LogEntry, NewLogEntry
from nerve_store.exceptions import TimestampUnitWarning
from nerve_store.postgres import checks
from nerve_store.postgres.rounds import is_round
from nerve_store.postgres.texts import encode

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
        number = checks.timestamp(value)
        if not self._has_warned and _SECONDS[0] <= number <= _SECONDS[1] and not isinstance(value, datetime):
            self._has_warned = True
            warnings.warn(
                f"timestamp {number} looks like seconds; timestamps are milliseconds since the epoch: multiply it by "
                "1,000, or give an aware datetime",
                TimestampUnitWarning,
                stacklevel=_outside(),
            )
        return number


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


class Columns:
    """Rows on their way to the database."""

    def __init__(self) -> None:
        self.sources: list[bytes] = []
        self.types: list[bytes] = []
        self.refs: list[bytes | None] = []
        self.payloads: list[bytes | None] = []
        self.timestamps: list[int] = []
        self.rounds: list[bool] = []
        self.size = 0
        """Bytes of the payloads."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def add(self, row: CheckedRow) -> None:
        """Append a row."""
        source, kind, ref_id, payload, timestamp = row
        self.sources.append(encode(source).encode())
        self.types.append(encode(kind).encode())
        self.refs.append(None if ref_id is None else encode(ref_id).encode())
        content = None if payload is None else encode(payload).encode()
        self.payloads.append(content)
        self.timestamps.append(timestamp)
        self.rounds.append(is_round(source, kind, payload))
        self.size += len(content or b"")

    def extend(self, other: Columns) -> None:
        """Append the rows of another."""
        self.sources += other.sources
        self.types += other.types
        self.refs += other.refs
        self.payloads += other.payloads
        self.timestamps += other.timestamps
        self.rounds += other.rounds
        self.size += other.size


def now() -> int:
    """The clock, in milliseconds."""
    return time.time_ns() // 1_000_000


def checked(source: Any, kind: Any, ref_id: Any, payload: Any, timestamp: Any, *, rules: Rules) -> CheckedRow:
    """The row, if it can be one."""
    row = CheckedRow(
        checks.text(source),
        checks.text(kind),
        checks.optional_text(ref_id),
        checks.optional_text(payload),
        now() if timestamp is None else rules.timestamp(timestamp),
    )
    for name, value in (("source", row.source), ("type", row.type), ("ref_id", row.ref_id)):
        if value is not None and len(value) * 4 > checks.MAX_NAME_BYTES:
            _check_size(name, value, checks.MAX_NAME_BYTES, "")
    if row.payload is not None and len(row.payload) * 4 > rules.max_payload_bytes:
        _check_size("payload", row.payload, rules.max_payload_bytes, " (max_payload_bytes)")
    return row


def _check_size(name: str, value: str, limit: int, option: str) -> None:
    size = len(value.encode())
    if size > limit:
        raise ValueError(f"{name} has {size} bytes, more than the limit of {limit}{option}")


def checked_item(item: Any, *, rules: Rules) -> CheckedRow:
    """The row that a caller gave as a record or a tuple."""
    if isinstance(item, tuple):
        if len(item) != 5:
            raise TypeError(
                f"a row as a tuple is (source, type, ref_id, payload, timestamp); this one has {len(item)} items"
            )
        return checked(*item, rules=rules)
    if isinstance(item, NewLogEntry | LogEntry):
        return checked(item.source, item.type, item.ref_id, item.payload, item.timestamp, rules=rules)
    raise TypeError(f'a row is a NewLogEntry, a LogEntry or a tuple, not "{type(item).__name__}"')


def checked_items(items: Iterable[Any], *, rules: Rules) -> list[CheckedRow]:
    """The rows of a call; an error names the index of the row."""
    rows: list[CheckedRow] = []
    for position, item in enumerate(items):
        try:
            rows.append(checked_item(item, rules=rules))
        except UnicodeEncodeError as error:
            error.reason = f"{error.reason} (entries[{position}])"
            raise
        except (TypeError, ValueError) as error:
            raise type(error)(f"entries[{position}]: {error}") from None
    return rows
