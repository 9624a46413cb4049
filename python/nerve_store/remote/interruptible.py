"""Requests that a signal interrupts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_Answer = TypeVar("_Answer")


def interruptible(ask: Callable[[], _Answer]) -> _Answer:
    """Ask, in another thread if this one is the main thread: the client looks at no signal before its last try ends.

    What a handler raises ends the call at once. The request then goes on without it.
    """
    if threading.current_thread() is not threading.main_thread():
        return ask()
    answer: Future[_Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            answer.set_exception(error)

    threading.Thread(target=run, name="nerve_store-request", daemon=True).start()
    return answer.result()
