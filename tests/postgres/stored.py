"""What the tests of days share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import nerve_store as ns
from contract.blob_places import Place
from support import as_row, as_rows
from support.archive import at

PATIENCE = 60.0
"""Seconds until the server has seen that a session ended."""


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


def once_it_may(call: Callable[[], Any]) -> Any:
    """What the call gives as soon as the killed job's session has ended."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except ns.ArchiveBusyError:
            assert time.monotonic() < end
            time.sleep(0.02)
