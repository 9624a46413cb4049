"""A server of each version that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend, available
from contract.backends import opened as opened_backend
from contract.blob_places import Place, made
from support import servers
from support.servers import Server

VERSIONS = [pytest.param(version, marks=pytest.mark.server) for version in ("15", "18")]


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Server:
    """A server that all tests of the process share."""
    reason = available(f"postgresql-{request.param}")
    if reason is not None:
        pytest.skip(reason)
    return servers.shared(request.param)


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Iterator[Backend]:
    """A place for one log on that server."""
    yield from opened_backend(f"postgresql-{server.version}", tmp_path)


@pytest.fixture(params=VERSIONS)
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, to be crashed."""
    reason = available(f"postgresql-{request.param}")
    if reason is not None:
        pytest.skip(reason)
    server = servers.create(request.param)
    yield server
    server.remove()


@pytest.fixture
def files(tmp_path: Path) -> Place:
    """Objects that other processes see."""
    return made("file", tmp_path)


@pytest.fixture
def memory(tmp_path: Path) -> Place:
    """Objects of this process."""
    return made("memory", tmp_path)


@pytest.fixture
def opened(place: Backend) -> Callable[..., Any]:
    """Opens the log; it is closed at the end of the test."""

    def open_log(archive: Place, **options: Any) -> Any:
        options = {"archive_options": archive.options or None, **options}
        return place.stack.enter_context(
            ns.PostgresLogStore(place.url, schema=place.schema, archive=archive.url, **options)
        )

    return open_log
