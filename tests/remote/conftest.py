"""Places for blobs whose server can be looked into."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.blob_places import Place, made


@pytest.fixture
def memory(tmp_path: Path) -> Place:
    """Objects of this process."""
    return made("memory", tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> Place:
    """Objects that are files, whose age can be set."""
    return made("file", tmp_path)


@pytest.fixture(params=["s3-versitygw", "s3-moto"])
def s3(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A bucket of a server."""
    return made(request.param, tmp_path)
