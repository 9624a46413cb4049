"""Waits, signals and another process's lock."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from support import start_child

RUNAWAY = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000000) SELECT sum(n) FROM c"
"""A statement that takes minutes."""

PROMPT = 4.0
"""Seconds within which a call ends after a signal: 25 ms by themselves, and what a loaded machine adds."""


class Interrupted(Exception):  # noqa: N818
    """What the handler of a test raises."""


@contextmanager
def write_lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Another process holds the write lock of the database."""
    with start_child("hold_lock", path=os.fspath(path)) as child:
        try:
            assert child.stdout is not None
            assert json.loads(child.stdout.readline()) == "holding"
            yield
        finally:
            child.kill()


@contextmanager
def archive_lock(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Another job holds the lock of the archive."""
    os.makedirs(directory, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def handler(function: object, number: signal.Signals = signal.SIGUSR1) -> Iterator[None]:
    """Handle a signal by a call of `function`."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        assert callable(function)
        function()

    previous = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, previous)


@contextmanager
def without_collections() -> Iterator[None]:
    """No collection of cycles begins by itself: in its `gc.callbacks` CPython drops what a handler raises."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def signal_after(delay: float) -> Iterator[list[float]]:
    """Send SIGUSR1 to this process after `delay` seconds; the list says when."""
    sent: list[float] = []

    def send() -> None:
        if not is_over.wait(delay):
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGUSR1)

    is_over = threading.Event()
    thread = threading.Thread(target=send)
    with without_collections():
        thread.start()
        try:
            yield sent
        finally:
            is_over.set()
            with suppress(Interrupted):
                thread.join()


def interrupt() -> None:
    raise Interrupted
