"""What the tests of `AsyncLogStore` share."""

from __future__ import annotations

import asyncio
import gc
import random
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


async def take_with_cancellations(items: AsyncIterator[T], seed: int) -> tuple[list[T], int]:
    """All items, and how many of the steps to them were cancelled."""
    dice = random.Random(seed)
    found: list[T] = []
    cancelled = 0
    while True:
        step = asyncio.ensure_future(anext(items))
        # A step that takes a thread is given too little time, more often than not.
        if dice.random() < 0.7:
            await asyncio.wait([step], timeout=dice.choice([0, 0.000_02, 0.000_1, 0.001, 0.005]))
            step.cancel()
        await asyncio.wait([step], timeout=LIMIT)
        if step.cancelled():
            cancelled += 1
        elif isinstance(step.exception(), StopAsyncIteration):
            return found, cancelled
        else:
            found.append(step.result())
