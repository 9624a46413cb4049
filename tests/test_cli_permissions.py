"""The command line as another user than the daemon's, and on files that were given away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.cli import doctor_permissions
from support.cli import Cli, fill
from support.processes import run_child

NOBODY = 65_534
COMMANDS = [
    "runs",
    "logs",
    "verify",
    "meta ls",
    "stats",
    "archive --dry-run",
    "archive",
    "archive list",
    "archive verify",
    "sql SELECT",
    "export {beside}/rows.jsonl",
    "backup {beside}/backup",
    "reindex",
    "doctor",
]
PLACES = {"parent": "", "directory": "data", "database": "data/logs.db"}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="giving files away, and dropping capabilities, is root's"
)


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory of this user below another directory."""
    parent = Path(tempfile.mkdtemp(prefix="nerve-permissions-"))
    parent.chmod(0o755)
    path = parent / "outer" / "data"
    fill(path)
    with ns.LogStore(path / "logs.db") as store:
        store.archive_logs()
    yield path
    shutil.rmtree(parent)


@pytest.fixture
def of_nobody(data: Path) -> Path:
    """The same, of another user, who lets everybody read."""
    outer = data.parent
    subprocess.run(["chown", "-R", str(NOBODY), outer], check=True)
    subprocess.run(["chmod", "-R", "a+rX,go-w", outer], check=True)
    return data


def without_privileges(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_child("command", words=["--data", str(data), *words])


def findings(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    assert all(finding["level"] == "ok" or finding["action"] for finding in found), found
    return found


@pytest.mark.parametrize("place", PLACES)
def test_what_may_not_be_looked_at_is_no_missing_database(of_nobody: Path, place: str) -> None:
    closed = of_nobody.parent / PLACES[place]
    closed.chmod(0o600 if closed.is_file() else 0o700)
    beside = of_nobody.parent.parent / "beside"
    beside.mkdir()
    for command in COMMANDS:
        words = [word.format(beside=beside) for word in command.split()]
        done = without_privileges(of_nobody, *words)
        assert done.returncode == 1, command
        said = f"{done.stdout}{done.stderr}"
        if command != "doctor" or place == "parent":
            assert done.stderr.startswith("nerve-store: error: "), command
            assert len(done.stderr.splitlines()) == 1, command
        assert "there is no" not in said, (command, said)
        assert any(word in said for word in ("may not", "ermission denied", "must be readable")), (command, said)
    assert list(beside.iterdir()) == []


@pytest.mark.parametrize("place", ["directory", "database"])
def test_doctor_reports_what_it_may_not_read(of_nobody: Path, place: str) -> None:
    closed = of_nobody.parent / PLACES[place]
    closed.chmod(0o600 if closed.is_file() else 0o700)
    done = without_privileges(of_nobody, "doctor", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    errors = [finding for finding in findings(done) if finding["level"] == "error"]
    assert {error["check"] for error in errors} == {"permissions", "database"}
    assert all("run the command as the user that the daemon runs as" in error["action"] for error in errors)


@pytest.mark.parametrize("what", ["archive/logs", "archive/logs/2*", "blobs", "blobs/??", "blobs/??/*"])
def test_doctor_names_any_file_that_may_not_be_read(of_nobody: Path, what: str) -> None:
    closed = next(of_nobody.glob(what))
    closed.chmod(0o600 if closed.is_file() else 0o700)
    done = without_privileges(of_nobody, "doctor", "--json")
    assert done.returncode == 1
    messages = [finding["message"] for finding in findings(done) if finding["check"] == "permissions"]
    assert f"this user may not read {closed}" in messages


@pytest.mark.parametrize("what", ["archive/logs", "archive/logs/2*", "blobs", "blobs/??", "blobs/??/*"])
def test_doctor_names_any_file_of_another_user(data: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    cli = Cli(data, capsys)
    assert [item["level"] for item in cli("doctor", "--json").json["findings"] if item["check"] == "permissions"] == [
        "ok"
    ]
    given = next(data.glob(what))
    os.chown(given, NOBODY, -1)
    (found,) = [item for item in cli("doctor", "--json").json["findings"] if item["check"] in ("owner", "permissions")]
    assert found["message"] == f"of another user than this one: {given}"
    assert found["action"] == f"as root: chown -R 0 {data}"


def test_files_that_a_backup_shares_are_not_to_be_given_away(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup = data.parent / "backup"
    Cli(data, capsys)("backup", str(backup))
    linked = [path for path in backup.glob("blobs/??/*") if path.stat().st_nlink > 1]
    if not linked:
        pytest.skip("this file system shares blocks, or nothing")
    subprocess.run(["chown", "-R", str(NOBODY), backup], check=True)
    (owner,) = [item for item in Cli(backup, capsys)("doctor", "--json").json["findings"] if item["check"] == "owner"]
    assert "hard links" in owner["action"]
    assert "cp -R" in owner["action"]


def test_doctor_looks_at_so_many_files_only(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_permissions, "_MOST_FILES", 3)
    (told,) = [
        item for item in Cli(data, capsys)("doctor", "--json").json["findings"] if item["check"] == "permissions"
    ]
    assert told["message"] == "the files are this user's alone; looked at 3 of them"
