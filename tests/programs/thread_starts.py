"""A program of asynchronous stores in which a signal handler raises while a thread begins."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import nerve_store as ns

_KEPT: list[object] = []
"""Stores that are never closed."""


def raise_as_a_thread_begins(*, kind: str, place: str, options: dict[str, Any], pool: str, error: str) -> None:
    """Use a store of a kind until the handler has raised as the first thread of a pool began; end with 3 if it did.

    The handler runs where Python waits for the new thread to have begun.
    """
    raised = {"interrupt": KeyboardInterrupt, "exit": SystemExit}[error]
    start, left = threading.Thread.start, [1]

    def begin(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith(f"nerve_store-{pool}") and left and left.pop():
            raise raised

    threading.Thread.start = begin  # type: ignore[assignment, method-assign]

    async def use() -> None:
        store = getattr(ns, kind)(place, **options)
        _KEPT.append(store)
        if pool == "close":
            async with store:
                return
        blobs, logs = getattr(store, "blobs", None), getattr(store, "logs", store)
        if kind == "AsyncBlobStore":
            blobs, logs = store, None
        if blobs is not None:
            await blobs.write(b"blob")
            await blobs.stats()
        if logs is not None:
            await logs.append("s", "t")
            await logs.archive_logs()
            await logs.query()

    try:
        asyncio.run(use())
    except raised:
        sys.exit(1 if left else 3)
    sys.exit(4)
