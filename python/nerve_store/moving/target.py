"""Writing a log that is moved, where it is to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from nerve_store._core import LogEntry
from nerve_store.moving.shelf import Shelf
from nerve_store.moving.state import KnownDay, State
from nerve_store.protocols import Blobs


class Target(ABC):
    """A log that has no name yet, so that no store can open it; what is written to it is durable."""

    place: str
    """What a person calls it."""
    shelf: Shelf | None
    """Where the files of its days lie; None: it has no archive."""

    def blobs(self) -> Blobs | None:
        """Its blobs; None: they stay where they are."""
        return None

    @abstractmethod
    def begin(self, source: str) -> str:
        """Note whose copy it is, unless that is noted; returns what is noted."""

    @property
    @abstractmethod
    def done(self) -> int:
        """The id up to which the rows were written and read back."""

    @abstractmethod
    def put(self, rows: list[LogEntry], *, after: int | None = None) -> None:
        """Write rows, all or none; those after the id `after` up to the last of them make room."""

    @abstractmethod
    def advance(self, done: int) -> None:
        """Note that the rows up to this id were read back."""

    @abstractmethod
    def rows(self, after: int, last: int) -> list[LogEntry]:
        """The rows that it has, in order."""

    @abstractmethod
    def ids(self, after: int, last: int) -> list[int]:
        """Their ids, in order."""

    @abstractmethod
    def delete(self, ids: Collection[int]) -> None:
        """Delete rows."""

    @abstractmethod
    def days(self) -> set[KnownDay]:
        """The days whose files were copied and read back."""

    @abstractmethod
    def note_day(self, day: KnownDay) -> None:
        """Note that one of them is there."""

    @abstractmethod
    def forget_day(self, day: KnownDay) -> None:
        """Note that one of them is not there."""

    @abstractmethod
    def replace_state(self, state: State) -> None:
        """Write what a log has beside its rows, in place of what is there."""

    @abstractmethod
    def index(self, archived_at: Mapping[str, int]) -> dict[str, str]:
        """Make of it what a store expects; returns the sha256 of each day that it then knows.

        `archived_at` says when each day was archived.
        """

    @abstractmethod
    def publish(self) -> None:
        """Give it its name, at once: from here on it is a log like any other."""

    @abstractmethod
    def close(self) -> None:
        """Close it, as it is."""
