"""The days of a log as objects of an object store."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import partial
from typing import Any, BinaryIO

from nerve_store._core import LogEntry
from nerve_store._places import ARCHIVE_MARK, below, error_at, make_directory
from nerve_store.exceptions import ArchiveError, StoreClosedError, StoreUnavailableError
from nerve_store.postgres.archive.day import described
from nerve_store.postgres.archive.days import ObjectFields, Progress, Write, elsewhere
from nerve_store.postgres.archive.directory import translated
from nerve_store.postgres.archive.known import DaySummary, KnownDay
from nerve_store.postgres.archive.lines import corrupt, problem_of, read_day
from nerve_store.postgres.archive.manifest import Manifest
from nerve_store.postgres.archive.objects import Objects
from nerve_store.postgres.archive.scratch import Scratch
from nerve_store.postgres.entries import now as clock
from nerve_store.records import VerifyProblem
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days import mark
from nerve_store.remote.days.cache import STAGED, Cache
from nerve_store.remote.days.content import copied, mismatch, pieces
from nerve_store.remote.days.move import OccupiedError, move, remove_superseded
from nerve_store.remote.days.names import DayObject, lost_keys, newer_keys, parsed

_WHOSE = (
    f"the database does not know this day, and no {ARCHIVE_MARK} there says whose it is; give this log another prefix. "
    "If it is this log's, copy what is there to a directory (of each day the object with the greatest number, without "
    "the number in its name), and open the log with that directory"
)
_TRIES = 8
"""How often a day is fetched anew that another process dropped from the cache before it was opened."""


class ObjectDays:
    """`Days` under a URL."""

    def __init__(self, url: str, options: Mapping[str, Any], *, cache: str | None, max_cache_bytes: int) -> None:
        """The days under `logs/` there; without a directory `cache`, what is fetched lies in a temporary one."""
        self.bucket = Bucket(below(url, "logs"), options)
        self._is_ours = False
        """Whether the mark there is this log's; its days then lie there, whatever the place was called before."""
        self._occupied: ArchiveError | None = None
        """What was in the way of a day of the job that is under way."""
        self._unknown: list[str] = []
        """The objects of days that are there, and that the database does not know."""
        self._is_closed = False
        self._remove = None
        if cache is None:
            scratch = Scratch()
            cache = scratch.path
            self._remove = weakref.finalize(self, scratch.remove)
        self._cache = Cache(os.path.abspath(cache), max_cache_bytes)

    @property
    def path(self) -> str:
        """The URL."""
        return self.bucket.place

    def of(self, known: KnownDay) -> str:
        """The URL; the name of a file that lies in a directory."""
        if known.key is None:
            return f"{known.day}.{known.format}"
        return self.bucket.name(known.key) if self._has(known) else str(known.url)

    def _has(self, known: KnownDay) -> bool:
        return self._is_ours or known.place == self.bucket.place

    def _key(self, known: KnownDay) -> str:
        """The key of a day's object; raises for a day that does not lie here."""
        self.bucket.check()
        if known.key is None:
            raise error_at(
                ArchiveError,
                self.path,
                f"the day {known.day} is a file in a directory, and this log was opened with archive=URL: "
                f"open it with that directory, or copy {known.day}.{known.format} to {self.path} and call reindex()",
            )
        if not self._has(known):
            raise elsewhere(known)
        return known.key

    @contextlib.contextmanager
    def opened(self, known: KnownDay) -> Iterator[BinaryIO]:
        """A file of the cache, whose content was compared."""
        with self._open(known) as file:
            yield file

    def _open(self, known: KnownDay) -> BinaryIO:
        if not self._is_closed:
            try:
                return self._fetched(known)
            except OSError:
                if not self._is_closed:
                    raise
        if self._remove is not None:  # it may have been made anew
            shutil.rmtree(self._cache.directory, ignore_errors=True)
        raise error_at(StoreClosedError, self.path, "the store is closed; open it again")

    def _fetched(self, known: KnownDay) -> BinaryIO:
        key = self._key(known)
        with translated("fetch a day", self._cache.directory):
            for _ in range(_TRIES):
                path = self._cache.path_of(
                    known.sha256, known.size, lambda: pieces(self.bucket, key, known.size, known.sha256)
                )
                try:
                    return open(path, "rb")
                except FileNotFoundError:
                    continue
                finally:
                    self._cache.unpin(path)
        raise error_at(
            StoreUnavailableError,
            self.of(known),
            "its file is dropped from the cache before it can be opened: give the cache more room",
        )

    def check(self, known: KnownDay) -> None:
        """Fetch the object, unless this process has compared a copy that is in the cache."""
        with self.opened(known):
            pass

    def strays(self, known: set[date]) -> list[KnownDay]:
        """None: what the database does not know is taken in when the log is opened."""
        return []

    def stray(self, day: date) -> KnownDay | None:
        """None, as above."""
        return None

    def problems(self, known: list[KnownDay], told: set[str]) -> list[VerifyProblem]:
        """Objects that are missing or have another size, although a copy in the cache could be read."""
        objects = [DayObject(item.day, item.key, "current", item.size, item.sha256) for item in known if item.key]
        return mark.missing_objects(self.bucket, lambda: objects, told)

    def unknown(
        self,
        identity: Callable[[], str],
        objects: Callable[[], list[ObjectFields]],
        days: Callable[[], list[KnownDay]],
    ) -> list[str]:
        """Compare the mark that is there, and list the place."""
        found = mark.owner(self.bucket)
        if found is not None:
            mark.compare(self.bucket, identity(), found)
            self._is_ours = True
        listed = mark.listed(self.bucket)
        # Asked for after the listing: what a job stores meanwhile was noted before.
        newer = _untaken(listed, [DayObject(*fields) for fields in objects()])
        if found is None and newer:
            newer = self._without_mark(newer, days())
        return [self.bucket.name(key) for key in newer.values()]

    def _without_mark(self, newer: dict[date, str], days: list[KnownDay]) -> dict[date, str]:
        """Those of the objects that are this log's; `ArchiveError` if nothing tells whose one is."""
        places = {item.day: item.place for item in days}
        if self.bucket.place in places.values():  # the mark was lost
            return newer
        for day, key in sorted(newer.items()):
            if day not in places:
                raise error_at(ArchiveError, self.bucket.name(key), _WHOSE)
        # Files that were copied here wait for `reindex`.
        return {day: key for day, key in newer.items() if places[day] is not None}

    def take(self, log: str, known: Callable[[], list[KnownDay]]) -> None:
        """Each version has marked its places."""

    def prepare(self, manifest: Manifest, *, is_idle: bool = False) -> list[VerifyProblem]:
        """Make the place this log's, and take in days that the database does not know."""
        self._occupied = None
        objects = Objects(manifest)
        if is_idle and not DayObject.all_of(objects):
            return []
        if mark.owner(self.bucket) is None:
            for item in manifest.known():
                if item.key is not None and item.place != self.bucket.place:
                    raise elsewhere(item)
        mark.claim(self.bucket, objects)
        self._is_ours = True
        self._describe_current(manifest, {item.day for item in manifest.known()}, None)
        listed = mark.listed(self.bucket)
        known_objects = DayObject.all_of(objects)
        for known in known_objects:
            if known.state == "gone" and known.key in listed:
                objects._supersede_object(known.key)  # of a job that had lost its session, and stored it all the same
        noted = {known.key: known.sha256 for known in known_objects}
        for day, key in sorted(_untaken(listed, known_objects).items()):
            try:
                self._take_in(manifest, day, key, noted.get(key))
            except ArchiveError as error:
                self._occupied = self._occupied or error
        names = {known.key for known in DayObject.all_of(objects)}
        self._unknown = sorted(key for key in listed if key not in names and parsed(key) is not None)
        return [
            problem_of(mismatch(self.bucket, item.key, listed.get(item.key), item.size), item.day, item)
            for item in manifest.known()
            if item.key is not None and listed.get(item.key) != item.size
        ]

    def _take_in(self, manifest: Manifest, day: date, key: str, noted: str | None) -> None:
        """An object counts as the day; `noted` is the sha256 that the database knows of it."""
        place = self.bucket.name(key)
        with self._fetched_apart(key) as (file, (size, sha256, stored_at)):

            def rows() -> Iterator[tuple[LogEntry, bytes]]:
                file.seek(0)
                return read_day(file, place, day, _form(key))

            found, summary = described(
                rows(), day, _form(key), (size, sha256), archived_at=stored_at, place=self.bucket.place, key=key
            )
            known = manifest.find(day)
            is_of_day = known is None or known.sha256 == sha256
            if known is not None and known.key is not None:
                # The database is older than the object, which has all rows of the one before.
                is_of_day = is_of_day or known.row_count < found.row_count
            if not is_of_day or noted not in (None, sha256):
                raise error_at(ArchiveError, place, f"it is not the day {day} as the database knows it; move it away")
            manifest.take_in(found, summary, place, rows, renumbers=True)

    @contextlib.contextmanager
    def _fetched_apart(self, key: str) -> Iterator[tuple[BinaryIO, tuple[int, str, int]]]:
        """An object of which nobody knows what it should be, and its size, its sha256 and its time."""
        with contextlib.ExitStack() as stack:
            with translated("fetch a day", self._cache.directory):
                make_directory(self._cache.directory)
                file = stack.enter_context(tempfile.TemporaryFile(dir=self._cache.directory))
                content = copied(self.bucket, key, file)
            yield file, content

    def _describe_current(self, manifest: Manifest, described_days: set[date], progress: Progress) -> None:
        """Describe days anew from their objects, without those `described_days`."""
        items = [item for item in manifest.current_objects() if item.day not in described_days]
        for done, item in enumerate(items, 1):
            with self.opened(item) as file:
                rows = read_day(file, self.of(item), item.day, item.format)
                found, summary = described(
                    rows, item.day, item.format, (item.size, item.sha256), archived_at=item.archived_at or clock(),
                    place=item.place, key=item.key,
                )  # fmt: skip
            manifest.take_in(found, summary, self.of(item), partial(self._rows, item), renumbers=True)
            if progress is not None:
                progress(done, len(items))

    def current(self, manifest: Manifest, day: date) -> tuple[str | None, Iterator[tuple[LogEntry, bytes]]]:
        """What the day's object is."""
        known = manifest.find(day)
        return (None, iter(())) if known is None else (known.format, self._rows(known))

    def _rows(self, known: KnownDay) -> Iterator[tuple[LogEntry, bytes]]:
        with self.opened(known) as file:
            yield from read_day(file, self.of(known), known.day, known.format)

    def store(self, manifest: Manifest, day: date, form: str, write: Write) -> tuple[KnownDay, DaySummary] | None:
        """Stage, note, send, read back, settle. What bears the name of the day and is not ours is left as it is."""
        with self._staged() as (file, path):
            known, summary = write(file)
            if not summary.added_rows:
                return known, summary
            file.flush()
            objects = Objects(manifest, (known, summary))
            theirs = [key for key in self._unknown if key.startswith(f"{day}.")]
            ours = [item for item in DayObject.all_of(objects) if item.day == day]
            try:
                url = move(self.bucket, objects, known.record(path), ours, theirs)
            except OccupiedError as error:
                self._occupied = self._occupied or error
                return None
            if url is None:
                raise corrupt(path, "it is not what was written a moment ago; the disk fails")
        stored = manifest.find(day)
        assert stored is not None
        return stored, summary

    @contextlib.contextmanager
    def _staged(self) -> Iterator[tuple[BinaryIO, str]]:
        """A file, and its path; it is gone at the end, and where a process was killed the cache removes it later."""
        directory = self._cache.directory
        with translated("write a day", directory):
            make_directory(directory)
            descriptor, path = tempfile.mkstemp(prefix=STAGED, dir=directory)
            try:
                with os.fdopen(descriptor, "w+b", buffering=1 << 18) as file:
                    yield file, path
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def tidy(self, manifest: Manifest) -> None:
        """Delete the objects that others have replaced, and those of expired days; raise what was in the way."""
        objects = Objects(manifest)
        if any(item.state == "superseded" for item in DayObject.all_of(objects)):
            mark.claim(self.bucket, objects)
            remove_superseded(self.bucket, objects)
        occupied, self._occupied = self._occupied, None
        if occupied is not None:
            raise occupied

    def expire(self, manifest: Manifest, known: list[KnownDay]) -> None:
        """Forget the days, then delete their objects; the next job does if there is no answer now."""
        for item in known:
            self._key(item)
        for item in known:
            manifest.forget(item.day)
        self.tidy(manifest)

    def reindex(self, manifest: Manifest, progress: Progress) -> None:
        """Describe the objects; those that nobody knows are taken in."""
        self.prepare(manifest)
        for item in manifest.known():
            self._key(item)
        self._describe_current(manifest, set(), progress)
        self.tidy(manifest)

    def close(self) -> None:
        """Remove a cache that is this log's alone; calls under way end with `StoreClosedError`."""
        self._is_closed = True
        if self._remove is not None:
            self._remove()


def _untaken(listed: Mapping[str, int], objects: list[DayObject]) -> dict[date, str]:
    """The objects that are there and are to be taken in, by day."""
    return {**lost_keys(listed, objects), **newer_keys(listed, objects)}


def _form(key: str) -> str:
    name = parsed(key)
    assert name is not None
    return name[2]
