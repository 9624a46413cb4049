"""The days of a log as files in a directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from io import BufferedReader
from typing import BinaryIO, TypeAlias

from nerve_store._core import LogEntry
from nerve_store._places import error_at
from nerve_store.exceptions import ArchiveCorruptError, ArchiveError
from nerve_store.postgres.archive.day import described, digest_of
from nerve_store.postgres.archive.days import ObjectFields, Progress, Write, elsewhere
from nerve_store.postgres.archive.directory import PLAIN, ZSTD, ArchiveDirectory
from nerve_store.postgres.archive.known import DaySummary, KnownDay
from nerve_store.postgres.archive.lines import corrupt, missing, problem_of, read_day
from nerve_store.postgres.archive.manifest import Manifest
from nerve_store.postgres.archive.owner import Owner
from nerve_store.records import VerifyProblem

_Stamp: TypeAlias = tuple[int, int, int, int]


class DirectoryDays:
    """`Days` in a directory, or of a log without an archive."""

    def __init__(self, path: str | None) -> None:
        self._directory = ArchiveDirectory(path)
        self._compared: dict[str, tuple[_Stamp, str]] = {}
        """What each file was when its content was compared, and the sha256 that it has."""
        self._owner: Owner | None = None

    @property
    def path(self) -> str | None:
        """The directory, absolute."""
        return self._directory.path

    def of(self, known: KnownDay) -> str:
        """The path; the URL of a day that lies in an object store."""
        return known.url or self._directory.of(known.day, known.format)

    @contextlib.contextmanager
    def opened(self, known: KnownDay) -> Iterator[BinaryIO]:
        """The file. Its content is compared, unless it was and the file is untouched since."""
        self._refuse_others([known])
        path = self.of(known)
        with _file(path, known.row_count) as file:
            if self._compared.get(path) != (_stamp(file), known.sha256):
                self._compare(file, known)
            yield file

    def _compare(self, file: BufferedReader, known: KnownDay) -> None:
        path, stamp = self.of(known), _stamp(file)
        if stamp[1] != known.size or digest_of(file) != (known.size, known.sha256):
            raise corrupt(
                path,
                "its size or sha256 is not the one that was archived",
                "restore the file from a backup, or call reindex() if the database is older than the file",
            )
        self._compared[path] = stamp, known.sha256

    def check(self, known: KnownDay) -> None:
        """Read the file, and compare its content."""
        self._refuse_others([known])
        with _file(self.of(known), known.row_count) as file:
            self._compare(file, known)

    def _is_whole(self, known: KnownDay) -> bool:
        try:
            self.check(known)
        except ArchiveCorruptError:
            return False
        return True

    def unknown(
        self,
        identity: Callable[[], str],
        objects: Callable[[], list[ObjectFields]],
        days: Callable[[], list[KnownDay]],
    ) -> list[str]:
        """None: the next job takes in what the database does not know."""
        self._owner = Owner(self._directory, identity)
        return []

    def take(self, log: str, known: Callable[[], list[KnownDay]]) -> None:
        """Mark the directory if an earlier version has not, and a file that the database knows is there."""
        owner = self._owner
        if self.path is None or owner is None or owner.is_marked() or not os.path.isdir(self.path):
            return
        # The log is opened also where it may not write to the directory, or where another one is faster.
        with contextlib.suppress(ArchiveError, OSError):
            if any(item.key is None and self._is_whole(item) for item in known()):
                owner.claim(log)

    def _check_owner(self) -> None:
        if self._owner is not None:
            self._owner.check()

    def _refuse_others(self, known: Iterable[KnownDay]) -> None:
        self._refuse_objects(known)
        self._check_owner()

    def strays(self, known: set[date]) -> list[KnownDay]:
        """Files of days that the database does not know."""
        self._check_owner()
        found: list[KnownDay] = []
        for day, form in self._directory.days():
            if day not in known:
                with contextlib.suppress(ArchiveCorruptError):
                    found.append(self._describe(day, form)[0])
        return found

    def stray(self, day: date) -> KnownDay | None:
        """A file of a day that the database does not know."""
        self._check_owner()
        forms = self._forms().get(day)
        return None if forms is None else self._describe(day, forms[0])[0]

    def problems(self, known: list[KnownDay], told: set[str]) -> list[VerifyProblem]:
        """Files that the database does not know."""
        try:
            self._check_owner()
        except ArchiveError as error:
            path = str(error.path)
            return [] if path in told else [VerifyProblem(path, str(error).removeprefix(f"{path}: "))]
        days = {item.day for item in known}
        return [self._problem_of_unknown(day, form) for day, form in self._directory.days() if day not in days]

    def _problem_of_unknown(self, day: date, form: str) -> VerifyProblem:
        try:
            self._describe(day, form)
        except ArchiveCorruptError as error:
            return problem_of(error, day)
        reason = "the database does not know the file; the next archive job adopts it, and so does reindex()"
        return VerifyProblem(self._directory.of(day, form), reason, day=day)

    def prepare(self, manifest: Manifest, *, is_idle: bool = False) -> list[VerifyProblem]:
        """Take in files of an interrupted job, or of another program; remove staged ones."""
        known = {item.day: item for item in manifest.known()}
        if is_idle and not known and not self._directory.days():
            return []
        self._refuse_absence(known.values())
        self._check_owner()
        self._directory.prepare()
        self._claim(manifest)
        announced = manifest.announced()
        problems: list[VerifyProblem] = []
        for day, forms in self._forms().items():
            item = known.get(day)
            if item is None or item.key is not None or day in announced or forms != [item.format]:
                try:
                    self._take_in_left(manifest, day, forms, item, announced.get(day))
                except ArchiveCorruptError as error:
                    # It stays as it is: a read or a job that needs the day gets the error.
                    problems.append(problem_of(error, day))
        return problems + self._changed(manifest)

    def _changed(self, manifest: Manifest) -> list[VerifyProblem]:
        """The files that are there, were touched since they were archived, and are not what they were."""
        problems: list[VerifyProblem] = []
        for item in manifest.known():
            path = None if item.key else self.of(item)
            if path is None or not os.path.lexists(path):
                continue
            try:
                with _file(path) as file:
                    _, size, modified, _ = _stamp(file)
                if size != item.size or modified // 1_000_000 > item.archived_at:
                    with self.opened(item):
                        # It need not be read by the next job.
                        manifest.note_time(item.day, modified // 1_000_000)
            except ArchiveCorruptError as error:
                problems.append(problem_of(error, item.day, item))
        return problems

    def _claim(self, manifest: Manifest) -> None:
        if self._owner is not None:
            self._owner.claim(manifest.path)

    def _refuse_absence(self, known: Iterable[KnownDay]) -> None:
        """The directory is not there, and days are to be in it: it is not mounted, or its name is wrong."""
        if self.path is not None and not os.path.isdir(self.path):
            for item in known:
                if item.key is None:
                    raise missing(self.of(item), item.row_count)

    def _forms(self) -> dict[date, list[str]]:
        """The days that have a file; a compressed one comes last."""
        found: dict[date, list[str]] = {}
        for day, form in self._directory.days():
            found.setdefault(day, []).append(form)
        return found

    def _take_in_left(
        self, manifest: Manifest, day: date, forms: list[str], item: KnownDay | None, announced: KnownDay | None
    ) -> None:
        """What a killed job published counts, then what counted before; a damaged file is left as it is."""
        if announced is not None and self._is_whole(announced):
            self._take_in(manifest, item, *self._describe(day, announced.format))
            forms = [form for form in forms if form != announced.format] + [announced.format]
        elif item is None or item.key is not None:
            self._take_in(manifest, item, *self._describe(day, forms[-1]))
        elif item.format not in forms:
            # Another program compressed it, or the other way round.
            found, summary = self._describe(day, forms[-1])
            if _rows_of(found) != _rows_of(item):
                return
            self._take_in(manifest, item, found, summary)
        elif self._is_whole(item):
            forms = [form for form in forms if form != item.format] + [item.format]
        else:
            return
        self._remove_copies(day, forms)

    def _remove_copies(self, day: date, forms: list[str]) -> None:
        """Keep the last of the forms; `ArchiveError` if another one has rows that it has not."""
        *others, kept = forms
        for form in others:
            lines = (line for _, line in self._rows(day, kept))
            # Each is looked for after the one before: both are in the order of the ids.
            if not all(line in lines for _, line in self._rows(day, form)):
                path = self._directory.of(day, form)
                raise error_at(
                    ArchiveError,
                    path,
                    f"it has rows that {self._directory.of(day, kept)}, the file of the day, has not; move it away",
                )
            self._directory.remove(day, form)

    def _take_in(
        self,
        manifest: Manifest,
        item: KnownDay | None,
        found: KnownDay,
        summary: DaySummary,
        *,
        renumbers: bool = False,
    ) -> None:
        if item is not None and item.key is not None and item.sha256 != found.sha256:
            # A copy of what the object was before it gained rows.
            raise error_at(
                ArchiveError, self.of(found), f"it is not the content of {item.url}, where the day lies; move it away"
            )
        rows = partial(self._rows, found.day, found.format)
        manifest.take_in(found, summary, self.of(found), rows, renumbers=renumbers)

    def current(self, manifest: Manifest, day: date) -> tuple[str | None, Iterator[tuple[LogEntry, bytes]]]:
        """What the day's file is; it is compared each time, for what is wrong in it would be written anew as right."""
        known = manifest.find(day)
        self._check_owner()
        if known is None:
            forms = self._forms().get(day, [])
            return (forms[-1], self._rows(day, forms[-1])) if forms else (None, iter(()))
        announced = manifest.announced().get(day)
        # A dry run takes in nothing of what a killed job published.
        counted = announced if announced is not None and self._is_whole(announced) else known
        self.check(counted)
        return counted.format, self._rows(day, counted.format)

    def _rows(self, day: date, form: str) -> Iterator[tuple[LogEntry, bytes]]:
        path = self._directory.of(day, form)
        with _file(path) as file:
            yield from read_day(file, path, day, form)

    def _describe(self, day: date, form: str) -> tuple[KnownDay, DaySummary]:
        path = self._directory.of(day, form)
        with _file(path) as file:
            content, archived_at = digest_of(file), os.fstat(file.fileno()).st_mtime_ns // 1_000_000
            return described(read_day(file, path, day, form), day, form, content, archived_at=archived_at)

    def store(self, manifest: Manifest, day: date, form: str, write: Write) -> tuple[KnownDay, DaySummary]:
        """Stage, announce, publish, read back, settle."""
        with self._directory.staged(day, form) as staged:
            known, summary = write(staged.file)
            if summary.added_rows:
                staged.sync()
                manifest.announce(known, summary)
                staged.publish()
        if summary.added_rows:
            if not self._is_whole(known):
                raise corrupt(self.of(known), "it is not what was written a moment ago; the disk fails")
            self._directory.remove(day, PLAIN if form == ZSTD else ZSTD)
            # By the clock of the file's times: `_changed` compares with it.
            known = replace(known, archived_at=os.stat(self.of(known)).st_mtime_ns // 1_000_000)
            manifest.settle(known, summary)
        return known, summary

    def tidy(self, manifest: Manifest) -> None:
        """Nothing is left over: a file takes the place of the one before."""

    def expire(self, manifest: Manifest, known: list[KnownDay]) -> None:
        """Forget the days, and remove their files."""
        self._refuse_others(known)
        self._refuse_absence(known)
        for item in known:
            manifest.forget(item.day)
            self._directory.remove(item.day, item.format)

    def _refuse_objects(self, known: Iterable[KnownDay]) -> None:
        for item in known:
            if item.key is not None:
                raise elsewhere(item)

    def reindex(self, manifest: Manifest, progress: Progress) -> None:
        """Describe the files; days whose files are missing are forgotten."""
        files = self._forms()
        known = {item.day: item for item in manifest.known()}
        self._refuse_absence(known.values())
        if files:
            self._claim(manifest)
        gone = known.keys() - files.keys()
        self._refuse_objects(known[day] for day in gone)
        for day in sorted(gone):
            manifest.forget(day)
        for done, (day, forms) in enumerate(files.items(), 1):
            self._take_in(manifest, known.get(day), *self._describe(day, forms[-1]), renumbers=True)
            self._remove_copies(day, forms)
            if progress is not None:
                progress(done, len(files))

    def close(self) -> None:
        """Nothing is kept."""


@contextlib.contextmanager
def _file(path: str, row_count: int | None = None) -> Iterator[BufferedReader]:
    """A file of a day, which held so many rows."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - it is closed below
    except FileNotFoundError as error:
        raise missing(path, row_count) from error
    except OSError as error:
        raise corrupt(path, f"it cannot be read ({error.strerror})") from error
    with file:
        yield file


def _stamp(file: BufferedReader) -> _Stamp:
    """What tells one state of a file from another."""
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _rows_of(known: KnownDay) -> tuple[int, int | None, int | None, int]:
    return known.row_count, known.first_id, known.last_id, known.raw_size
