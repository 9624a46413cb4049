"""The steps of a copy.

While the source is written to, `copy` brings over its days and its rows, and reads back what it wrote. With `finish`,
once the writers have ended, it brings over what is left, compares the ids of both, writes runs, meta and keys, and
gives the target its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nerve_store._core import LogEntry, LogStore
from nerve_store._places import MAX_CACHE_BYTES, below, is_url
from nerve_store.exceptions import NerveStoreError
from nerve_store.moving.blobs import bring_blobs
from nerve_store.moving.days import Days
from nerve_store.moving.place import Remote
from nerve_store.moving.source import LEAST_ID, DirectorySource, ServerSource, Source
from nerve_store.moving.target import Target
from nerve_store.store import attach_days

_ROWS = 5_000
_BYTES = 16 << 20
"""Of the payloads of rows that are written at once."""
_IDS = 50_000
"""Ids that are compared at once."""
_NEARLY = 20_000
"""A pass that found fewer rows is the last one."""
_GREATEST_ID = 2**63 - 1

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What one call of `copy` did."""

    target: str
    is_finished: bool
    """False: the target is no log yet; call again, with `finish` once the writers have ended."""
    copied_rows: int
    copied_days: int
    day_count: int
    copied_blobs: int
    blob_count: int | None
    """Blobs of the source; None: they stay where they are, since one of both has no place for blobs."""
    row_count: int | None
    """Rows that the target has beside its days; None until it is finished, as are the next two."""
    run_count: int | None
    key_count: int | None


def copy(
    source: str,
    target: str,
    *,
    remote: str | None = None,
    remote_options: Mapping[str, Any] | None = None,
    source_remote: str | None = None,
    source_remote_options: Mapping[str, Any] | None = None,
    finish: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Bring the log at `source` to `target`; each is a data directory or a URL of PostgreSQL's.

    A URL may end with `?schema=NAME&archive=DIRECTORY`. With `remote` the days and the blobs of the target lie there,
    as in `Store(target, remote=remote)`; with `source_remote` those of the source do; `?archive=s3://…` of a URL says
    the same. Blobs are copied if both have a place for them. What was brought over before, by a call that ended or was
    killed, stays. `progress` is called with (rows done, rows to do). Raises `NerveStoreError` if there is a log at the
    target, if it is the unfinished copy of another log, or if with `finish` the source was written to meanwhile.
    """
    source, here = Remote.of(source, source_remote, source_remote_options)
    target, there = Remote.of(target, remote, remote_options)
    if there is not None and here is not None and below(there.url, "") == below(here.url, ""):
        raise NerveStoreError(f"{there.url} is the source's: name another prefix")
    reading = _source(source, here)
    try:
        writing = _target(source, here, target, there)
        try:
            return _Copy(reading, writing, progress).run(finish=finish)
        finally:
            writing.close()
    finally:
        reading.close()


def _source(place: str, remote: Remote | None) -> Source:
    if not is_url(place):
        log = LogStore(os.path.join(place, "logs.db"), read_only=True)
        if remote is not None:
            attach_days(log, os.path.abspath(place), remote.url, remote.options, MAX_CACHE_BYTES)
        return DirectorySource(log, remote)
    from nerve_store.moving.server import opened
    from nerve_store.postgres.address import Address

    return ServerSource(opened(Address.of(place), remote, read_only=True), remote)


def _target(source: str, source_remote: Remote | None, place: str, remote: Remote | None) -> Target:
    if is_url(place):
        from nerve_store.moving.server import ServerTarget
        from nerve_store.postgres.address import Address

        return ServerTarget(Address.of(place), remote)
    if not is_url(source) and remote is None and source_remote is None:
        raise NerveStoreError("both are directories: nerve-store backup copies one into the other")
    from nerve_store.moving.directory import DirectoryTarget

    return DirectoryTarget(place, remote)


class _Copy:
    def __init__(self, source: Source, target: Target, progress: Progress | None) -> None:
        self._source, self._target, self._progress = source, target, progress
        self._days = Days(source, target)
        self._copied_rows = self._expected_rows = 0

    def run(self, *, finish: bool) -> CopyReport:
        noted = self._target.begin(self._source.name)
        if noted != self._source.name:
            raise NerveStoreError(
                f"{self._target.place} is the unfinished copy of another log ({noted}); name another place"
            )
        before = self._source.fingerprint()
        self._expected_rows = self._source.log.stats().row_count
        copied_days = self._days.bring()
        self._bring_rows()
        # After the rows: what they name is there by then.
        blobs = self._bring_blobs()
        day_count = len(self._target.days())
        if not finish:
            return CopyReport(
                self._target.place, finish, self._copied_rows, copied_days, day_count, *blobs, None, None, None
            )  # fmt: skip
        state = self._source.state()
        row_count = self._compare_rows()
        self._target.replace_state(state)
        self._days.compare(self._target.index(self._days.archived_at()))
        if self._source.fingerprint() != before:
            raise NerveStoreError(
                "the source was written to while the copy was finished: end what writes to it, and finish again"
            )
        self._target.publish()
        self._days.release()
        return CopyReport(
            self._target.place, finish, self._copied_rows, copied_days, day_count, *blobs, row_count,
            len(state.runs), len(state.keys),
        )  # fmt: skip

    def _bring_blobs(self) -> tuple[int, int | None]:
        source, target = self._source.blobs(), self._target.blobs()
        try:
            return (0, None) if source is None or target is None else bring_blobs(source, target)
        finally:
            for blobs in (source, target):
                if blobs is not None:
                    blobs.close()

    def _bring_rows(self) -> None:
        """The rows after those that were read back, until hardly any are left."""
        while True:
            copied = 0
            after = self._target.done
            for batch in _batches(self._source.rows(after)):
                self._put(batch, after=after)
                after = batch[-1].id
                self._target.advance(after)
                copied += len(batch)
            if copied < _NEARLY:
                return

    def _put(self, batch: list[LogEntry], *, after: int | None) -> None:
        self._target.put(batch, after=after)
        first = batch[0].id - 1 if after is None else after
        wanted = {row.id: row for row in batch}
        found = self._target.rows(first, batch[-1].id)
        if [row for row in found if after is not None or row.id in wanted] != batch:
            raise NerveStoreError(f"{self._target.place}: rows are not what was written a moment ago")
        self._copied_rows += len(batch)
        if self._progress is not None:
            self._progress(self._copied_rows, max(self._copied_rows, self._expected_rows))

    def _compare_rows(self) -> int:
        """Make the rows those of the source, where some left for the archive meanwhile, or came back; their count."""
        count, after = 0, LEAST_ID
        while after != _GREATEST_ID:
            theirs = self._source.ids(after, _IDS)
            last = theirs[-1] if len(theirs) == _IDS else _GREATEST_ID
            ours = self._target.ids(after, last)
            gone, missing = set(ours) - set(theirs), set(theirs) - set(ours)
            if gone:
                self._target.delete(gone)
            if missing:
                found = self._source.rows(min(missing) - 1, max(missing) + 1)
                for batch in _batches(row for row in found if row.id in missing):
                    self._put(batch, after=None)
            count += len(theirs)
            after = last
        return count


def _batches(rows: Iterator[LogEntry]) -> Iterator[list[LogEntry]]:
    batch: list[LogEntry] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.payload or "")
        if len(batch) >= _ROWS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
