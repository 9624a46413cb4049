"""Hashes of blobs as they are given on the command line: whole, or the first digits."""

from __future__ import annotations

import os
import re

from nerve_store import normalize_blob_hash
from nerve_store.cli.problem import Problem
from nerve_store.cli.stores import blob_root

__all__ = ["require_hash"]

_LEAST_DIGITS = 6
_DIGITS = 64
_SHARD_DIGITS = 2
_SHOWN = 3


def require_hash(data: str, text: str) -> str:
    """The whole hash; digits that begin those of no blob, or of several, are a `Problem`."""
    digest = normalize_blob_hash(text)
    if digest is not None:
        return digest
    if not re.fullmatch(rf"[0-9A-Fa-f]{{{_LEAST_DIGITS},{_DIGITS}}}", text):
        raise Problem(
            f"{text!r} is not a sha256 hash: 64 hexadecimal digits, or the first {_LEAST_DIGITS} or more of them"
        )
    prefix = text.lower()
    shard, rest = prefix[:_SHARD_DIGITS], prefix[_SHARD_DIGITS:]
    try:
        names = sorted(os.listdir(os.path.join(blob_root(data), shard)))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    found = [
        shard + name for name in names if name.startswith(rest) and normalize_blob_hash(shard + name) == shard + name
    ]
    if not found:
        raise Problem(f"there is no blob whose hash begins with {prefix}")
    if len(found) > 1:
        shown = ", ".join(digest[: len(prefix) + 6] for digest in found[:_SHOWN])
        raise Problem(f"{prefix} begins the hashes of {len(found)} blobs ({shown}, ...): give more digits")
    return found[0]
