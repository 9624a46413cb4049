"""A server of each version that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.backends import Backend, available, opened
from support import servers
from support.servers import Server


@pytest.fixture(params=["15", "18"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server that all tests of the process share."""
    reason = available(f"postgresql-{request.param}")
    if reason is not None:
        pytest.skip(reason)
    return servers.shared(request.param)


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Iterator[Backend]:
    """A place for one log on that server."""
    yield from opened(f"postgresql-{server.version}", tmp_path)


@pytest.fixture(params=["15", "18"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, to be crashed."""
    reason = available(f"postgresql-{request.param}")
    if reason is not None:
        pytest.skip(reason)
    server = servers.create(request.param)
    yield server
    server.remove()
