"""What the tests of days in an object store share."""

from __future__ import annotations

from typing import Any

from contract.blob_places import Place
from support import as_row, as_rows
from support.archive import at


def bucket(archive: Place) -> Any:
    """The objects of the days."""
    from nerve_store.remote.bucket import Bucket

    return Bucket(f"{archive.url}/logs", archive.options)


def keys(archive: Place) -> list[str]:
    """The names of the objects of days."""
    return sorted(found.key for page in bucket(archive).list() for found in page if not found.key.startswith("."))


def late(log: Any, number: int) -> Any:
    return as_row(log.append("system", "late", None, None, at(number)))


def assert_whole(log: Any, archive: Place, rows: list[Any]) -> None:
    """Every row is there once, all of them have left the database, and no object is left over."""
    assert as_rows(log.query(archived=True)) == sorted(rows)
    assert log.query() == []
    assert log.verify().ok
    assert [item.path for item in log.archived_days()] == [f"{archive.url}/logs/{key}" for key in keys(archive)]
