"""What the tests of a server's days in object stores share."""

from __future__ import annotations

from typing import Any

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from contract.test_remote_days import READS


def options(place: Place, **more: Any) -> dict[str, Any]:
    return {"archive": place.url, "archive_options": place.options or None, **more}


def log_of(server: Backend, place: Place, **more: Any) -> Any:
    """The log; it is closed at the end of the test."""
    log = ns.PostgresLogStore(server.url, schema=server.schema, **options(place, **more))
    return server.stack.enter_context(log)


def store_of(server: Backend, place: Place, **more: Any) -> Any:
    """The log and the blobs."""
    return ns.Store(
        server.url, schema=server.schema, remote=place.url, remote_options=place.options or None, **more
    )  # fmt: skip


def compare(one: Any, two: Any) -> None:
    for name, read in READS.items():
        assert read(one) == read(two), name


def rows_of(log: Any) -> list[Any]:
    return [(row.source, row.type, row.ref_id, row.payload, row.timestamp) for row in log.query()]


def content(place: Place, key: str) -> Any:
    return days(place).get(key, longest=1 << 20)


def days(place: Place) -> Any:
    return Place(place.name, place.path, f"{place.url}/logs", place.options).bucket()
