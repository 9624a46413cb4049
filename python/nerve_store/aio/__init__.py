"""The log store for asyncio: the same names, awaitable.

Appends cost no thread and no wake-up of their own: all that are waiting share a commit, and each commit wakes the event
loop once. Everything else runs in threads of the store's own: reads, writes
and archive jobs each have theirs.
"""

from nerve_store.aio.store import AsyncLogStore

__all__ = ["AsyncLogStore"]
