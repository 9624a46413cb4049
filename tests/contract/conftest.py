"""Each test of the contract, on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.backends import BACKENDS, Backend, opened
from nerve_store.protocols import Log


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A place for a log."""
    yield from opened(request.param, tmp_path)


@pytest.fixture
def log(backend: Backend) -> Log:
    """An open log."""
    return backend.open()
