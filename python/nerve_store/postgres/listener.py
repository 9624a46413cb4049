"""Hearing of commits: one LISTEN of a process, whatever the number of its followers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg import sql

from nerve_store.postgres.connections import Connections, Session
from nerve_store.postgres.schema import channel

LOOK_SECONDS = 1.0
"""How often a follower looks although nothing woke it: a notice may be lost with its connection."""
_DEAF_SECONDS = 0.05
"""The same, while there is no connection that could hear one, and there will be."""
_TURN_SECONDS = 0.2
"""How long closing a store may take on account of the thread."""


class Listener:
    """Counts the notices of a schema; its thread starts with the first that waits."""

    def __init__(self, connections: Connections, schema: str, url: str | None) -> None:
        self._connections = connections
        self._listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel(schema)))
        self._url = url
        self._changed = threading.Condition()
        self._notices = 0
        self._run_notices = 0
        self._is_settled = False
        self._told: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._is_ending = False

    def notices(self) -> int:
        """How many commits were heard of; to be asked before looking, and handed to `wait`."""
        self._start()
        return self._notices

    def run_notices(self) -> int:
        """How many commits were heard of in which a run became queued."""
        self._start()
        return self._run_notices

    def tell(self, hear: Callable[[], None]) -> None:
        """Call `hear` whenever there is something to look at, in whatever thread."""
        self._told.append(hear)

    def has_news(self, known: int, *, of_runs: bool = False) -> bool:
        """Whether there is something to look at for one who knows so many commits."""
        return self._is_ending or (self._run_notices if of_runs else self._notices) != known

    def patience(self, seconds: float) -> float:
        """How long to wait: while nothing is heard yet, time is all there is to go by."""
        return seconds if self._is_settled else min(seconds, _DEAF_SECONDS)

    def wait(self, known: int, seconds: float, *, of_runs: bool = False) -> None:
        """Wait for another commit than those known, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self.has_news(known, of_runs=of_runs), self.patience(seconds))

    def wake(self) -> None:
        """Let all that wait look."""
        self._count(1)

    def _count(self, runs: int) -> None:
        with self._changed:
            self._notices += 1
            self._run_notices += runs
            self._changed.notify_all()
        for hear in self._told:
            hear()

    def close(self) -> None:
        """End the thread, and let all that wait look."""
        self._is_ending = True
        self.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        if self._thread is None and not self._is_ending:
            with self._changed:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, args=(os.getpid(),), name="nerve_store-listen", daemon=True
                    )
                    self._thread.start()

    def _run(self, process: int) -> None:
        session: Session | None = None
        while not self._is_ending and os.getpid() == process:
            try:
                if session is None:
                    session = self._connections.connect(self._url)
                    is_shared = self._connections.is_shared(session, self._url)
                    if not is_shared:
                        session.execute(self._listen)
                    self._is_settled = True
                    # What was committed meanwhile gave a notice that nobody heard.
                    self.wake()
                    if is_shared:
                        # The notices would go to whoever has the session then. Followers look from time to time.
                        break
                for notice in session.notifies(timeout=_TURN_SECONDS, stop_after=1):
                    self._count(notice.payload == "run")
            except psycopg.Error:
                self._is_settled = False
                if session is not None:
                    with suppress(psycopg.Error):
                        session.close()
                session = None
                self.wake()
                time.sleep(_TURN_SECONDS)
        if session is not None:
            with suppress(psycopg.Error):
                session.close()
