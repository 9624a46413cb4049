"""The threads of a store's calls that make many requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 32
"""Requests under way of calls that make many."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Pool:
    """Threads that are made when they are needed; those who go on after `close` get new ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[[_Item], _Result], item: _Item) -> Future[_Result]:
        """Call in one of the threads."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="nerve_store-objects")
            return self._threads.submit(call, item)

    def close(self) -> None:
        """Wait for what is under way, and let go of the threads."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
