"""Whose days lie under a prefix: those of one database."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable
from contextlib import suppress

from nerve_store._places import ARCHIVE_MARK, error_at
from nerve_store.exceptions import ArchiveError, StoreUnavailableError
from nerve_store.records import VerifyProblem
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days.names import DayObject, Manifest

_LONGEST = 64 << 10
_TRIES = 3
"""A listing that breaks off is begun anew."""


def owner(bucket: Bucket) -> str | None:
    """The identity of the database whose days these are; None if none has come yet."""
    content = bucket.get(ARCHIVE_MARK, longest=_LONGEST)
    if content is None:
        return None
    try:
        return str(json.loads(content)["id"]) if isinstance(content, bytes) else ""
    except (ValueError, TypeError, KeyError):
        return ""


def claim(bucket: Bucket, log: Manifest) -> None:
    """Make the prefix this log's; `ArchiveError` if it is another one's."""
    found = owner(bucket)
    if found is None:
        bucket.create_unless_there(
            ARCHIVE_MARK, json.dumps({"id": log._identity, "database": log.path}).encode() + b"\n"
        )
        found = owner(bucket)
    compare(bucket, log._identity, found)


def listed(bucket: Bucket) -> dict[str, int]:
    """The sizes of all objects."""
    for _ in range(_TRIES - 1):
        with suppress(StoreUnavailableError):
            return {found.key: found.size for page in bucket.list() for found in page}
    return {found.key: found.size for page in bucket.list() for found in page}


def missing_objects(
    bucket: Bucket, objects: Callable[[], Iterable[DayObject]], told: Container[str] = ()
) -> list[VerifyProblem]:
    """The current objects that are missing or have another size, although a copy in the cache may be read.

    `objects` says what the database knows. It is asked again about what is missing: the day may have been expired, or
    have become another object, since. The places in `told` are left out.
    """
    first = [known for known in objects() if known.state == "current"]
    sizes = listed(bucket)
    missing = {one for one in first if sizes.get(one.key) != one.size and bucket.name(one.key) not in told}
    problems: list[VerifyProblem] = []
    for known in objects() if missing else ():
        if known in missing:
            size = sizes.get(known.key)
            found = "it is missing" if size is None else f"it has {size} bytes and should have {known.size}"
            reason = f"{found}; a copy is here, in the cache or as a file: put it back"
            problems.append(VerifyProblem(bucket.name(known.key), reason, known.day))
    return problems


def compare(bucket: Bucket, identity: str | None, found: str | None) -> None:
    """`ArchiveError` if the owner that was found is another log."""
    if identity is not None and found != identity:
        raise error_at(
            ArchiveError,
            bucket.name(ARCHIVE_MARK),
            "the days there are those of another database; give this one another prefix, or restore the database that"
            " has them. Leave this object where it is. One that was made anew gets the days from copies of them:"
            " docs/beyond-one-machine.md",
        )
