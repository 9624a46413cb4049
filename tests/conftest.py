"""Fixtures and hypothesis profiles of the whole suite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import nerve_store as ns

# Every example that touches a store syncs its disk, so that a deadline would measure the machine.
settings.register_profile(
    "fast",
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("long", settings.get_profile("fast"), max_examples=1000, stateful_step_count=60)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a store's directory will be; it is not there yet."""
    return tmp_path / "data"


@pytest.fixture
def store(data_dir: Path) -> Iterator[ns.Store]:
    with ns.Store(data_dir) as opened:
        yield opened


@pytest.fixture
def log_store(data_dir: Path) -> Iterator[ns.LogStore]:
    with ns.LogStore(data_dir / "logs.db") as opened:
        yield opened


@pytest.fixture
def upstream_data(tmp_path: Path) -> Path:
    """A writable copy of the predecessor's data directory."""
    return Path(shutil.copytree(Path(__file__).parent / "fixtures" / "upstream-0.5.0" / "data", tmp_path / "upstream"))


@pytest.fixture
def upstream_archived(tmp_path: Path) -> Path:
    """A writable copy of the predecessor's data directory after its own archive runs."""
    source = Path(__file__).parent / "fixtures" / "upstream-0.5.0" / "archived"
    return Path(shutil.copytree(source, tmp_path / "upstream-archived"))
