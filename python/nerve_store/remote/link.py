"""What the requests of a process send at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Link:
    """Bytes under way, so few that a slow link sends each request's before the request is given up."""

    def __init__(self, most_bytes: int) -> None:
        self._most = self._free = most_bytes
        self._freed = threading.Condition()
        self._next = threading.Lock()
        """Held by the one that waits, so that a large request is not overtaken by small ones without end."""

    @contextmanager
    def sending(self, size: int) -> Iterator[None]:
        """Wait until this many bytes, or all that may be under way, are free, and take them."""
        share = min(size, self._most)
        with self._next, self._freed:
            self._freed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._freed:
                self._free += share
                self._freed.notify()
