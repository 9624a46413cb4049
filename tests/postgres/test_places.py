"""Directories and prefixes of a log on PostgreSQL whose days lie in an object store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from remote.test_cache import put_foreign_things
from support import as_rows
from support.archive import NOW, fill

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

DAYS = 4


def test_what_the_cache_has_not_made_is_neither_removed_nor_counted(opened: Any, memory: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    theirs = put_foreign_things(shared)
    log = opened(memory, cache=shared, max_cache_bytes=1 << 16)
    rows = fill(log, days=DAYS)
    log.archive_logs(now=NOW)
    for _ in range(2):
        assert as_rows(log.query(archived=True)) == rows
    assert set(os.listdir(shared)) == theirs | {item.sha256 for item in log.archived_days()}


@pytest.mark.parametrize("kind", [ns.PostgresLogStore, ns.AsyncPostgresLogStore])
@pytest.mark.parametrize("below", ["", "logs", "blobs"])
def test_cache_that_is_not_apart_is_refused(place: Backend, files: Place, kind: Any, below: str) -> None:
    with pytest.raises(ValueError, match=r"^cache must be a directory of its own"):
        kind(place.url, schema=place.schema, archive=files.url, cache=files.path / below)
    assert not files.path.exists()
