"""The key of a blob, and those beside the blobs."""

from __future__ import annotations

import re

FORMAT = ".nerve-store"
"""Says which format the blobs have; it is made after the store was seen to create atomically."""
COLLECTING = ".collecting"
"""There while something is deleted that a writer may be about to rely on."""
QUARANTINE = "quarantine"

_KEY = re.compile(r"([0-9a-f]{2})/([0-9a-f]{62})")


def key_of(hash: str) -> str:
    """Where the blob of this hash (lowercase hex) lies."""
    return f"{hash[:2]}/{hash[2:]}"


def hash_of(key: str) -> str | None:
    """The hash of the blob that lies there; None if the key is no blob's."""
    match = _KEY.fullmatch(key)
    return match[1] + match[2] if match else None


def hash_in(key: str) -> str:
    """The hash of the blob that lies at the key of one."""
    return key.replace("/", "")
