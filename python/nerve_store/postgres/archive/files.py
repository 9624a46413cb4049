"""The days of a log as files in a directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import BinaryIO

from nerve_store._core import LogEntry
from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.day import described, digest_of
from nerve_store.postgres.archive.days import ObjectFields, Progress, Write, elsewhere
from nerve_store.postgres.archive.directory import PLAIN, ZSTD, ArchiveDirectory
from nerve_store.postgres.archive.known import DaySummary, KnownDay
from nerve_store.postgres.archive.lines import corrupt, read_day
from nerve_store.postgres.archive.manifest import Manifest
from nerve_store.records import VerifyProblem


class DirectoryDays:
    """`Days` in a directory, or of a log without an archive."""

    def __init__(self, path: str | None) -> None:
        self._directory = ArchiveDirectory(path)

    @property
    def path(self) -> str | None:
        """The directory, absolute."""
        return self._directory.path

    def of(self, known: KnownDay) -> str:
        """The path; the URL of a day that lies in an object store."""
        return known.url or self._directory.of(known.day, known.format)

    @contextlib.contextmanager
    def opened(self, known: KnownDay) -> Iterator[BinaryIO]:
        """The file."""
        self._refuse_objects([known])
        with open(self.of(known), "rb") as file:
            yield file

    def check(self, known: KnownDay) -> None:
        """Read the file."""
        self._refuse_objects([known])
        path = self.of(known)
        if digest_of(path) != (known.size, known.sha256):
            raise corrupt(path, "its size or sha256 is not the one that was archived")

    def unknown(self, identity: Callable[[], str], objects: Callable[[], list[ObjectFields]]) -> list[str]:
        """None: the next job takes in what the database does not know."""
        return []

    def strays(self, known: set[date]) -> list[KnownDay]:
        """Files of days that the database does not know."""
        return [self._describe(day, form)[0] for day, form in self._directory.days() if day not in known]

    def problems(self, known: list[KnownDay], told: set[str]) -> list[VerifyProblem]:
        """Files that the database does not know."""
        days = {item.day for item in known}
        reason = "the database does not know the file; the next archive job adopts it, and so does reindex()"
        return [
            VerifyProblem(self._directory.of(day, form), reason, day=day)
            for day, form in self._directory.days()
            if day not in days
        ]

    def prepare(self, manifest: Manifest) -> None:
        """Take in files of an interrupted job, or of another program; remove staged ones."""
        self._directory.prepare()
        known = {item.day: item for item in manifest.known()}
        announced = manifest.announced()
        for day, form in self._directory.days():
            item = known.get(day)
            if item is None or item.format != form or item.key is not None or day in announced:
                self._take_in(manifest, item, *self._describe(day, form))

    def _take_in(self, manifest: Manifest, item: KnownDay | None, found: KnownDay, summary: DaySummary) -> None:
        if item is not None and item.key is not None and item.sha256 != found.sha256:
            # A copy of what the object was before it gained rows.
            error = ArchiveError(
                f"{self.of(found)}: it is not the content of {item.url}, where the day lies; move it away"
            )
            error.path = self.of(found)
            raise error
        manifest.settle(found, summary)
        manifest.go_on_after(found.last_id)

    def current(self, manifest: Manifest, day: date) -> tuple[str | None, Iterator[tuple[LogEntry, bytes]]]:
        """What the day's file is."""
        known = manifest.find(day)
        if known is not None:
            self._refuse_objects([known])
        forms = [form for found, form in self._directory.days() if found == day]
        return (forms[-1], self._rows(day, forms[-1])) if forms else (None, iter(()))

    def _rows(self, day: date, form: str) -> Iterator[tuple[LogEntry, bytes]]:
        path = self._directory.of(day, form)
        with open(path, "rb") as file:
            yield from read_day(file, path, day, form)

    def _describe(self, day: date, form: str) -> tuple[KnownDay, DaySummary]:
        path = self._directory.of(day, form)
        rows = self._rows(day, form)
        return described(rows, day, form, digest_of(path), archived_at=os.stat(path).st_mtime_ns // 1_000_000)

    def store(self, manifest: Manifest, day: date, form: str, write: Write) -> tuple[KnownDay, DaySummary]:
        """Stage, announce, publish, read back, settle."""
        with self._directory.staged(day, form) as staged:
            known, summary = write(staged.file)
            if summary.added_rows:
                staged.sync()
                manifest.announce(known, summary)
                staged.publish()
        if summary.added_rows:
            path = self.of(known)
            if digest_of(path) != (known.size, known.sha256):
                raise corrupt(path, "it is not what was written a moment ago; the disk fails")
            self._directory.remove(day, PLAIN if form == ZSTD else ZSTD)
            manifest.settle(known, summary)
        return known, summary

    def tidy(self, manifest: Manifest) -> None:
        """Nothing is left over: a file takes the place of the one before."""

    def expire(self, manifest: Manifest, known: list[KnownDay]) -> None:
        """Forget the days, and remove their files."""
        self._refuse_objects(known)
        for item in known:
            manifest.forget(item.day)
            self._directory.remove(item.day, item.format)

    def _refuse_objects(self, known: Iterable[KnownDay]) -> None:
        for item in known:
            if item.key is not None:
                raise elsewhere(item)

    def reindex(self, manifest: Manifest, progress: Progress) -> None:
        """Describe the files; days whose files are missing are forgotten."""
        files = self._directory.days()
        known = {item.day: item for item in manifest.known()}
        gone = known.keys() - {day for day, _ in files}
        self._refuse_objects(known[day] for day in gone)
        for day in sorted(gone):
            manifest.forget(day)
        for done, (day, form) in enumerate(files, 1):
            self._take_in(manifest, known.get(day), *self._describe(day, form))
            if progress is not None:
                progress(done, len(files))

    def close(self) -> None:
        """Nothing is kept."""
