"""The blobs as the command line names and lists them: by whole hashes or their first digits, at home or in a bucket."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from nerve_store import BlobNotFoundError, BlobStore, normalize_blob_hash
from nerve_store.cli.problem import Problem

if TYPE_CHECKING:
    from nerve_store.remote import ObjectBlobStore

__all__ = ["blob_entries", "require_hash"]

_LEAST_DIGITS = 6
_DIGITS = 64
_SHARD_DIGITS = 2
_SHOWN = 3


def require_hash(blobs: BlobStore | ObjectBlobStore, text: str) -> str:
    """The whole hash; digits that begin those of no blob, or of several, are a `Problem`."""
    digest = normalize_blob_hash(text)
    if digest is not None:
        return digest
    if not re.fullmatch(rf"[0-9A-Fa-f]{{{_LEAST_DIGITS},{_DIGITS}}}", text):
        raise Problem(
            f"{text!r} is not a sha256 hash: 64 hexadecimal digits, or the first {_LEAST_DIGITS} or more of them"
        )
    prefix = text.lower()
    found = [digest for digest in _in_shard(blobs, prefix[:_SHARD_DIGITS]) if digest.startswith(prefix)]
    if not found:
        raise Problem(f"there is no blob whose hash begins with {prefix}")
    if len(found) > 1:
        shown = ", ".join(digest[: len(prefix) + 6] for digest in found[:_SHOWN])
        raise Problem(f"{prefix} begins the hashes of {len(found)} blobs ({shown}, ...): give more digits")
    return found[0]


def _in_shard(blobs: BlobStore | ObjectBlobStore, shard: str) -> list[str]:
    """The hashes of the blobs whose hash begins so, in order."""
    if not isinstance(blobs, BlobStore):
        from nerve_store.remote.blobs.keys import hash_in
        from nerve_store.remote.blobs.listing import listed

        return [hash_in(one.key) for one in listed(blobs._bucket, shard)]  # noqa: SLF001
    try:
        names = sorted(os.listdir(os.path.join(blobs.root, shard)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [shard + name for name in names if normalize_blob_hash(shard + name) == shard + name]


def blob_entries(blobs: BlobStore | ObjectBlobStore, *, long: bool) -> Iterator[dict[str, object]]:
    """Each blob as `blob ls` prints it, in the order of the hashes."""
    if not isinstance(blobs, BlobStore):
        yield from _object_entries(blobs, long=long)
        return
    for digest in blobs:
        # One that was removed since its name came up is no longer there.
        with suppress(BlobNotFoundError, FileNotFoundError):
            entry: dict[str, object] = {"hash": digest, "size": blobs.size(digest)}
            if long:
                path = os.path.join(blobs.root, digest[:2], digest[2:])
                entry |= {"written": os.lstat(path).st_mtime_ns // 1_000_000, "path": path}
            yield entry


def _object_entries(blobs: ObjectBlobStore, *, long: bool) -> Iterator[dict[str, object]]:
    """From the listings alone: to ask for each blob would take a request a blob."""
    from nerve_store.remote.blobs.keys import hash_in
    from nerve_store.remote.blobs.listing import shards
    from nerve_store.remote.blobs.pool import Pool

    bucket = blobs._bucket  # noqa: SLF001
    with closing(Pool()) as pool:
        for shard in shards(bucket, pool):
            for one in shard:
                entry: dict[str, object] = {"hash": hash_in(one.key), "size": one.size}
                if long:
                    written = int(one.modified.timestamp() * 1000)
                    entry |= {"written": written, "path": bucket.name(one.key)}
                yield entry
