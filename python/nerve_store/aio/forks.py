"""What a forked child may not share with its parent's event loops."""

from __future__ import annotations

import asyncio
import os
import selectors
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

_READ_AND_WRITE = ((selectors.EVENT_READ, 1), (selectors.EVENT_WRITE, 4))
"""What `selectors` and `epoll` call the same events."""


class Inheritable(Protocol):
    """What is told that it is in a child now."""

    def _become_inherited(self) -> None:
        """Refuse to work, and wait for no lock that a thread of the parent may hold."""


_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
_stores: WeakSet[Inheritable] = WeakSet()


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Keep a child that leaves its copy of the loop from taking the loop's descriptors out of its parent's `epoll`."""
    _loops.add(loop)


def watch_store(store: Inheritable) -> None:
    """Tell the store when it is in a child."""
    _stores.add(store)


def _in_child() -> None:
    for loop in list(_loops):
        _part(loop)
    for store in list(_stores):
        store._become_inherited()


def _part(loop: asyncio.AbstractEventLoop) -> None:
    """Give the child's copy of the loop an `epoll` of its own, with the same descriptors in it.

    A loop of another kind than asyncio's own has no such attribute, and looks after its forks itself.
    """
    selector = getattr(loop, "_selector", None)
    if not hasattr(selectors, "EpollSelector") or not isinstance(selector, selectors.EpollSelector):
        return
    from select import epoll

    try:
        with epoll() as fresh:
            for key in selector.get_map().values():
                # A descriptor that leads nowhere in a child may be one that cannot be waited for, like /dev/null.
                with suppress(PermissionError):
                    fresh.register(key.fd, sum(bit for event, bit in _READ_AND_WRITE if key.events & event))
            os.dup2(fresh.fileno(), selector.fileno(), inheritable=False)
    except (OSError, ValueError):  # the selector is closed, or no descriptor is to be had
        return


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
