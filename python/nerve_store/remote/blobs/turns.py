"""The lease of whoever deletes, and the waiting of writers for its end.

A deletion cannot be made to depend on what it deletes. So whoever deletes holds `.collecting` while it lists and
deletes, and a writer that stored a blob again where one was waits until whoever held it then has ended, and looks
whether the blob is still there. No clock is compared with another machine's: a lease that stays the same for
`LEASE` seconds of the one who looks is that of a process which is gone, and so is one that the server dates far before
what it has just stored.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from nerve_store._places import error_at
from nerve_store.exceptions import StoreBusyError, StoreIOError, StoreUnavailableError
from nerve_store.remote.blobs.keys import COLLECTING
from nerve_store.remote.bucket import Bucket, Found
from nerve_store.remote.failures import is_declined

LEASE = 60.0
"""Seconds after which a lease that nobody renewed is over."""
ROUND = 20.0
"""Seconds of a lease in which deletions may begin: each has ended long before the lease is over."""
_SURELY_OVER = 2 * LEASE
"""Seconds after which nobody waits for a lease any more, by the clock of the server, whose machines may differ."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

_run_out: dict[str, Found] = {}
"""The lease of each place that this process has watched to its end; it may lie there for long."""


class Turn:
    """A lease that is held."""

    def __init__(self, bucket: Bucket, held: Found, since: float) -> None:
        self._bucket = bucket
        self._held = held
        self._since = since
        self._unanswered = 0
        """Deletions that may still arrive: then the lease must run out by itself."""
        self._lock = threading.Lock()

    @property
    def began(self) -> datetime:
        """When the lease was taken, by the server's clock."""
        return self._held.modified

    @property
    def is_over(self) -> bool:
        """Whether no further deletion may begin."""
        return time.monotonic() - self._since > ROUND

    def delete(self, keys: list[str]) -> None:
        """Delete objects that were listed or read under this lease."""
        self._count(1)
        try:
            self._bucket.delete(keys)
        except StoreIOError:
            self._count(-1)  # refused
            raise
        except StoreUnavailableError as error:
            self._count(-is_declined(error))
            raise
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._unanswered += change

    def end(self) -> None:
        """Let writers go on."""
        if not self._unanswered and _is_same(self._bucket.head(COLLECTING), self._held):
            self._bucket.delete([COLLECTING])


@contextmanager
def turn(bucket: Bucket) -> Iterator[Turn]:
    """Take the lease, wait for another's end if need be, and give it back."""
    held, since = _taken(bucket)
    taken = Turn(bucket, held, since)
    try:
        yield taken
    except (Exception, GeneratorExit):
        taken.end()
        raise
    # After an interruption deletions may be under way: the lease runs out by itself.
    taken.end()


def wait_for_turns(bucket: Bucket, stored: str | None = None) -> None:
    """Return once every lease that was held when this was called, or when `stored` was stored just now, has ended."""
    lease = bucket.head(COLLECTING)
    now = bucket.head(stored) if lease is not None and stored is not None else None
    if lease is None or (now is not None and (now.modified - lease.modified).total_seconds() > _SURELY_OVER):
        return
    _watch(bucket, lease)


def _watch(bucket: Bucket, first: Found | None) -> Found | None:
    """Wait until the lease is another than `first`, or too old; in the latter case return it."""
    since, pause = time.monotonic(), _FIRST_PAUSE
    found = first
    while found is not None and _is_same(found, first):
        if _is_same(found, _run_out.get(bucket.place)) or time.monotonic() - since > LEASE:
            _run_out[bucket.place] = found
            return found
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        found = bucket.head(COLLECTING)
    return None


def _taken(bucket: Bucket) -> tuple[Found, float]:
    end = time.monotonic() + 3 * LEASE
    content = uuid.uuid4().bytes
    while time.monotonic() < end:
        since = time.monotonic()
        is_ours = bucket.create(COLLECTING, content)
        found = bucket.head(COLLECTING)
        # A request that was sent twice reports its own success as an object that was there.
        if found is not None and (is_ours or bucket.get(COLLECTING, longest=64) == content):
            return found, since
        left = _watch(bucket, found)
        if left is not None:
            since = time.monotonic()
            if bucket.replace(COLLECTING, content, left.tag) and (mine := bucket.head(COLLECTING)) is not None:
                return mine, since
    raise error_at(StoreBusyError, bucket.name(COLLECTING), "others collect or verify without end; try again")


def _is_same(one: Found | None, other: Found | None) -> bool:
    return one is not None and other is not None and (one.tag, one.modified) == (other.tag, other.modified)
