"""Writing a log that is moved, where it is to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

from nerve_store._core import LogEntry
from nerve_store._places import error_at, system_error
from nerve_store.exceptions import NerveStoreError
from nerve_store.moving.shelf import Shelf
from nerve_store.moving.state import KnownDay, Origin, State
from nerve_store.protocols import Blobs


class TargetExistsError(NerveStoreError):
    """There is a log at the target; a caller of `copy` sees a `NerveStoreError` that says so."""

    def __init__(self, target: str, place: str, way_out: str, shelf: Shelf | None) -> None:
        """`target` is what a person calls it, `place` where it lies.

        `shelf`: where its days are, if it is the one that a copy to this target made.
        """
        self._message = f"there is a log already; {way_out}"
        super().__init__(f"{place}: {self._message}")
        self.target, self.place, self.shelf = target, place, shelf

    def told(self, reason: str | None = None) -> NerveStoreError:
        """What a caller sees: the message, or another reason than that there is a log."""
        return error_at(NerveStoreError, self.place, self._message if reason is None else reason)


@contextmanager
def system_errors(place: str) -> Generator[None]:
    """Raise errors of the operating system as ours; `place` is what is named if they name none."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NerveStoreError):
            raise
        path = place if error.filename is None else str(error.filename)
        raise system_error(error, error.strerror or str(error), path) from error


class Target(ABC):
    """A log that has no name yet, so that no store can open it; what is written to it is durable.

    Invariant: while it is open, no other one writes to the same place.
    """

    place: str
    """What a person calls it."""
    identity: str
    """What no other log has; it stays when the log gets its name."""
    shelf: Shelf | None
    """Where the files of its days lie; None: it has no archive."""

    def blobs(self) -> Blobs | None:
        """Its blobs; None: they stay where they are."""
        return None

    @abstractmethod
    def translated(self) -> AbstractContextManager[None]:
        """Raise the errors of what is below as ours."""

    @abstractmethod
    def begin(self, source: str) -> str:
        """Note whose copy it is, unless that is noted; returns what is noted."""

    @property
    @abstractmethod
    def done(self) -> int:
        """The id up to which the rows were written and read back."""

    @abstractmethod
    def put(self, rows: list[LogEntry], *, after: int) -> None:
        """Write rows, all or none, in place of those after the id `after` up to the last of them."""

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
    def count(self) -> int:
        """How many rows it has."""

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
    def publish(self, origin: Origin) -> None:
        """Let it say whose copy it is, and give it its name, at once: from here on it is a log like any other."""

    @abstractmethod
    def close(self) -> None:
        """Close it, as it is."""
