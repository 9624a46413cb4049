"""Whose days lie under a prefix: those of one database, which knows all of them."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date

from nerve_store._core import LogStore
from nerve_store.exceptions import ArchiveError, StoreUnavailableError
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days.names import MARK, DayObject, parsed

_LONGEST = 64 << 10
_TRIES = 3
"""A listing that breaks off is begun anew."""


def owner(bucket: Bucket) -> str | None:
    """The identity of the database whose days these are; None if none has come yet."""
    content = bucket.get(MARK, longest=_LONGEST)
    if content is None:
        return None
    try:
        return str(json.loads(content)["id"]) if isinstance(content, bytes) else ""
    except (ValueError, TypeError, KeyError):
        return ""


def claim(bucket: Bucket, log: LogStore) -> None:
    """Make the prefix this log's; `ArchiveError` if it is another one's."""
    found = owner(bucket)
    if found is None:
        bucket.create(MARK, json.dumps({"id": log._identity, "database": log.path}).encode() + b"\n")
        found = owner(bucket)
    _compare(bucket, log, found)


def check(bucket: Bucket, log: LogStore) -> None:
    """`ArchiveError` if the days are another log's, or if some are there that the log does not know."""
    found = owner(bucket)
    if found is None:
        return
    _compare(bucket, log, found)
    unknown = unknown_keys(bucket, log)
    if not unknown:
        return
    listed = {day.day for day in log.archived_days()}
    for day in sorted(unknown.keys() - listed):
        for key in unknown[day]:
            # One that is listed may have been expired, and deleted, since.
            if bucket.head(key) is not None:
                raise _refusal(
                    bucket.name(key),
                    "the database does not know this day: it is older than the object store, or was made anew. Copy"
                    " what is there, the mark as well, to the directory of the day files (one object a day, without the"
                    " number in its name), and open the store again",
                )


def unknown_keys(bucket: Bucket, log: LogStore) -> dict[date, list[str]]:
    """The objects of days that the log has not sent, by day."""
    keys = list(listed(bucket))
    known = {found.key for found in DayObject.all_of(log)}
    unknown: dict[date, list[str]] = {}
    for key in keys:
        name = parsed(key)
        if name is not None and key not in known:
            unknown.setdefault(name[0], []).append(key)
    return unknown


def listed(bucket: Bucket) -> dict[str, int]:
    """The sizes of all objects."""
    for _ in range(_TRIES - 1):
        with suppress(StoreUnavailableError):
            return {found.key: found.size for page in bucket.list() for found in page}
    return {found.key: found.size for page in bucket.list() for found in page}


def _compare(bucket: Bucket, log: LogStore, found: str | None) -> None:
    if log._identity is not None and found != log._identity:
        raise _refusal(
            bucket.name(MARK),
            "the days there are those of another database; give this one another prefix. If it is the same database,"
            " remove this object",
        )


def _refusal(place: str, reason: str) -> ArchiveError:
    error = ArchiveError(f"{place}: {reason}")
    error.path = place
    return error
