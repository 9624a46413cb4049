"""Where the days of a log lie: what a directory and a place in an object store have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import date
from typing import BinaryIO, Protocol, TypeAlias

from nerve_store._core import LogEntry
from nerve_store._places import error_at
from nerve_store.exceptions import StoreUnavailableError
from nerve_store.postgres.archive.known import DaySummary, KnownDay
from nerve_store.postgres.archive.manifest import Manifest
from nerve_store.records import VerifyProblem

Write: TypeAlias = Callable[[BinaryIO], tuple[KnownDay, DaySummary]]
"""Writes the content of a day, and describes it."""
ObjectFields: TypeAlias = tuple[date, str, str, int, str]
"""The day, the key, the state, the size and the sha256 of an object."""
Progress: TypeAlias = Callable[[int, int], object] | None


class Days(Protocol):
    """The files of days. Who calls one of the methods that take a `Manifest` holds the lock of archive jobs."""

    @property
    def path(self) -> str | None:
        """The directory, or the URL; None if the log was opened without an archive."""

    def of(self, known: KnownDay) -> str:
        """The path or the URL of a day."""

    def opened(self, known: KnownDay) -> AbstractContextManager[BinaryIO]:
        """The content of a day, as it was archived. `ArchiveCorruptError` if it is not there (any more)."""

    def check(self, known: KnownDay) -> None:
        """`ArchiveCorruptError` unless the day is there and, byte for byte, what was archived."""

    def unknown(
        self,
        identity: Callable[[], str],
        objects: Callable[[], list[ObjectFields]],
        days: Callable[[], list[KnownDay]],
    ) -> list[str]:
        """Asked when the log is opened: the URLs of objects that are newer than what the database knows.

        `ArchiveError` if the place has days of another log than the one of this `identity`, or days of which nothing
        tells whose they are; `objects` and `days` are those that the database knows.
        """

    def take(self, log: str, known: Callable[[], list[KnownDay]]) -> None:
        """Asked when the log is opened for writing: mark a place that an earlier version left without a mark.

        Messages call it `log`; `known` are the days that the database knows.
        """

    def strays(self, known: set[date]) -> list[KnownDay]:
        """The days beside those `known` that can be read although the database does not know them.

        `ArchiveError` if the place is another log's, as in all that read days or write them.
        """

    def stray(self, day: date) -> KnownDay | None:
        """One that the database does not know; `ArchiveCorruptError` if it cannot be read."""

    def problems(self, known: list[KnownDay], told: set[str]) -> list[VerifyProblem]:
        """What else is wrong with days whose content was checked; nothing of the places in `told`."""

    def prepare(self, manifest: Manifest, *, is_idle: bool = False) -> list[VerifyProblem]:
        """Before a job: take in days that the database does not know, and remove what a killed job left.

        Returns what is wrong with days, as far as it shows without reading those that nobody has touched. A job that
        `is_idle` has nothing to move, and makes no place this log's that has no days.
        """

    def current(self, manifest: Manifest, day: date) -> tuple[str | None, Iterator[tuple[LogEntry, bytes]]]:
        """The form of the day as it is, and its rows with their lines; None and none if it is not there."""

    def store(self, manifest: Manifest, day: date, form: str, write: Write) -> tuple[KnownDay, DaySummary] | None:
        """Put the day there, read it back, and make it the one that counts; nothing of it if no row was added.

        None if something that is not the log's is in the way, which `tidy` will raise.
        """

    def tidy(self, manifest: Manifest) -> None:
        """After a job: remove what others have replaced, and raise what was in the way of a day."""

    def expire(self, manifest: Manifest, known: list[KnownDay]) -> None:
        """Remove these days, and what the database says of them."""

    def reindex(self, manifest: Manifest, progress: Progress) -> None:
        """Describe all days anew, each as it is."""

    def close(self) -> None:
        """Let go of what is kept here."""


def elsewhere(known: KnownDay) -> StoreUnavailableError:
    """The error of a day whose object lies where the log was not told to look."""
    place = str(known.place).removesuffix("/logs")
    return error_at(
        StoreUnavailableError,
        str(known.url),
        f"the day {known.day} lies there, and this log was opened without it: open it with archive={place!r}",
    )
