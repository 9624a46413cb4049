"""Storing a blob, beside others that store and delete.

What is new is created. What is there already is relied on only if it is young: whoever deletes has listed it as old
otherwise, and may delete it at any moment. It is then stored again, and looked at once that deleter has ended.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from nerve_store._places import error_at
from nerve_store.exceptions import BlobNotFoundError, StoreBusyError
from nerve_store.remote.blobs.content import SMALL_BYTES, Content
from nerve_store.remote.blobs.keys import key_of
from nerve_store.remote.blobs.read import digest_of
from nerve_store.remote.blobs.turns import wait_for_turns
from nerve_store.remote.bucket import Bucket, Found

_SENT_AT_ONCE = 256 << 10
"""Larger ones are sent only after a look whether they are there: a server that refuses them may do so by closing the
connection, and the bytes would be sent for nothing."""
_TRIES = 40
"""Far more than two writers and a deleter can cause."""


def store(bucket: Bucket, content: Content, *, grace: timedelta, verify: bool) -> str:
    """Store a blob and return its hash; when this returns, nobody deletes it for half the grace."""
    key = key_of(content.hash)
    is_small = content.size <= SMALL_BYTES
    for attempt in range(_TRIES):
        if is_small and (attempt or content.size <= _SENT_AT_ONCE) and content.create(bucket, key):
            return content.hash
        found = bucket.head(key)
        if found is None and is_small:  # deleted meanwhile, or the request conflicted with another one
            time.sleep(0.01 * attempt)
            continue
        if found is not None and _may_be_relied_on(bucket, content, found, grace=grace, verify=verify):
            return content.hash
        content.put(bucket, key)
        if found is not None:
            wait_for_turns(bucket, key)
        if _is_whole(bucket.head(key), content):
            return content.hash
    raise error_at(StoreBusyError, bucket.name(key), "others store and delete it without end; nothing is acknowledged")


def is_young(found: Found, grace: timedelta) -> bool:
    """Whether no deleter that keeps to the grace can have listed it as old.

    Half of the grace is left to whoever was told that the blob is there, and for clocks that differ.
    """
    age = datetime.now(UTC) - found.modified
    return -grace / 4 < age < grace / 2


def _may_be_relied_on(bucket: Bucket, content: Content, found: Found, *, grace: timedelta, verify: bool) -> bool:
    if not _is_whole(found, content) or not is_young(found, grace):
        return False
    try:
        return not verify or digest_of(bucket, content.hash, found.size) == content.hash
    except BlobNotFoundError:  # deleted meanwhile
        return False


def _is_whole(found: Found | None, content: Content) -> bool:
    return found is not None and found.size == content.size
