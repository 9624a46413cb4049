"""The reserve of ids of a data directory, a file that docs/format.md describes: a bound on the ids that were given out.

It is there while a process that appended has the log open, and after each end that was not a clean one.
"""

from __future__ import annotations

import os
from contextlib import suppress

_SLOTS = (slice(0, 48), slice(512, 560))
_BYTES = 40
"""Of a slot, before its checksum."""
_MASK = 2**64 - 1
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee0359"
    "0e6813a264c"
)


def reserved_ids(database: str) -> int:
    """No greater id was given out by a process that did not end cleanly, or that is at work; 0 if none is known."""
    content = b""
    with suppress(FileNotFoundError):
        # No lock is lost when it is closed: it is `flock` that processes hold on it.
        reserve = os.open(f"{database}-ids", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(reserve, "rb") as file:
            content = file.read(_SLOTS[-1].stop)
    slots = [slot for slot in (content[place] for place in _SLOTS) if len(slot) == _BYTES + 8]
    whole = [slot for slot in slots if _word(slot, _BYTES) == _checksum(slot[:_BYTES])]
    _, bound = max(((_word(slot, 0), slot[8:16]) for slot in whole), default=(0, bytes(8)))
    return max(0, int.from_bytes(bound, "little", signed=True))


def _checksum(record: bytes) -> int:
    """XXH3 of 40 bytes."""
    total = len(record) * 0x9E3779B185EBCA87
    for at, key in ((16, 32), (len(record) - 32, 48), (0, 0), (len(record) - 16, 16)):
        product = (_word(record, at) ^ _word(_SECRET, key)) * (_word(record, at + 8) ^ _word(_SECRET, key + 8))
        total += (product & _MASK) ^ (product >> 64)
    total &= _MASK
    total = (total ^ (total >> 37)) * 0x165667919E3779F9 & _MASK
    return total ^ (total >> 32)


def _word(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
