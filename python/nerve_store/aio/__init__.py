"""The stores for asyncio: the same names, awaitable.

Appends cost no thread and no wake-up of their own: all that are waiting share a commit, and each commit wakes the event
loop once. Blobs that are written at the same time share their flushes. Everything else runs in threads of the store's
own: reads, writes and archive jobs each have theirs.
"""

from nerve_store.aio.blob_streams import AsyncBlobReader, AsyncBlobWriter
from nerve_store.aio.blobs import AsyncBlobStore
from nerve_store.aio.directory import AsyncStore
from nerve_store.aio.follow import AsyncLogFollower
from nerve_store.aio.store import AsyncLogStore

__all__ = ["AsyncBlobReader", "AsyncBlobStore", "AsyncBlobWriter", "AsyncLogFollower", "AsyncLogStore", "AsyncStore"]
