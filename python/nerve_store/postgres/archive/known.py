"""What the database says of a day that has left it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date

from nerve_store._core import LogEntry, is_round
from nerve_store.records import ArchivedDay

_EPOCH = date(1970, 1, 1)
_MOST_KINDS = 64

_OF_FILE = "day, format, row_count, first_id, last_id, size, raw_size, sha256, archived_at"
COLUMNS = f"{_OF_FILE}, place, object"
OLD_COLUMNS = f"{_OF_FILE}, NULL, NULL"
"""Those of a schema that knows no objects."""


@dataclass(frozen=True, slots=True)
class KnownDay:
    """A day's file, or the object that holds it."""

    day: date
    format: str
    row_count: int
    first_id: int | None
    last_id: int | None
    size: int
    raw_size: int
    sha256: str
    archived_at: int
    place: str | None = None
    """Where its object was sent to; None: it is a file in a directory."""
    key: str | None = None
    """The object's name there."""

    @property
    def url(self) -> str | None:
        """The object's address, as it was when it was sent."""
        return None if self.key is None else f"{self.place}/{self.key}"

    def at(self, place: str, key: str) -> KnownDay:
        """The same content as an object."""
        return replace(self, place=place, key=key)

    def record(self, path: str, *, added_rows: int = 0) -> ArchivedDay:
        """What a caller gets; `path` is where the day lies."""
        return ArchivedDay(
            self.day, self.row_count, path, self.size, self.sha256, added_rows, self.format, self.first_id,
            self.last_id, self.archived_at,
        )  # fmt: skip


@dataclass
class DaySummary:
    """What else the database is to know of a day's file."""

    refs: dict[str, list[int]] = field(default_factory=dict)
    """Each reference, with the ids of its rounds."""
    kinds: set[tuple[str, str]] | None = field(default_factory=set)
    first_id: int | None = None
    last_id: int | None = None
    added_rows: int = 0

    def add(self, entry: LogEntry) -> None:
        """Take note of a row; rows come in the order of their ids."""
        if self.first_id is None:
            self.first_id = entry.id
        self.last_id = entry.id
        if entry.ref_id is not None:
            rounds = self.refs.setdefault(entry.ref_id, [])
            if is_round(entry.source, entry.type, entry.payload):
                rounds.append(entry.id)
        if self.kinds is not None:
            self.kinds.add((entry.source, entry.type))
            if len(self.kinds) > _MOST_KINDS:
                self.kinds = None


def day_start(day: date) -> int:
    """The first millisecond of a UTC day."""
    return (day - _EPOCH).days * 86_400_000
