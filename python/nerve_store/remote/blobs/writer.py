"""A file to write to, which becomes a blob."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from nerve_store._core import Check
from nerve_store.remote.blobs.content import Content, Spool
from nerve_store.types import Data


class ObjectBlobWriter:
    """A file that becomes a blob when it is closed; `ObjectBlobStore.writer` makes it.

    As a context manager it is closed at the end, or discarded if an exception comes. Nothing is sent before `close`:
    what has more than 8 MiB waits in a temporary file. If `close` fails, it can be called again.
    """

    def __init__(self, store: Callable[[Content], str]) -> None:
        self._store = store
        self._spool = Spool()
        self._lock = threading.Lock()
        self._hash: str | None = None
        self._is_closed = False

    def write(self, data: Data) -> int:
        """Add bytes (text as UTF-8) and return how many."""
        content = Check.data(data)
        with self._lock:
            if self._is_closed:
                raise ValueError("the blob is closed")
            return self._spool.write(content)

    def close(self) -> None:
        """Publish the blob; `hash` says its name. Does nothing if it was closed or discarded before."""
        with self._lock:
            if not self._is_closed:
                self._hash = self._store(self._spool.content())
                self._end()

    def discard(self) -> None:
        """Give the blob up: nothing of it is left. Does nothing if it was closed before."""
        with self._lock:
            if not self._is_closed:
                self._end()

    def _end(self) -> None:
        self._is_closed = True
        self._spool.close()

    @property
    def hash(self) -> str:
        """The sha256 of the blob, lowercase hex; a `ValueError` before it is published."""
        if self._hash is None:
            state = "the blob was discarded" if self._is_closed else "the blob has no hash yet; close the writer first"
            raise ValueError(state)
        return self._hash

    @property
    def closed(self) -> bool:
        """Whether it was closed or discarded."""
        return self._is_closed

    def tell(self) -> int:
        """How many bytes were written."""
        return self._spool.size

    def flush(self) -> None:
        """Does nothing: a blob is durable when it is closed."""

    def writable(self) -> bool:
        """True."""
        return True

    def readable(self) -> bool:
        """False."""
        return False

    def seekable(self) -> bool:
        """False."""
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        self.discard()
