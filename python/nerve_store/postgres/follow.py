"""Following the log: every row of every process, each once, in id order, and never one that a crash could take back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from nerve_store._core import Check, LogEntry
from nerve_store.postgres.filters import Filter
from nerve_store.postgres.listener import LOOK_SECONDS, Listener
from nerve_store.postgres.reads import Reads
from nerve_store.types import Timestamp

_PAGE_ROWS = 2_000


class PostgresFollower:
    """The rows of a filter as they are appended, by whatever process; endless until it is closed."""

    def __init__(
        self,
        look: Callable[[Filter], list[LogEntry]],
        listener: Listener,
        wanted: Filter,
        *,
        first: Iterator[LogEntry],
        check: Callable[[], None],
    ) -> None:
        self._look, self._listener, self._wanted, self._check = look, listener, wanted, check
        self._first: Iterator[LogEntry] | None = first
        self._ready: deque[LogEntry] = deque()
        self._last = wanted.after_id or 0
        self._closed = False
        # LISTEN begins now, so that the first wait hears what comes.
        self._listener.notices()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LogEntry:
        while not self._ready:
            if self._closed:
                raise StopIteration
            known = self._listener.notices()
            if not self._fill():
                self._listener.wait(known, LOOK_SECONDS)
        return self._ready.popleft()

    def _fill(self) -> bool:
        self._check()
        if self._first is not None:
            # Rows that were archived before the follower came to them.
            for entry in self._first:
                self._ready.append(entry)
                self._last = max(self._last, entry.id)
                if len(self._ready) >= _PAGE_ROWS:
                    return True
            self._first = None
        page = self._look(self._wanted.between(after_id=self._last, limit=_PAGE_ROWS))
        if page:
            self._last = page[-1].id
            self._ready.extend(page)
        return bool(self._ready)

    def _poll(self) -> list[LogEntry]:
        """The rows that there are now, perhaps none; waits for nothing."""
        if self._closed:
            return []
        if not self._ready:
            self._fill()
        rows = list(self._ready)
        self._ready.clear()
        return rows

    def _wait(self, known: int, seconds: float) -> None:
        """Wait for another commit than those known, at most so long."""
        self._listener.wait(known, seconds)

    def close(self) -> None:
        """End the iteration, from any thread; harmless when ended already."""
        self._closed = True
        self._listener.wake()

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
        """The rows that match, as they are appended by any process, each once, in id order.

        `after_id` None: from now on. Every row is durable when it is handed out. A notice of the server wakes it; it
        looks each second beside that, so that `poll_interval` matters to no one here. It lives through a reconnect.
        Closing the store ends it with `StoreClosedError`; `close()` of the follower ends the iteration.
        """
        Check.poll_interval(poll_interval)
        wanted = Filter.checked(
            source=source, type=type, ref_id=ref_id, since=since, until=until, after_id=after_id, archived=archived
        )
        first: Iterator[LogEntry] = iter(())
        last_id = self._last_id()
        if after_id is None:
            wanted = wanted.between(after_id=last_id, limit=None)
        elif wanted.archived:
            first = self._durably_merged(wanted.between(before_id=last_id + 1, limit=None))
        return PostgresFollower(
            lambda span: self._page(span, is_durable=True),
            self._listener,
            wanted,
            first=first,
            check=self._connections.check,
        )

    def _durably_merged(self, wanted: Filter) -> Iterator[LogEntry]:
        self._value(f"SELECT CASE WHEN NOT pg_is_in_recovery() THEN {self._schema}.flush()::text END")
        yield from self._merged(wanted)
