"""The blob store for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from nerve_store._core import BlobStore, Check
from nerve_store.aio.base import Handle, documented
from nerve_store.aio.blob_streams import AsyncBlobReader, AsyncBlobWriter, WritingFile
from nerve_store.aio.blob_writes import Writes
from nerve_store.protocols import Blobs

if TYPE_CHECKING:
    from nerve_store.records import BlobStats, BlobVerifyReport, CollectReport
    from nerve_store.types import Data, Durability, File, Path, Progress

_IN_A_THREAD = "`progress` is called in another thread than the event loop's."
_PAGE_HASHES = 256
"""Hashes that an iteration takes from a thread at a time."""
_GRACE = timedelta(hours=1)


class Blocking(Blobs, Protocol):
    """A blob store whose calls block."""

    @property
    def root(self) -> str: ...
    def write(self, data: Data, *, verify: bool = False) -> str: ...
    def write_many(self, items: Iterable[Data], *, verify: bool = False) -> list[str]: ...
    def write_file(self, file: File, *, verify: bool = False) -> str: ...
    def writer(self, *, verify: bool = False) -> WritingFile: ...


_Store = TypeVar("_Store", bound=Blocking)


class BlobCalls(Handle, Generic[_Store]):
    """The methods of a blob store, awaitable."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        super().__init__(store.root, store.close)
        self._writes = Writes(store, self._threads.write)

    @property
    @documented(BlobStore.root)
    def root(self) -> str:
        return self._store.root

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closing and not self._is_inherited

    @documented(BlobStore.write, "In an event loop, writes that wait at the same time are stored as by `write_many`.")
    async def write(self, data: Data, *, verify: bool = False) -> str:
        self._check_open()
        if Check.flag(verify, "verify"):
            return await self._run(self._threads.write, self._store.write, data, verify=True)
        return await self._writes.write(data)

    @documented(BlobStore.write_many)
    async def write_many(self, items: Iterable[Data], *, verify: bool = False) -> list[str]:
        return await self._run(self._threads.write, self._store.write_many, items, verify=verify)

    @documented(BlobStore.write_file, "A file object is read in another thread than the event loop's.")
    async def write_file(self, file: File, *, verify: bool = False) -> str:
        return await self._run(self._threads.write, self._store.write_file, file, verify=verify)

    @documented(
        BlobStore.writer,
        "Use it with `async with`, or await `close()`: `async with blobs.writer() as w: await w.write(piece)`.",
    )
    def writer(self, *, verify: bool = False) -> AsyncBlobWriter:
        self._check_open()
        return AsyncBlobWriter(self, self._threads.write, lambda: self._store.writer(verify=verify))

    @documented(BlobStore.read)
    async def read(self, hash: str) -> bytes | None:
        return await self._run(self._threads.read, self._store.read, hash)

    @documented(
        BlobStore.open,
        "Use it with `async with`, or await it: `async with blobs.open(hash) as f: await f.read(size)`.",
    )
    def open(self, hash: str) -> AsyncBlobReader:
        self._check_open()
        return AsyncBlobReader(self, self._threads.read, lambda: self._store.open(hash))

    @documented(BlobStore.exists)
    async def exists(self, hash: str, *, verify: bool = True) -> bool:
        return await self._run(self._threads.read, self._store.exists, hash, verify=verify)

    @documented(BlobStore.delete)
    async def delete(self, hash: str) -> bool:
        return await self._run(self._threads.write, self._store.delete, hash)

    @documented(BlobStore.verify, _IN_A_THREAD)
    async def verify(self, *, progress: Progress | None = None) -> BlobVerifyReport:
        return await self._run(self._threads.job, self._store.verify, progress=progress)

    @documented(BlobStore.collect, _IN_A_THREAD)
    async def collect(
        self,
        keep: Iterable[str],
        *,
        grace: timedelta = _GRACE,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CollectReport:
        return await self._run(
            self._threads.job, self._store.collect, keep, grace=grace, dry_run=dry_run, progress=progress
        )

    @documented(BlobStore.size)
    async def size(self, hash: str) -> int:
        return await self._run(self._threads.read, self._store.size, hash)

    @documented(BlobStore.stats)
    async def stats(self) -> BlobStats:
        return await self._run(self._threads.job, self._store.stats)

    def __aiter__(self) -> AsyncIterator[str]:
        """The hashes of all blobs, in order."""

        def open_pages() -> Callable[[], list[str]]:
            hashes = iter(self._store)
            page: list[str] = []

            def take() -> list[str]:
                nonlocal page
                page.extend(islice(hashes, _PAGE_HASHES - len(page)))  # which keeps those before an error
                taken, page = page, []
                return taken

            return take

        return self._pages(open_pages)

    async def _finish_writes(self) -> None:
        await self._writes.finish()

    def __repr__(self) -> str:
        closed = " (closed)" if self._closing else ""
        return f"<{type(self).__name__} {self._store.root!r}{closed}>"


class AsyncBlobStore(BlobCalls[BlobStore]):
    """`BlobStore` for asyncio: its methods, awaitable, and its files as asynchronous streams.

    Writes that wait at the same time share their flushes. Reads have threads of their own, so that none waits for a
    write. A call that is cancelled raises `CancelledError` at once. `verify`, `collect` and `write_file` then end in
    their thread as well, within moments; a read that has begun there goes on to its end, and its result is dropped. A
    write that is cancelled may be stored all the same. Use it with `async with`, or await `close()`.
    """

    def __init__(self, root: Path, *, durability: Durability = "full", read_only: bool = False) -> None:
        """The blobs under `root`; the options are those of `BlobStore`."""
        super().__init__(BlobStore(root, durability=durability, read_only=read_only))
