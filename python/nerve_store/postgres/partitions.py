"""The partitions of the next days, which are made beside the appends: none of them waits for it or fails by it.

Rows of a day that has no partition lie in the default one: nothing but their deletion is slower for it. Unless there
are many, they move to the partition when it is made, and appends wait for that.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import psycopg

from nerve_store.exceptions import NerveStoreError
from nerve_store.postgres import failures
from nerve_store.postgres.connections import Connections, Session

_DAYS_AHEAD = 3
"""So that one long read at midnight is no reason for a day without a partition."""
_AGAIN_SECONDS = 60.0
"""When to try again what a lock, or the server, forbade."""
_WAIT_SECONDS = 0.5
"""How long the first append after days without one waits for the partition of its day."""


class Partitions:
    """Makes the partitions of a store, each day anew."""

    def __init__(self, connections: Connections, schema: str) -> None:
        self._connections = connections
        self._ensure = f"SELECT {schema}.ensure_day(%s)".encode()
        self._due = 0.0
        self._last_day = date.min
        """The last day whose partition was made, or tried to be."""
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None

    def open(self, session: Session) -> None:
        """Make what is missing, as far as it is to be had at once."""
        self._due = time.time() + _AGAIN_SECONDS
        try:
            self._make(session)
        except psycopg.Error as error:
            if failures.is_pooled_by_statement(error):
                failures.fail(error, self._connections.place)

    def look(self) -> None:
        """Called by each write: once a day, have a thread make the next ones."""
        if time.time() < self._due or not self._mutex.acquire(blocking=False):
            return
        try:
            self._due = time.time() + _AGAIN_SECONDS
            today = datetime.now(UTC).date()
            is_late = self._last_day < today
            self._last_day = max(self._last_day, today)
            thread = threading.Thread(target=self._run, name="nerve_store-partitions", daemon=True)
            # Without a thread it is tried again later.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
                if is_late:
                    thread.join(_WAIT_SECONDS)
        finally:
            self._mutex.release()

    def close(self) -> None:
        """Wait for the thread; it ends once the connections are closed."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        with suppress(NerveStoreError):
            self._connections.read(self._make)

    def _make(self, session: Session) -> None:
        now = datetime.now(UTC)
        for day in (now.date() + timedelta(days=number) for number in range(_DAYS_AHEAD + 1)):
            with session.transaction():
                row = session.execute(self._ensure, (day,)).fetchone()
            if row is None or row[0] is None:
                return
            self._last_day = max(self._last_day, day)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self._due = midnight.timestamp()
