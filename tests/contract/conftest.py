"""Each test of the contract, on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.backends import BACKENDS, IN_OBJECTS, Backend, available, opened
from contract.blob_places import PLACES, Place, made
from nerve_store.protocols import Log


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of arguments, which no server sees, run on SQLite and on one server; all others on every backend.

    Those of the archive run on every place for days as well.
    """
    if "backend" in metafunc.fixturenames:
        names: tuple[str, ...] = BACKENDS
        if getattr(metafunc.module, "IS_ABOUT_ARGUMENTS", False):
            names = ("sqlite", next((name for name in BACKENDS[2:0:-1] if available(name) is None), BACKENDS[2]))
        if getattr(metafunc.module, "IS_ABOUT_ARCHIVES", False):
            names += IN_OBJECTS
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A place for a log."""
    yield from opened(request.param, tmp_path)


@pytest.fixture
def log(backend: Backend) -> Log:
    """An open log."""
    return backend.open()


@pytest.fixture(params=[name for name in PLACES if name != "directory"])
def object_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place in an object store."""
    (tmp_path / "place").mkdir()
    return made(request.param, tmp_path / "place")


@pytest.fixture(params=["15", "18"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A schema of a server for a log."""
    yield from opened(f"postgresql-{request.param}", tmp_path / "one")


@pytest.fixture
def other(server: Backend, tmp_path: Path) -> Iterator[Backend]:
    """Another one on the same server."""
    yield from opened(server.name, tmp_path / "other")
