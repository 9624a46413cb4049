"""Whether an object store is one that blobs can lie in."""

from __future__ import annotations

import errno
import json
import uuid
from concurrent.futures import ThreadPoolExecutor

from nerve_store.exceptions import SchemaVersionError
from nerve_store.remote.blobs.keys import FORMAT
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.failures import refusal

VERSION = 1
PROBE = ".probe-"
"""How the names of objects begin that are stored to see whether that works, and deleted at once."""
_ROUNDS, _RIVALS = 6, 8


def check_format(bucket: Bucket) -> bool:
    """Whether blobs of ours may lie there already; `SchemaVersionError` if a newer nerve_store made them."""
    content = bucket.get(FORMAT, longest=4096)
    if content is None:
        return False
    try:
        found = int(json.loads(content)["format"]) if isinstance(content, bytes) else 0
    except (ValueError, TypeError, KeyError):
        found = 0
    if found != VERSION:
        place = bucket.name(FORMAT)
        what = "was written by a newer nerve_store" if found > VERSION else "says no format of nerve_store"
        error = SchemaVersionError(f"{place}: it {what} (format {found}, this one reads {VERSION})")
        error.path, error.found, error.supported = place, found, VERSION
        raise error
    return True


def prepare(bucket: Bucket) -> None:
    """Refuse a store that does not create atomically; remember that this one does."""
    if check_format(bucket):
        return
    check_creation(bucket)
    bucket.create(FORMAT, json.dumps({"format": VERSION}).encode() + b"\n")


def check_creation(bucket: Bucket) -> None:
    """`StoreIOError` if the store does not create atomically."""
    with ThreadPoolExecutor(_RIVALS, thread_name_prefix="nerve_store-probe") as pool:
        for _ in range(_ROUNDS):
            _race(bucket, pool)


def _race(bucket: Bucket, pool: ThreadPoolExecutor) -> None:
    """Several create the same object at the same time: at the most one may be told that it did."""
    key = f"{PROBE}{uuid.uuid4().hex}"
    try:
        rivals = [(b"%d" % number) * 1024 for number in range(_RIVALS)]
        winners = [
            data
            for data, won in zip(rivals, pool.map(lambda data: bucket.create(key, data), rivals), strict=True)
            if won
        ]
        # The first one, if conflicts have stored nothing so far.
        if bucket.create(key, b"late"):
            winners.append(b"late")
        stored = bucket.get(key, longest=1024)
    finally:
        bucket.delete([key])
    # None: the one that created it was answered only when it asked again.
    if len(winners) > 1 or (winners and stored != winners[0]):
        raise refusal(
            errno.ENOTSUP,
            f"the object store does not create atomically ({len(winners)} of {_RIVALS + 1} created the same object);"
            " blobs written at the same time could be lost there",
            bucket.place,
        )
