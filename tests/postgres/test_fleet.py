"""`examples/fleet.py` does what it says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from nerve_store.postgres import PostgresLogStore
from support import TESTS, child_environment
from support.servers import Server

EXAMPLE = TESTS.parent / "examples" / "fleet.py"


@pytest.fixture(params=["directory", "s3-versitygw"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A directory that the log makes, or a bucket."""
    place = made(request.param, tmp_path)
    place.url = place.url or str(tmp_path / "days")
    return place


def has_duckdb(archive: Place) -> bool:
    return all(map(importlib.util.find_spec, ["duckdb", "fsspec"] if archive.options else ["duckdb"]))


def test_the_example_of_a_fleet_runs(own_server: Server, archive: Place) -> None:
    options = {f"AWS_{name.upper()}": str(value).lower() for name, value in archive.options.items()}
    if options:
        options["AWS_ENDPOINT_URL"] = options.pop("AWS_ENDPOINT")  # what it is called elsewhere
    for turn in range(2):
        done = subprocess.run(
            [sys.executable, EXAMPLE, own_server.url, archive.url],
            env={**child_environment(), **options}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "12 runs completed" in done.stdout, done.stdout + done.stderr
        assert "was taken over from a process that had died" in done.stdout
        assert has_duckdb(archive) == (f"DuckDB reads {archive.url}/" in done.stdout), done.stdout
        # The one that was killed did some of the 48 steps, and the others the rest of them.
        steps = [int(line.split()[-2]) for line in done.stdout.splitlines() if line.endswith(" steps")]
        assert sum(steps) == 48, done.stdout
        with PostgresLogStore(
            own_server.url, schema="fleet", archive=archive.url, archive_options=archive.options or None
        ) as log:
            days = log.archived_days()
            assert days
            assert all(day.path.startswith(archive.url) for day in days)
            assert log.verify().ok
            assert log.count_workflow_runs()[ns.WorkflowRunStatus.COMPLETED] == 12 * (turn + 1)
