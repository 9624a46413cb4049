"""Following the log: every row of every process, each once, in id order, and never one that a crash could take back."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from nerve_store._core import Check, LogEntry
from nerve_store._pages import Pages
from nerve_store.postgres.filters import Filter
from nerve_store.postgres.listener import LOOK_SECONDS
from nerve_store.postgres.pages import PAGE_ROWS, paged
from nerve_store.postgres.reads import Reads
from nerve_store.types import Timestamp


class PostgresFollower(Pages[LogEntry]):
    """The rows of a filter as they are appended, by whatever process; endless, until it is closed.

    As a context manager it is closed at the end. Any thread may take the next row. An interrupted step loses none.
    """

    def __init__(self, store: Reads, wanted: Filter) -> None:
        super().__init__(self._following, store._connections.check)
        self._store, self._wanted = store, wanted
        self._after = wanted.after_id
        """Where it begins; None before it has begun, from now on."""
        self._closed = False

    def __next__(self) -> LogEntry:
        while not self._closed:
            page = self._page
            for entry in page:
                return entry
            known = self._store._listener.notices()
            if not self._fill(page):
                self._store._listener.wait(known, LOOK_SECONDS)
        raise StopIteration

    def _start(self) -> None:
        """Begin, unless it has begun."""
        with self._reading:
            self._first_id()
        # LISTEN begins now, so that the first wait hears what comes.
        self._store._listener.notices()

    def _first_id(self) -> int:
        if self._after is None:
            self._after = self._store._last_id()
        return self._after

    def _following(self, last: LogEntry | None, _: int | None) -> Iterator[list[LogEntry]]:
        """The pages after a row, an empty one whenever there is nothing to be read."""
        after = self._first_id() if last is None else last.id
        lags = self._wanted.archived
        while True:
            if lags:
                newest = self._store._last_id()
                yield from paged(self._merged(self._wanted.between(after_id=after, before_id=newest + 1, limit=None)))
                after = max(after, newest)
            wanted = self._wanted.between(after_id=after, limit=PAGE_ROWS)
            page = self._store._page(wanted, is_durable=True)
            lags = self._wanted.archived and self._passes_over_some(wanted, after, page)
            if not lags:
                yield page
                after = page[-1].id if page else after

    def _passes_over_some(self, wanted: Filter, after: int, page: list[LogEntry]) -> bool:
        """Whether rows between `after` and the end of the page may have been archived before they were read here.

        The page was read before: a row that is in neither is in no file later. Where no id is missing, none left.
        """
        if page and page[-1].id - after == len(page):
            return False
        before = page[-1].id if page else None
        return bool(self._store._reader().known(wanted.between(before_id=before, limit=None)))

    def _merged(self, wanted: Filter) -> Iterator[LogEntry]:
        flush = f"{self._store._schema}.flush()::text"
        self._store._value(f"SELECT CASE WHEN NOT pg_is_in_recovery() THEN {flush} END")
        yield from self._store._merged(wanted)

    def close(self) -> None:
        """End the iteration, in whatever thread it waits. Does nothing if it was closed before."""
        self._closed = True
        self._store._listener.wake()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Follows(Reads):
    """Following."""

    def follow(
        self,
        *,
        after_id: int | None = None,
        poll_interval: float = 0.05,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        archived: bool = True,
    ) -> PostgresFollower:
        """The rows that match, as they are appended by any process, each once, in id order; endless.

        `after_id` None: from now on. Every row is durable when it is handed out. A notice of the server wakes it; it
        looks each second beside that, so that `poll_interval` matters to no one here. It lives through a reconnect.
        `close()`, from any thread, ends the iteration; closing the store ends it with `StoreClosedError`.
        """
        follower = self._follower(
            poll_interval, after_id=after_id, source=source, type=type, ref_id=ref_id, since=since, until=until,
            archived=archived,
        )  # fmt: skip
        follower._start()
        return follower

    def _follower(self, poll_interval: float, **filters: Any) -> PostgresFollower:
        """One that has not begun; asks the server nothing."""
        Check.poll_interval(poll_interval)
        return PostgresFollower(self, Filter.checked(**filters))
