"""The temporary cache of days: it goes with the log, and that of a killed process with the next log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from support import as_rows, child_environment
from support.archive import NOW, fill

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

from nerve_store.remote.bucket import Bucket

KILLED = """
import json, os, signal, sys
import nerve_store as ns
url, schema, archive = json.loads(sys.argv[1])
log = ns.PostgresLogStore(url, schema=schema, archive=archive)
assert log.query(archived=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def age(path: Path) -> None:
    os.utime(path, (0, 0))


def test_directory_of_a_killed_process_goes_with_the_next_log(
    place: Backend, opened: Any, files: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with opened(files) as log:
        rows = fill(log, days=2)
        log.archive_logs(now=NOW)
    assert list(scratch.iterdir()) == []
    environment = {**child_environment(), "TMPDIR": str(scratch)}
    task = json.dumps([place.url, place.schema, files.url])
    killed = subprocess.run([sys.executable, "-c", KILLED, task], env=environment, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = scratch.iterdir()
    assert list(left.iterdir()) != []
    others = [scratch / "nerve-store-cache", scratch / "another"]
    for other in others:
        other.mkdir()
        age(other)
    link = scratch / "nerve-store-cache-link"
    link.symlink_to(others[1])
    log = opened(files)
    # It may have been made a moment ago, and be locked in a moment.
    assert left.exists()
    age(left)
    (used,) = set(scratch.iterdir()) - {left, link, *others}
    age(used)
    with opened(files) as second:
        assert not left.exists()
        assert as_rows(second.query(archived=True)) == rows
    assert as_rows(log.query(archived=True)) == rows
    assert set(scratch.iterdir()) == {used, link, *others}
    log.close()
    assert set(scratch.iterdir()) == {link, *others}


@pytest.mark.parametrize("name", ["head", "get_parts"])
def test_log_that_is_closed_while_a_day_is_fetched_says_so(
    opened: Any, files: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with opened(files) as log:
        fill(log, days=2)
        log.archive_logs(now=NOW)
    log = opened(files)
    original = getattr(Bucket, name)

    def closing(self: Bucket, *arguments: Any) -> Any:
        thread = threading.Thread(target=log.close)
        thread.start()
        thread.join()
        return original(self, *arguments)

    monkeypatch.setattr(Bucket, name, closing)
    with pytest.raises(ns.StoreClosedError):
        log.query(archived=True)
    with pytest.raises(ns.StoreClosedError):
        log.query(archived=True)
    assert list(scratch.iterdir()) == []
