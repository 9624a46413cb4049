"""The steps of a copy.

While the source is written to, `copy` brings over its days and its rows, and reads back what it wrote. With `finish`,
once the writers have ended, it brings over what is left, compares the rows of both, writes runs, meta and keys, and
gives the target its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nerve_store._core import Check, LogEntry, LogStore
from nerve_store._places import MAX_CACHE_BYTES, below, is_url
from nerve_store.exceptions import NerveStoreError
from nerve_store.moving.blobs import bring_blobs, digest_of
from nerve_store.moving.days import Days
from nerve_store.moving.place import Remote
from nerve_store.moving.shelf import Shelf
from nerve_store.moving.source import GREATEST_ID, LEAST_ID, DirectorySource, ServerSource, Source
from nerve_store.moving.state import Origin
from nerve_store.moving.target import Target, TargetExistsError, system_errors
from nerve_store.protocols import Blobs
from nerve_store.store import attach_days

if TYPE_CHECKING:
    from nerve_store.types import Path

_ROWS = 5_000
_LETTERS = 16 << 20
"""In the texts of rows that are written at once, or one row."""
_NEARLY = 20_000
"""A pass that found fewer rows is the last one."""

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
    source: Path,
    target: Path,
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
    killed, stays; one that was interrupted once the target was a log is ended by another, and each one after that
    reports the same. `progress` is called with (rows done, rows to do). Raises `NerveStoreError` if there is another
    log at the target, if rows, runs or meta of the source were written after the copy of it was finished, if the target
    is the unfinished copy of another log, if another call writes to it, or if with `finish` the source was written to
    meanwhile; `CorruptStoreError` for what a server does not take, and the errors of both stores.
    """
    finish = Check.flag(finish, "finish")
    Check.progress(progress)
    source, here = Remote.of(source, source_remote, source_remote_options, names=("source", "source_remote"))
    target, there = Remote.of(target, remote, remote_options, names=("target", "remote"))
    if there is not None and here is not None and below(there.url, "") == below(here.url, ""):
        raise NerveStoreError(f"{there.url} is the source's: name another prefix")
    with closing(_source(source, here)) as reading:
        try:
            writing = _target(source, here, target, there)
        except TargetExistsError as error:
            return _end(reading, target, there, error)
        with closing(writing), writing.translated():
            return _Copy(reading, writing, progress).run(finish=finish)


def _end(source: Source, place: str, remote: Remote | None, exists: TargetExistsError) -> CopyReport:
    """Report a copy that is finished, and do what the call left undone that finished it; raise for any other log."""
    shelf = exists.shelf
    with ExitStack() as stack:
        try:
            found = stack.enter_context(closing(_source(place, remote, attaches=False)))
            origin = found.origin()
        except NerveStoreError as error:
            raise exists.told() from error
        if origin is None or origin.source not in source.names or origin.days != _place_of(shelf):
            raise exists.told() from None
        if shelf is not None:
            stack.enter_context(system_errors(shelf.place))
            claim = shelf.claimed()
            if claim is not None and claim.target == found.names[0]:
                shelf.release()
        if origin.written != source.written():
            raise exists.told(
                "the copy of this source was finished, and the source was written to since, which is not here"
            ) from None
        log, state = found.log, found.state()
        return CopyReport(
            exists.target, is_finished=True, copied_rows=0, copied_days=0, day_count=len(log.archived_days()),
            copied_blobs=0, blob_count=_blob_count(source, found), row_count=log.count(), run_count=len(state.runs),
            key_count=len(state.keys),
        )  # fmt: skip


def _place_of(shelf: Shelf | None) -> str:
    return "" if shelf is None else shelf.place


def _blob_count(source: Source, found: Source) -> int | None:
    with _opened(source.blobs(), found.blobs()) as both:
        return None if both is None else sum(1 for _ in both[1])


@contextmanager
def _opened(source: Blobs | None, target: Blobs | None) -> Generator[tuple[Blobs, Blobs] | None]:
    """Both, if both sides have a place for blobs; they are closed at the end."""
    try:
        yield None if source is None or target is None else (source, target)
    finally:
        for blobs in (source, target):
            if blobs is not None:
                blobs.close()


def _source(place: str, remote: Remote | None, *, attaches: bool = True) -> Source:
    """A log, with what lies in the object store; `attaches`: its days, too."""
    days = remote if attaches else None
    if not is_url(place):
        log = LogStore(os.path.join(place, "logs.db"), read_only=True)
        if days is not None:
            attach_days(log, os.path.abspath(place), days.url, days.options, MAX_CACHE_BYTES)
        return DirectorySource(log, remote)
    from nerve_store.moving.server import opened
    from nerve_store.postgres.address import Address

    return ServerSource(opened(Address.of(place), days, read_only=True), remote)


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
        noted = self._target.begin(self._source.names[0])
        if noted not in self._source.names:
            raise NerveStoreError(
                f"{self._target.place} is the unfinished copy of another log ({noted}); name another place"
            )
        before = self._source.fingerprint()
        self._expected_rows = self._source.log.stats().row_count
        copied_days = self._days.bring()
        self._bring_rows()
        # After the rows: what they name is there by then.
        copied_blobs, blob_count, blobs = self._bring_blobs()
        done = (self._copied_rows, copied_days, len(self._target.days()), copied_blobs, blob_count)
        if not finish:
            return CopyReport(self._target.place, finish, *done, None, None, None)
        state = self._source.state()
        row_count = self._compare_rows()
        self._target.replace_state(state)
        refused = self._days.index()
        written = self._source.written()
        # Comes first: what differs has been changed at the source meanwhile, as by a job.
        if self._source.fingerprint() != before or self._digest_of_blobs() != blobs:
            raise NerveStoreError(
                "the source was written to while the copy was finished: end what writes to it, and finish again"
            )
        if refused is not None:
            raise refused
        self._target.publish(Origin(noted, _place_of(self._target.shelf), written))
        self._days.release()
        return CopyReport(
            self._target.place, finish, self._copied_rows, *done[1:], row_count, len(state.runs), len(state.keys)
        )

    def _bring_blobs(self) -> tuple[int, int | None, str | None]:
        with _opened(self._source.blobs(), self._target.blobs()) as both:
            return (0, None, None) if both is None else bring_blobs(*both)

    def _digest_of_blobs(self) -> str | None:
        with _opened(self._source.blobs(), self._target.blobs()) as both:
            return None if both is None else digest_of(both[0])

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

    def _put(self, batch: list[LogEntry], *, after: int) -> None:
        self._target.put(batch, after=after)
        if self._target.rows(after, batch[-1].id) != batch:
            raise NerveStoreError(f"{self._target.place}: rows are not what was written a moment ago")
        self._copied_rows += len(batch)
        if self._progress is not None:
            self._progress(self._copied_rows, max(self._copied_rows, self._expected_rows))

    def _compare_rows(self) -> int:
        """Make the rows those of the source; their count.

        Meanwhile some left for the archive, or came back; a source that was restored gave ids out again.
        """
        count, after = 0, LEAST_ID
        for batch in _batches(self._source.rows(LEAST_ID)):
            last = batch[-1].id
            # First, so that no more is read than the source has.
            self._delete_others(after, last, {row.id for row in batch})
            if self._target.rows(after, last) != batch:
                self._put(batch, after=after)
            count += len(batch)
            after = last
        self._delete_others(after, GREATEST_ID, set())
        if self._target.count() != count:
            raise NerveStoreError(f"{self._target.place}: it has other rows than were written; finish again")
        return count

    def _delete_others(self, after: int, last: int, kept: set[int]) -> None:
        others = set(self._target.ids(after, last)) - kept
        if others:
            self._target.delete(others)


def _batches(rows: Iterator[LogEntry]) -> Iterator[list[LogEntry]]:
    batch: list[LogEntry] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(text or "") for text in (row.source, row.type, row.ref_id, row.payload))
        if len(batch) >= _ROWS or size >= _LETTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
