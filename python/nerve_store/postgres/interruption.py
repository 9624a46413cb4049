"""Ending a read of another thread: its statement at the server, and whatever it would begin after that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg

_Result = TypeVar("_Result")

_AGAIN_SECONDS = 0.2
"""After so long the server is asked again: it may have been between two statements."""
_CANCEL_SECONDS = 5.0
"""How long one such request may take."""
_of_thread = threading.local()


class CallInterruptedError(Exception):
    """The call was interrupted; what it gives is not wanted any more."""


class Interruption:
    """Interrupts the call that is made through it."""

    def __init__(self) -> None:
        self._session: psycopg.Connection[Any] | None = None
        self._changed = threading.Condition()
        self._is_wanted = False

    def run(self, call: Callable[[], _Result]) -> _Result:
        """Make the call, in this thread."""
        _of_thread.interruption = self
        try:
            return call()
        finally:
            _of_thread.interruption = None

    def want(self) -> None:
        """Let the call begin nothing more; returns at once."""
        self._is_wanted = True

    def end(self) -> None:
        """Let the server end the statement under way; returns once the call has let go of its connection."""
        with self._changed:
            while self._session is not None:
                with suppress(psycopg.Error):
                    self._session.cancel_safe(timeout=_CANCEL_SECONDS)
                self._changed.wait(_AGAIN_SECONDS)

    def check(self) -> None:
        """Raise if the call is to end."""
        if self._is_wanted:
            raise CallInterruptedError

    @contextmanager
    def holding(self, session: psycopg.Connection[Any]) -> Iterator[None]:
        """The call uses this connection, which is of no use afterwards if it was interrupted: that raises."""
        with self._changed:
            self.check()
            self._session = session
        try:
            yield
        finally:
            # Waits while a request to cancel is under way, which could otherwise hit the connection's next statement.
            with self._changed:
                self._session = None
                self._changed.notify_all()
        self.check()


def _current() -> Interruption | None:
    found: Interruption | None = getattr(_of_thread, "interruption", None)
    return found


def check_interruption() -> None:
    """Raise if the call of this thread was interrupted."""
    if (interruption := _current()) is not None:
        interruption.check()


@contextmanager
def interruptible(session: psycopg.Connection[Any]) -> Iterator[None]:
    """The call of this thread uses this connection."""
    if (interruption := _current()) is None:
        yield
    else:
        with interruption.holding(session):
            yield
