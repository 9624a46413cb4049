"""Moving the file of a day to an object: note, send, read back, note, and only then remove the file."""

from __future__ import annotations

import os
from typing import IO

from nerve_store._core import blob_hash
from nerve_store._places import error_at
from nerve_store.exceptions import ArchiveError
from nerve_store.records import ArchivedDay
from nerve_store.remote.blobs.content import ChangedError, InFile
from nerve_store.remote.bucket import PART_BYTES, Bucket
from nerve_store.remote.days.content import damaged, holds
from nerve_store.remote.days.names import DayObject, Manifest, key_of, next_generation
from nerve_store.remote.failures import unavailable


class OccupiedError(ArchiveError):
    """An object that is not this log's has the name of a day. Callers see an `ArchiveError`."""


def move(bucket: Bucket, log: Manifest, day: ArchivedDay, objects: list[DayObject], unknown: list[str]) -> str | None:
    """Bring the file of `day` to an object, and remove it; the URL, or None if the file is another one by now.

    `objects` are those of the day that the log has sent, `unknown` the others that are there. The caller holds the lock
    of archive jobs.
    """
    try:
        file = open(day.path, "rb")  # noqa: SIM115 - it is closed below
    except FileNotFoundError:
        return None  # `verify` names it
    with file:
        key = _key(bucket, log, day, objects, unknown)
        # Noted before it is sent, so that whatever becomes of this process the next job knows that it is ours.
        if not log._begin_upload(day.day, key, day.size, day.sha256, bucket.place):
            return None
        if not _send(bucket, file, day, key):
            log._supersede_object(key)
            return None
    if not holds(bucket, key, day.size, day.sha256):
        raise damaged(bucket, key, "it is not what was sent there; the file was kept")
    if not log._finish_upload(key):
        return None
    log._release_day(day.day)
    return bucket.name(key)


def _key(bucket: Bucket, log: Manifest, day: ArchivedDay, objects: list[DayObject], unknown: list[str]) -> str:
    for key in unknown:
        # A log that was restored with its days finds them again.
        if _is_ours(bucket, day, key):
            return key
    for known in objects:
        if known.state in {"current", "pending"} and (known.size, known.sha256) == (day.size, day.sha256):
            return known.key  # an interrupted job's, or that of a file that was put back
    for known in objects:
        if known.state == "pending":
            log._supersede_object(known.key)
    return key_of(day.day, day.format, next_generation(known.key for known in objects))


def _send(bucket: Bucket, file: IO[bytes], day: ArchivedDay, key: str) -> bool:
    """Store the file under `key` unless it is there; false if it is another file by now."""
    if bucket.head(key) is not None:
        return _found(bucket, day, key)
    if os.fstat(file.fileno()).st_size != day.size:
        return False
    if day.size > PART_BYTES:
        try:
            InFile(file, day.sha256, day.size).put(bucket, key)
        except ChangedError:
            return False
        return True
    data = file.read(day.size + 1)
    if blob_hash(data) != day.sha256:
        return False
    return bucket.create_unless_there(key, data) or _found(bucket, day, key)


def _found(bucket: Bucket, day: ArchivedDay, key: str) -> bool:
    if not _is_ours(bucket, day, key):
        raise unavailable(RuntimeError("the object was there a moment ago, and is missing"), bucket.name(key))
    return True


def _is_ours(bucket: Bucket, day: ArchivedDay, key: str) -> bool:
    """Whether the object holds the day; false if there is none, `OccupiedError` if it is another one."""
    if holds(bucket, key, day.size, day.sha256):
        return True
    if bucket.head(key) is None:
        return False
    place = bucket.name(key)
    raise error_at(
        OccupiedError,
        place,
        "an object with other content is there, and was left as it is; move it away, or give this log"
        f" another prefix. The file of {day.day} stays where it is",
    )


def remove_superseded(bucket: Bucket, log: Manifest) -> None:
    """Delete the objects that others have replaced, and those of expired days. The caller holds the lock."""
    for known in DayObject.all_of(log):
        if known.state == "superseded":
            # What has its name may be another one's: only what this log has sent is deleted.
            if holds(bucket, known.key, known.size, known.sha256):
                bucket.delete([known.key])
            log._forget_object(known.key)
