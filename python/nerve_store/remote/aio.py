"""Blobs in an object store, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from nerve_store.aio.blobs import BlobCalls
from nerve_store.remote.blobs.store import ObjectBlobStore

_HOUR = timedelta(hours=1)


class AsyncObjectBlobStore(BlobCalls[ObjectBlobStore]):
    """`ObjectBlobStore` for asyncio: its methods, awaitable, and its files as asynchronous streams.

    Writes that wait at the same time are sent at the same time. A call that is cancelled raises `CancelledError` at
    once; its requests go on in a thread, and a write may be stored all the same. Use it with `async with`, or await
    `close()`.
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | None = None,
        read_only: bool = False,
        grace: timedelta = _HOUR,
    ) -> None:
        """The blobs under `url`, blocking for one answer of the store; the options are those of `ObjectBlobStore`."""
        super().__init__(ObjectBlobStore(url, options=options, read_only=read_only, grace=grace))
