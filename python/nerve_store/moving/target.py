"""Writing a log that is moved, where it is to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from nerve_store._core import LogEntry
from nerve_store.moving.state import State


@dataclass(frozen=True, slots=True)
class KnownDay:
    """A day's file that was copied and read back."""

    day: str
    format: str
    sha256: str


class Target(ABC):
    """A log that has no name yet, so that no store can open it; what is written to it is durable."""

    place: str
    """What a person calls it."""
    archive: str | None
    """The directory of its day files."""

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
    def index(self) -> dict[str, str]:
        """Make of it what a store expects; returns the sha256 of each day that it then knows."""

    @abstractmethod
    def publish(self) -> None:
        """Give it its name, at once: from here on it is a log like any other."""

    @abstractmethod
    def close(self) -> None:
        """Close it, as it is."""
