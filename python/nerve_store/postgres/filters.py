"""What selects rows, as a condition of SQL and in Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nerve_store._core import Check, LogEntry
from nerve_store.postgres.texts import encode
from nerve_store.types import Timestamp

COLUMNS = "id, source, type, ref_id, payload, timestamp"
ROW = f"record_send(ROW({COLUMNS}))"
"""A row as one value, since the driver makes a Python object of each value."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The filters of `query`, checked; None does not filter."""

    source: str | None = None
    type: str | None = None
    ref_id: str | None = None
    since: int | None = None
    until: int | None = None
    after_id: int | None = None
    before_id: int | None = None
    limit: int | None = None
    descending: bool = False
    archived: bool = False

    @classmethod
    def checked(
        cls,
        *,
        source: str | None,
        type: str | None,
        ref_id: str | None,
        since: Timestamp | None,
        until: Timestamp | None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> Filter:
        """The filter of a call; `TypeError` and `ValueError` for what cannot be one."""
        return cls(
            Check.optional_text(source, "source"),
            Check.optional_text(type, "type"),
            Check.optional_text(ref_id, "ref_id"),
            Check.optional_time(since, "since"),
            Check.optional_time(until, "until"),
            Check.integer(after_id, "after_id"),
            Check.integer(before_id, "before_id"),
            Check.optional_count(limit, "limit"),
            Check.flag(descending, "descending"),
            Check.flag(archived, "archived"),
        )

    def between(self, *, after_id: int | None = None, before_id: int | None = None, limit: int | None) -> Filter:
        """The same with narrower bounds."""
        lower = [bound for bound in (self.after_id, after_id) if bound is not None]
        upper = [bound for bound in (self.before_id, before_id) if bound is not None]
        return replace(self, after_id=max(lower, default=None), before_id=min(upper, default=None), limit=limit)

    def beyond(self, last: LogEntry | None, *, limit: int | None) -> Filter:
        """The rest after a row, in the order asked for; all of it if there is none."""
        if last is None:
            return replace(self, limit=limit)
        if self.descending:
            return self.between(before_id=last.id, limit=limit)
        return self.between(after_id=last.id, limit=limit)

    def condition(self) -> tuple[str, dict[str, Any]]:
        """The condition on a row, and its parameters."""
        conditions: list[str] = []
        parameters: dict[str, Any] = {}
        for name, value, condition in (
            ("source", encode(self.source), "source = %(source)s"),
            ("type", encode(self.type), "type = %(type)s"),
            # The index has the beginning of a reference, which may be longer than a key of an index.
            ("ref_id", encode(self.ref_id), "left(ref_id, 512) = left(%(ref_id)s, 512) AND ref_id = %(ref_id)s"),
            ("since", self.since, "timestamp >= %(since)s"),
            ("until", self.until, "timestamp <= %(until)s"),
            ("after_id", self.after_id, "id > %(after_id)s"),
            ("before_id", self.before_id, "id < %(before_id)s"),
        ):
            if value is not None:
                conditions.append(condition)
                parameters[name] = value
        return " AND ".join(conditions) or "true", parameters

    def matches(self, entry: LogEntry) -> bool:
        """Whether a row of the archive is selected; the limit is its reader's."""
        return (
            (self.source is None or entry.source == self.source)
            and (self.type is None or entry.type == self.type)
            and (self.ref_id is None or entry.ref_id == self.ref_id)
            and (self.since is None or entry.timestamp >= self.since)
            and (self.until is None or entry.timestamp <= self.until)
            and (self.after_id is None or entry.id > self.after_id)
            and (self.before_id is None or entry.id < self.before_id)
        )
