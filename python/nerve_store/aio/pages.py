"""Iterating in an event loop over what threads read page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from nerve_store.aio.threads import Call

_Item = TypeVar("_Item")


class AsyncPages(Generic[_Item]):
    """Items in order, of which any task of a loop may take the next.

    A step that fails or is cancelled loses none: its read is interrupted, and the next step goes on after the last
    item.
    """

    def __init__(
        self,
        begin: Callable[[Callable[[], list[_Item]]], Call[list[_Item]]],
        open_pages: Callable[[], Callable[[], list[_Item]]],
    ) -> None:
        """`begin` calls a function in a thread; `open_pages` gives the one that returns the next items.

        That one returns none at the end, and loses none when it raises.
        """
        self._begin, self._open_pages = begin, open_pages
        self._take: Callable[[], list[_Item]] | None = None
        self._page: list[_Item] = []
        """What was read and not returned, the last item first."""
        self._turn = asyncio.Lock()
        self._reading: Call[list[_Item]] | None = None
        """A page that a thread reads. No task: a program that cancels all tasks of its loop loses none of its items."""
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        if self._page:
            return self._page.pop()
        async with self._turn:
            if not self._page:  # no other task has read one meanwhile
                await self._read()
            if not self._page:
                raise StopAsyncIteration
            return self._page.pop()

    async def _read(self) -> None:
        while not self._is_closed:
            reading = self._reading = self._reading or self._begin(self._next)
            try:
                await asyncio.wait([reading.outcome])
            except asyncio.CancelledError:
                reading.interrupt()
                raise
            self._reading = None
            try:
                page = reading.outcome.result()
            except Exception:
                if reading.was_interrupted:
                    continue
                raise
            if not self._is_closed:
                self._page = page[::-1]
            return

    def _next(self) -> list[_Item]:
        """The next items; called in a thread."""
        if self._take is None:
            self._take = self._open_pages()
        return self._take()

    async def aclose(self) -> None:
        """End the iteration, in whatever task it waits."""
        self._is_closed = True
        self._page.clear()
        if self._reading is not None:
            self._reading.interrupt()
