"""Each test of the contract, on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.backends import BACKENDS, IN_OBJECTS, Backend, available, opened
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
