"""Objects that a log's database does not know: whether it is older than its days, or looks at the wrong place."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Container
from datetime import date
from pathlib import Path

from nerve_store._core import LogStore
from nerve_store._places import ARCHIVE_MARK, error_at
from nerve_store.exceptions import ArchiveCorruptError, ArchiveError, StoreUnavailableError
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days.content import copied, holds
from nerve_store.remote.days.mark import compare, listed, owner
from nerve_store.remote.days.names import DayObject, Manifest, newer_keys, parsed

_OLDER = (
    "the database does not know this day, or not all of its rows: it is older than the object store, or was made anew. "
    f"Copy what is there, {ARCHIVE_MARK} as well, to the directory of the day files (of each day the object with the "
    "greatest number, without the number in its name), and open the store again. If the object is not this log's, move "
    "it away"
)


def check(bucket: Bucket, log: LogStore) -> None:
    """Refuse days of another log, a log that is older than its days, and a place that is not that of its days."""
    found = owner(bucket)
    if found is not None:
        compare(bucket, log._identity, found)
    keys = listed(bucket)
    newer = newer_keys(keys, DayObject.all_of(log))
    if found is None:
        _refuse_another_place(bucket, log, keys)
    if not newer:
        return
    files = {day.day: day.path for day in log.archived_days() if "://" not in day.path}
    for day, key in sorted(newer.items()):
        # It may have been replaced, or expired, since.
        is_left = newer_keys([key], DayObject.all_of(log)) and bucket.head(key) is not None
        if is_left and not _has_rows(bucket, key, log, day, files.get(day)):
            raise error_at(ArchiveError, bucket.name(key), _OLDER)


def check_place(bucket: Bucket, log: LogStore) -> None:
    """`StoreUnavailableError` if the place has no mark, and days of the log lie at another one."""
    if owner(bucket) is None:
        _refuse_another_place(bucket, log, listed(bucket))


def _refuse_another_place(bucket: Bucket, log: LogStore, keys: Container[str]) -> None:
    if all(known.key in keys for known in DayObject.all_of(log) if known.state == "current"):
        return
    for day in log.archived_days():
        place, _, key = day.path.rpartition("/")
        if "://" in day.path and place != bucket.place and key not in keys:
            remote = place.removesuffix("/logs")
            raise error_at(
                StoreUnavailableError,
                day.path,
                f"the day {day.day} lies there, and not in {bucket.place}: open the store with remote={remote!r}",
            )


def unknown_keys(bucket: Bucket, log: Manifest) -> dict[date, list[str]]:
    """The objects of days that the log has not sent, by day."""
    keys = list(listed(bucket))
    # Asked for after the listing: what a job sends meanwhile was noted before.
    known = {found.key for found in DayObject.all_of(log)}
    unknown: dict[date, list[str]] = {}
    for key in keys:
        name = parsed(key)
        if name is not None and key not in known:
            unknown.setdefault(name[0], []).append(key)
    return unknown


def _has_rows(bucket: Bucket, key: str, log: LogStore, day: date, path: str | None) -> bool:
    """Whether the day's file at `path` has all rows of an object, as after it was copied there."""
    if path is None:
        return False
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if holds(bucket, key, os.fstat(file.fileno()).st_size, sha256):
                return True
        return _is_part(bucket, key, log, day)
    except (FileNotFoundError, ArchiveCorruptError):
        return False


def _is_part(bucket: Bucket, key: str, log: LogStore, day: date) -> bool:
    with tempfile.TemporaryDirectory(prefix="nerve-store-") as directory:
        place = Path(directory)
        with open(place / f"{day}.{key[key.index('jsonl') :]}", "wb") as file:
            copied(bucket, key, file)
        with LogStore(place / "database" / "logs.db", archive_dir=place) as other:
            # Both are in the order of their ids.
            here = iter(log.read_archive(day))
            return all(row in here for row in other.read_archive(day))
