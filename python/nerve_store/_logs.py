"""The log of what a caller passes as `store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nerve_store.protocols import Log

if TYPE_CHECKING:
    from nerve_store.store import Store


def log_of(store: Log | Store) -> Log:
    """The log itself, or that of a store; `TypeError` for what has none whose methods are called without `await`."""
    found: Any = getattr(store, "logs", store)
    if isinstance(found, type) or not isinstance(found, Log):
        raise TypeError(f"store must be Log or Store, not {type(store).__name__}")
    return found


def opened_again(log: Log) -> Log:
    """The same log for a forked child that appends to it; one of another kind than ours as it is."""
    again: Any = getattr(log, "_opened_again", None)
    return log if again is None else again()
