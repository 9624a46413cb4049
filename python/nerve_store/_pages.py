"""Reading page by page: what was read stays until it is taken. A step that fails or is interrupted loses none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

_Item = TypeVar("_Item")


class Pages(Generic[_Item]):
    """Items that are read page by page, of which any thread may take the next.

    A step that fails or is interrupted loses none: the next one begins anew after the last item that was read.
    """

    def __init__(
        self,
        begin: Callable[[_Item | None, int | None], Iterator[list[_Item]]],
        check: Callable[[], None],
        limit: int | None = None,
    ) -> None:
        """`begin` gives the pages after an item, or all of them, with so many items at the most.

        `check` raises if the store is closed, or another process's.
        """
        self._begin, self._check = begin, check
        self._pages: Iterator[list[_Item]] | None = None
        """None: to be begun, after `_last`."""
        self._page: Iterator[_Item] = iter(())
        """What was read and not taken."""
        self._last: _Item | None = None
        self._left = limit
        self._reading = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Item:
        while True:
            page = self._page
            # The loop takes an item without a call: neither a signal nor another thread can come between.
            for item in page:
                return item
            if not self._fill(page):
                raise StopIteration

    def _take(self) -> list[_Item]:
        """What was read and not taken, or else the next page; none at the end."""
        while True:
            page = self._page
            items = [*page]
            if items or not self._fill(page):
                return items

    def _fill(self, known: Iterator[_Item]) -> bool:
        """Read another page than the `known` one; whether there is one."""
        # Comes first: in a forked child, a thread of the parent may hold the lock.
        self._check()
        with self._reading:
            if self._page is not known:
                return True
            try:
                if self._pages is None:
                    self._pages = self._begin(self._last, self._left)
                page = next(self._pages, None)
                if page:
                    left = None if self._left is None else self._left - len(page)
                    # All at once: nothing is called in between, and no signal is handled.
                    self._page, self._last, self._left = iter(page), page[-1], left
            except BaseException:
                # A generator that raised is finished, and would be taken for the end.
                self._pages = None
                raise
            return bool(page)
