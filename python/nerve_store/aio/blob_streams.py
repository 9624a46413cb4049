"""Blobs as streams of an event loop.

Calls of one stream run one after the other, in the order in which they were made: a call that was cancelled goes on in
its thread, and the next waits for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, Protocol, Self, TypeVar

from nerve_store._core import Check
from nerve_store.aio.threads import submit
from nerve_store.protocols import BlobWriting

if TYPE_CHECKING:
    from nerve_store.aio.base import Handle
    from nerve_store.types import Data


class WritingFile(BlobWriting, Protocol):
    """A file that becomes a blob, and says whether it was closed."""

    @property
    def closed(self) -> bool: ...


_File = TypeVar("_File", BinaryIO, WritingFile)
_Result = TypeVar("_Result")

_PIECE_BYTES = 256 << 10
"""What an iteration reads at a time."""


class _Stream(Generic[_File]):
    """A file whose calls block threads of `pool`; it is opened by the first of them."""

    def __init__(self, handle: Handle, pool: ThreadPoolExecutor, open_file: Callable[[], _File]) -> None:
        self._handle = handle
        self._pool = pool
        self._open_file: Callable[[], _File] = open_file
        self._file: _File | None = None
        self._turn = asyncio.Lock()
        self._calls = 0
        """How many have begun."""

    async def _call(self, function: Callable[[_File], _Result]) -> _Result:
        return await asyncio.shield(await self._begin(function))

    async def _begin(self, function: Callable[[_File], _Result]) -> asyncio.Future[_Result]:
        """Make a call once those before have ended."""
        if self._file is None:
            self._handle._check_open()
        self._handle._check_process()
        await self._turn.acquire()
        self._calls += 1

        def call() -> _Result:
            if self._file is None:
                self._file = self._open_file()
            return function(self._file)

        try:
            calling = submit(self._pool, call)
        except BaseException:
            self._turn.release()
            raise
        calling.add_done_callback(self._end_turn)
        return calling

    def _end_turn(self, _: asyncio.Future[Any]) -> None:
        self._turn.release()


class AsyncBlobReader(_Stream[BinaryIO]):
    """A blob as an asynchronous file to read from; `AsyncBlobStore.open` makes it.

    Its bytes are verified as they are read, as `BlobStore.open` says. Iterating yields pieces of up to 256 KiB. A read
    that was cancelled loses nothing: the next one begins with its bytes.
    """

    _kept = b""
    """What a cancelled call has read."""
    _is_torn = False

    async def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end; by default all that are left.

        Raises `BlobCorruptError` if they are not the blob's.
        """
        given = Check.integer(size, "size")
        wanted = -1 if given is None else given
        if self._is_torn:
            raise ValueError("a read of this blob was cancelled while another one went on: open it again")

        def read(file: BinaryIO) -> bytes:
            kept = self._kept
            if 0 <= wanted < len(kept):
                self._kept = kept[wanted:]
                return kept[:wanted]
            found = kept + file.read(wanted if wanted < 0 else wanted - len(kept))
            self._kept = b""
            return found

        reading = await self._begin(read)
        own = self._calls
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            if reading.done():
                self._keep(own, reading)
            else:
                reading.add_done_callback(partial(self._keep, own))
            raise

    def _keep(self, own: int, reading: asyncio.Future[bytes]) -> None:
        """Keep what was not received for the next read; too late if that is under way in another task."""
        if reading.cancelled() or reading.exception() is not None:
            return
        if self._calls == own:
            self._kept = reading.result() + self._kept
        else:
            self._is_torn = True

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            await self._call(lambda file: file.close())

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file is not None and self._file.closed

    async def _open(self) -> Self:
        await self._call(lambda _: None)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(_PIECE_BYTES):
            yield piece

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class AsyncBlobWriter(_Stream[WritingFile]):
    """An asynchronous file that becomes a blob when it is closed; `AsyncBlobStore.writer` makes it.

    With `async with` it is closed at the end, or discarded if an exception comes: then nothing of it is left. Nothing
    is acknowledged before `close`. After a write that was cancelled it is unknown what the file holds: `write` and
    `close` refuse, and the blob is to be begun anew.
    """

    _is_torn = False

    async def write(self, data: Data) -> int:
        """Add bytes (text as UTF-8) and return how many."""
        self._check_whole()
        try:
            return await self._call(lambda file: file.write(data))
        except asyncio.CancelledError:
            self._is_torn = True
            raise

    async def close(self) -> None:
        """Publish the blob; `hash` says its name. Does nothing if it was closed or discarded before."""
        if not self.closed:
            self._check_whole()
        await self._call(lambda file: file.close())

    async def discard(self) -> None:
        """Give the blob up: nothing of it is left. Does nothing if it was closed before."""
        await self._call(lambda file: file.discard())

    def _check_whole(self) -> None:
        if self._is_torn:
            raise ValueError("a write to this blob was cancelled, and what it holds is unknown: begin it anew")

    @property
    def hash(self) -> str:
        """The sha256 of the blob, lowercase hex; a `ValueError` before it is published."""
        if self._file is None:
            raise ValueError("the blob has no hash yet; close the writer first")
        return self._file.hash

    @property
    def closed(self) -> bool:
        """Whether it was closed or discarded."""
        return self._file is not None and self._file.closed

    async def __aenter__(self) -> Self:
        await self._call(lambda _: None)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            await self.discard()
