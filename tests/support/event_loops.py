"""What the tests of `AsyncLogStore` share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import nerve_store as ns

T = TypeVar("T")
LIMIT = 60.0
"""Seconds after which a test counts as hanging."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in a loop of its own; whatever the loop would only report is an error."""
    reported: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        return await asyncio.wait_for(main, LIMIT)

    try:
        return asyncio.run(bounded())
    finally:
        gc.collect()
        assert reported == []


async def take(rows: AsyncIterator[ns.LogEntry], count: int) -> list[ns.LogEntry]:
    taken: list[ns.LogEntry] = []
    async for entry in rows:
        taken.append(entry)
        if len(taken) == count:
            break
    return taken
