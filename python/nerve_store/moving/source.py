"""Reading a log that is moved."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from nerve_store._core import ARCHIVED_UP_TO, BlobStore, LogEntry
from nerve_store._places import below, error_at
from nerve_store.exceptions import StoreUnavailableError
from nerve_store.moving.place import Remote
from nerve_store.moving.reserve import reserved_ids
from nerve_store.moving.shelf import file_pieces
from nerve_store.moving.state import KnownKey, Origin, RunState, State
from nerve_store.protocols import Blobs, Log
from nerve_store.records import ArchivedDay

_PAGE = 20_000
LEAST_ID, GREATEST_ID = -(2**63), 2**63 - 1


class Source(ABC):
    """A log that others may write to."""

    _has_origin: str
    """A query for whether it says of which copy it is."""

    def __init__(self, log: Log, remote: Remote | None = None) -> None:
        self.log = log
        self._remote = remote

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """What tells it from other logs, in order of preference: each is enough."""

    @abstractmethod
    def state(self) -> State:
        """What it has beside its rows."""

    @abstractmethod
    def sequence(self) -> int:
        """The last id that was given to a row, as it notes it; rows of greater ones may be lost."""

    @abstractmethod
    def last_id(self) -> int:
        """The id after which its next write would go on, so that none is given to two rows."""

    def rows(self, after: int, before: int | None = None) -> Iterator[LogEntry]:
        """The rows of the database that there are now, in order."""
        return iter(self.log.iter(after_id=after, before_id=before))

    def days(self) -> list[ArchivedDay]:
        """The days of its archive; of one that is not known yet, its file says when it was archived."""
        return [
            day if day.archived_at is not None else replace(day, archived_at=_changed_at(day.path))
            for day in self.log.archived_days()
        ]

    def pieces_of(self, day: ArchivedDay) -> Callable[[], Iterator[bytes]]:
        """What gives the content of a day's file, or raises `ReplacedError` or `FileNotFoundError` if it is another."""
        if "://" not in day.path:
            return lambda: file_pieces(day.path, day.sha256)
        if self._remote is None:
            raise error_at(
                StoreUnavailableError,
                day.path,
                f"the day {day.day} lies in an object store: name it as the source's"
                " (source_remote=…, on the command line --source-remote)",
            )
        from nerve_store.moving.objects import Objects, object_pieces

        bucket = Objects(self._remote.url, self._remote.options).bucket
        return lambda: object_pieces(bucket, day.path, day.size, day.sha256)

    def is_archive(self, place: str) -> bool:
        """Whether a directory, or a URL, is where its own days are."""
        if "://" in place:
            return self._remote is not None and below(self._remote.url, "logs") == place
        return os.path.realpath(place) == os.path.realpath(self.log.archive_dir or os.devnull)

    def blobs(self) -> Blobs | None:
        """Its blobs; None if it has none."""
        return None if self._remote is None else self._remote.blobs(read_only=True)

    def fingerprint(self) -> object:
        """What differs if something was written meanwhile."""
        days = [(day.day, day.sha256) for day in self.days()]
        return self.sequence(), self.log.count(), self.log.list_meta(), self.log.count_workflow_runs(), days

    def written(self) -> str:
        """What differs if rows, runs or meta were written since; jobs that archive and expire days write none."""
        counts = sorted((str(status), count) for status, count in self.log.count_workflow_runs().items())
        meta = sorted(item for item in self.log.list_meta().items() if item[0] != ARCHIVED_UP_TO)
        facts = [self.last_id(), meta, counts]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def origin(self) -> Origin | None:
        """The copy that made it; None if none did."""
        if not self.log.sql(self._has_origin)[0][0]:
            return None
        found = self.log.sql("SELECT source, days, written FROM copied_from")
        return Origin(*map(str, found[0])) if found else None

    def close(self) -> None:
        """Close it."""
        self.log.close()


def _changed_at(path: str) -> int | None:
    with suppress(FileNotFoundError):
        return os.stat(path).st_mtime_ns // 1_000_000
    return None


class DirectorySource(Source):
    """A log in a data directory."""

    _has_origin = "SELECT count(*) FROM sqlite_schema WHERE name = 'copied_from'"

    def blobs(self) -> Blobs | None:
        if self._remote is not None:
            return super().blobs()
        return BlobStore(os.path.join(os.path.dirname(self.log.path), "blobs"), read_only=True)

    @property
    def names(self) -> list[str]:
        tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'archive_owner'"
        found = self.log.sql("SELECT id FROM archive_owner") if self.log.sql(tables)[0][0] else []
        # A database of the predecessor has no identity before it is opened for writing; no path need be UTF-8.
        path = os.fsencode(os.path.realpath(self.log.path)).decode(errors="backslashreplace")
        return [*(str(row[0]) for row in found), path]

    def sequence(self) -> int:
        # As it is taken when a row is written, whatever another program has put there: see durability.md.
        statement = (
            "SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence WHERE name = 'logs' AND CAST(seq AS INTEGER) < ?"
        )
        return int(self.log.sql(statement, (GREATEST_ID,))[0][0] or 0)

    def last_id(self) -> int:
        marks = "SELECT max(greatest) FROM log_ids WHERE complement = ~greatest"
        statements = ["SELECT max(id) FROM logs", *([marks] if "log_ids" in self._tables() else [])]
        known = [int(self.log.sql(statement)[0][0] or 0) for statement in statements]
        return max(0, self.sequence(), reserved_ids(self.log.path), *known)

    def _tables(self) -> set[str]:
        return {str(row[0]) for row in self.log.sql("SELECT name FROM sqlite_schema WHERE type = 'table'")}

    def state(self) -> State:
        tables = self._tables()
        claims: dict[str, tuple[Any, ...]] = {}
        if "run_claims" in tables:
            statement = (
                "SELECT run_id, attempt, token, owner, lease, status, timestamp, not_before FROM run_claims "
                "WHERE run_id > ? ORDER BY run_id LIMIT ?"
            )
            claims = {row[0]: row[1:] for row in self._paged(statement, "")}
        runs: list[RunState] = []
        statement = (
            "SELECT rowid, run_id, workflow, status, timestamp, exit_code FROM workflow_runs "
            "WHERE rowid > ? ORDER BY rowid LIMIT ?"
        )
        for order, run_id, workflow, status, timestamp, exit_code in self._paged(statement, LEAST_ID):
            attempt, token, owner, lease, held, at, not_before = claims.get(run_id, (0, *[None] * 6))
            is_valid = token is not None and (held, at) == (status, timestamp)
            runs.append(
                RunState(
                    run_id, workflow, status, timestamp, exit_code, order, attempt, token if is_valid else None,
                    owner if is_valid else None, lease, not_before if status == "queued" else None,
                )
            )  # fmt: skip
        keys: list[KnownKey] = []
        if "append_keys" in tables:
            statement = (
                "SELECT key, id, digest, timestamp, appended_at FROM append_keys WHERE key > ? ORDER BY key LIMIT ?"
            )
            keys = [KnownKey(*row) for row in self._paged(statement, "")]
        return State(self.log.list_meta(), runs, keys, self.last_id())

    def _paged(self, statement: str, first: Any) -> Iterator[tuple[Any, ...]]:
        after = first
        while page := self.log.sql(statement, (after, _PAGE)):
            yield from page
            after = page[-1][0]


class ServerSource(Source):
    """A log on PostgreSQL."""

    _has_origin = "SELECT to_regclass('copied_from') IS NOT NULL"

    @property
    def names(self) -> list[str]:
        return [str(self.log.sql("SELECT store_id::text FROM state")[0][0])]

    def sequence(self) -> int:
        statement = "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM log_id"
        return int(self.log.sql(statement)[0][0])

    def last_id(self) -> int:
        # A standby cannot read whether it lost something; an older schema does not tell.
        can_tell = "SELECT schema_version >= 5 AND NOT pg_is_in_recovery() FROM state"
        if self.log.sql(can_tell)[0][0]:
            statement = (
                "SELECT CASE WHEN is_alive AND last >= coalesce(greatest_id(), 0) THEN last"
                " ELSE skipped(greatest(known, greatest_id())) END FROM known_ids()"
            )
            return int(self.log.sql(statement)[0][0])
        # As `skipped` in write.sql does.
        statement = (
            "SELECT greatest(%s + 1000000, (SELECT max(id) FROM logs) + 1000000,"
            " ((extract(epoch FROM clock_timestamp()) - 1767225600) * 1000000)::bigint)"
        )
        return int(self.log.sql(statement, (self.sequence(),))[0][0])

    def state(self) -> State:
        from nerve_store.postgres.texts import decode

        runs = [
            RunState(
                decode(str(run_id)),
                decode(str(workflow)),
                status,
                at,
                exit_code,
                order,
                attempt,
                token,
                None if owner is None else decode(str(owner)),
                lease,
                begin,
            )
            for run_id, workflow, status, at, exit_code, order, attempt, token, owner, lease, begin in self.log.sql(
                "SELECT run_id, workflow, status, timestamp, exit_code, created_id, attempt, token, owner, "
                "round(extract(epoch FROM lease) * 1000)::bigint, not_before FROM workflow_runs ORDER BY created_id"
            )
        ]
        keys = [
            KnownKey(decode(str(key)), *rest)
            for key, *rest in self.log.sql(
                "SELECT key, id, digest, timestamp, round(extract(epoch FROM at) * 1000)::bigint FROM keys ORDER BY key"
            )
        ]
        return State(self.log.list_meta(), runs, keys, self.last_id())
