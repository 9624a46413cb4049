"""Connections to the server: opened when needed, kept for the next call, dropped when they break."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import Connection, IsolationLevel
from psycopg.conninfo import conninfo_to_dict

from nerve_store._places import error_at
from nerve_store.exceptions import ForkedStoreError, StoreClosedError
from nerve_store.postgres import arrays, failures
from nerve_store.postgres.interruption import check_interruption, interruptible

Session: TypeAlias = Connection[tuple[Any, ...]]
_Result = TypeVar("_Result")

_CONNECT_SECONDS = 10
"""How long one attempt may take, at the most."""
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""A server that vanished without a word is noticed within half a minute."""
_UNACKNOWLEDGED_SECONDS = 25
"""How long what was sent may stay without an answer of the network, at the most."""
_MOST_IDLE = 8
"""Connections that are kept although no call uses them."""
_LONGEST_LOCK_TIMEOUT_MS = 2**31 - 1
"""What the server takes, 24.8 days."""
_LOOKS = 20
"""How often a pooler may give a client what it had before, until it is taken for one in session mode."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two attempts to reach the server."""


class Patience:
    """How long a call tries to reach the server."""

    def __init__(self, seconds: float) -> None:
        self._end, self._pause = time.monotonic() + seconds, 0.0

    def pause(self) -> bool:
        """Sleep until the next attempt, the first of which is at once; False if there is no time for one."""
        if time.monotonic() + self._pause > self._end:
            return False
        time.sleep(self._pause)
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        return True


_NEVER = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|(role|database) \".*\" does not exist"
    r"|no such (user|database)|is not permitted to log in|permission denied|not currently accepting connections"
    r"|certificate|does not support SSL|unsupported (frontend protocol|startup parameter)"
    r"|unrecognized configuration parameter|invalid value for parameter|invalid connection option",
    re.IGNORECASE | re.DOTALL,
)
"""What no waiting changes: who may log in, to what, and how. Anything else, as that no slot is left, may pass."""


class Connections:
    """The connections of one store; safe to share between threads, not between processes."""

    def __init__(self, url: str, *, place: str, busy_timeout: float, max_connections: int) -> None:
        self.url, self.place, self.busy_timeout = url, place, busy_timeout
        self._process = os.getpid()
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._max_connections = max_connections
        self._lent: dict[object, Session | None] = {}
        """What borrowers have; None: not yet."""
        self._closed = False
        # A URL that is none is an error of the caller, and told before anything is tried.
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            # What it quotes may be a part of the password.
            reason = " ".join(re.sub(r'"[^"]*"', "…", str(error)).split())
            raise ValueError(f"{place}: no URL of PostgreSQL ({reason})") from None

        own: dict[str, Any] = {
            "connect_timeout": round(min(max(busy_timeout, 2), _CONNECT_SECONDS)),
            "tcp_user_timeout": round(1000 * min(max(busy_timeout, 2), _UNACKNOWLEDGED_SECONDS)),
            **_KEEPALIVE,
        }
        self._options = {name: value for name, value in own.items() if name not in given}
        # Rows are sent and read as binary, in this encoding, whatever the URL or PGCLIENTENCODING says.
        self._options["client_encoding"] = "utf8"

    @property
    def lock_timeout_ms(self) -> int:
        """`busy_timeout` as the server takes it, of which 0 would be no limit."""
        return max(1, round(min(self.busy_timeout * 1000, _LONGEST_LOCK_TIMEOUT_MS)))

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def check(self) -> None:
        """Raise if the store is closed, or another process's, or if the call was interrupted."""
        check_interruption()
        if os.getpid() != self._process:
            raise error_at(
                ForkedStoreError,
                self.place,
                "this process was forked from the one that opened the store; open the store again in the child",
            )
        if self._closed:
            raise error_at(StoreClosedError, self.place, "the store is closed; open it again")

    def connect(self, url: str | None = None) -> Session:
        """A new connection, in autocommit; `psycopg.Error` if there is none to be had."""
        # No prepared statements: a pooler in transaction mode gives the next call another session.
        session = psycopg.connect(url or self.url, autocommit=True, prepare_threshold=None, **self._options)
        arrays.register(session)
        # What looks behind a lock must see what was committed before it, whatever the server's default is.
        session.isolation_level = IsolationLevel.READ_COMMITTED
        return session

    def is_shared(self, session: Session, url: str | None = None) -> bool:
        """Whether a pooler gives the server's end of this connection to other clients, too; `url` as in `connect`.

        Locks, settings and LISTEN of such a session are not the caller's own.
        """
        own = _backend(session)
        if own == session.info.backend_pid:
            return False
        # A pooler's number, in whatever mode. Whether what serves this client stays its own shows in who gets it next:
        # the same client, if poolers take turns, or another one, if they lend what was used last.
        with closing(self.connect(url)) as other:
            for _ in range(_LOOKS):
                if _backend(session) != own:
                    return True
                with other.transaction():
                    if own == _backend(other) or own != _backend(session):
                        return True
        return False

    def reach(self, url: str | None = None) -> Session:
        """A new connection, within `busy_timeout`; `StoreUnavailableError` if there is none to be had."""
        patience = Patience(self.busy_timeout)
        while True:
            self.check()
            try:
                return self._answering(url)
            except psycopg.Error as error:
                if not failures.is_lost(error, None) or not _may_pass(error):
                    raise self._refused(error) from error
                if not patience.pause():
                    raise failures.unavailable(self.place, error) from error

    def _answering(self, url: str | None) -> Session:
        """A new connection on which the server answers: a pooler takes a login without one."""
        session = self.connect(url)
        try:
            session.execute("SELECT")
        except BaseException:
            session.close()
            raise
        return session

    def _refused(self, error: psycopg.Error) -> Exception:
        if error.sqlstate is None:
            return failures.unavailable(self.place, error)
        return failures.translated(error, self.place)

    @contextmanager
    def borrowed(self) -> Iterator[Session]:
        """A connection for the time of a block; a block that raises something unforeseen gives it up."""
        self.check()
        borrower = object()
        try:
            session = self._lend(borrower)
            with interruptible(session):
                yield session
            self._give_back(borrower)
        except BaseException:
            self._give_up(borrower)
            raise

    def read(self, call: Callable[[Session], _Result]) -> _Result:
        """What `call` reads on a connection; on another one, within `busy_timeout`, if the first is lost."""
        try:
            return self.read_untranslated(call)
        except psycopg.Error as error:
            failures.fail(error, self.place)

    def read_untranslated(self, call: Callable[[Session], _Result]) -> _Result:
        """The same; what the server refuses is left as it says it."""
        patience = Patience(self.busy_timeout)
        while True:
            with self.borrowed() as session:
                try:
                    return call(session)
                except psycopg.Error as error:
                    if not failures.is_lost(error, session):
                        raise
                    lost = error
                    self._close(session)
            # All that were kept are of the server that is gone.
            self.drop_idle()
            self.check()
            if not patience.pause():
                raise failures.unavailable(self.place, lost) from lost

    # An interrupt may come between any two of the steps below. What is lent is then given up by the borrower.

    def _lend(self, borrower: object) -> Session:
        with self._lock:
            while len(self._lent) >= self._max_connections:
                self._changed.wait()
            self._lent[borrower] = session = self._idle[-1] if self._idle else None
            if session is not None:
                self._idle.pop()
        if session is None:
            self._lent[borrower] = session = self.reach()
        return session

    def _give_back(self, borrower: object) -> None:
        with self._lock:
            session = self._lent[borrower]
            if session and not session.closed and not self._closed and len(self._idle) < _MOST_IDLE:
                del self._lent[borrower]
                self._idle.append(session)
                self._changed.notify()
                return
        self._give_up(borrower)

    def _give_up(self, borrower: object) -> None:
        session = self._lent.get(borrower)
        if session is not None:
            self._close(session)
        with self._lock:
            self._lent.pop(borrower, None)
            self._changed.notify()

    def _close(self, session: Session) -> None:
        if os.getpid() == self._process:
            with suppress(psycopg.Error):
                session.close()

    def drop_idle(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            self._close(session)

    def close(self) -> None:
        """Close what is kept, and refuse later calls."""
        self._closed = True
        if os.getpid() == self._process:
            self.drop_idle()


def _backend(session: Session) -> int:
    """The number of the process that serves the session at this moment."""
    row = session.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def _may_pass(error: psycopg.Error) -> bool:
    """Whether waiting may help, as for a server that starts or has no slot left, not for a wrong password or name.

    libpq gives no code of a login that was refused, only the words of the server or of a pooler.
    """
    return error.sqlstate is not None or not _NEVER.search(str(error))
