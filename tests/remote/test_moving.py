"""`copy` to an object store and back: the same bytes, the same ids, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from nerve_store.moving import copy
from postgres.moved import check_that_it_works, claims, content, fill
from support import child_environment
from support.archive import NOW, at, day
from support.cli import Cli

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote.bucket import Bucket

LARGE = 5 << 20


@pytest.fixture(params=["memory", "file", "s3-versitygw"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    return made(request.param, tmp_path / "place")


@pytest.fixture
def other(place: Place, tmp_path: Path) -> Place:
    """Another place of the same kind."""
    (tmp_path / "other").mkdir()
    return made(place.name, tmp_path / "other")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with something of everything."""
    with ns.Store(tmp_path / "data") as store:
        fill(store.logs)
        for number in range(40):
            store.blobs.write(f"blob {number}")
        store.blobs.write(os.urandom(LARGE))
    return tmp_path / "data"


def opened(directory: Path, place: Place) -> ns.Store:
    return ns.Store(directory, remote=place.url, remote_options=place.options or None)


def target(place: Place) -> dict[str, Any]:
    return {"remote": place.url, "remote_options": place.options or None}


def source(place: Place) -> dict[str, Any]:
    return {"source_remote": place.url, "source_remote_options": place.options or None}


def keys(place: Place, folder: str = "logs") -> list[str]:
    bucket = Bucket(f"{place.url}/{folder}", place.options)
    return sorted(one.key for page in bucket.list() for one in page)


def objects(place: Place) -> dict[str, Any]:
    bucket = Bucket(f"{place.url}/logs", place.options)
    return {key: bucket.get(key, longest=1 << 30) for key in keys(place) if key[0] != "."}


def blobs(store: Any) -> dict[str, bytes | None]:
    return {hash: store.blobs.read(hash) for hash in store.blobs}


def without_files(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "files"}


def test_log_moves_to_a_place_to_another_and_home(data: Path, place: Place, other: Place, tmp_path: Path) -> None:
    with ns.Store(data) as store:
        held, lost = claims(store.logs)
        before, stored = content(store.logs), blobs(store)
    there = copy(str(data), str(tmp_path / "there"), finish=True, **target(place))
    assert (there.copied_blobs, there.blob_count) == (41, 41)
    assert (there.row_count, there.run_count) == (len(before["live"]), len(before["runs"]))
    assert objects(place) == before["files"]
    with opened(tmp_path / "there", place) as store:
        assert without_files(content(store.logs)) == without_files(before)
        assert blobs(store) == stored
        assert store.logs.verify().ok
        assert not os.path.exists(store.archive_dir) or ".copying" not in os.listdir(store.archive_dir)
    assert ".copying" not in keys(place)
    further = copy(
        str(tmp_path / "there"), str(tmp_path / "further"), finish=True, **source(place), **target(other)
    )  # fmt: skip
    assert further.copied_blobs == 41
    assert objects(other) == objects(place)
    home = copy(str(tmp_path / "further"), str(tmp_path / "home"), finish=True, **source(other))
    assert home.copied_blobs == 41
    with ns.Store(tmp_path / "home") as store:
        assert content(store.logs) == before
        assert blobs(store) == stored
        assert store.logs.verify().ok
        check_that_it_works(store.logs, held, lost)
    with opened(tmp_path / "there", place) as store:
        check_that_it_works(store.logs, held, lost)
        # What the days gain makes other objects, as it would have without a copy.
        store.logs.append("system", "late", None, "x", at(1))
        store.logs.archive_logs(now=NOW)
        (key,) = [key for key in keys(place) if key.startswith(str(day(1)))]
        assert key not in objects(other)
        assert store.logs.verify().ok


def test_source_is_written_to_meanwhile(data: Path, place: Place, tmp_path: Path) -> None:
    """Rows and blobs come, days leave for the archive and gain rows, while the copy is under way."""
    ending = threading.Event()
    with ns.Store(data, durability="normal") as store:

        def write() -> None:
            number = 0
            while not ending.is_set():
                store.logs.append_many([("system", "more", None, str(number), at(number % 12, 1))] * 50)
                store.logs.archive_logs(now=at(1 + number % 13), retention=timedelta(0), max_days=2)
                store.blobs.write(str(number))
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                assert not copy(str(data), str(tmp_path / "there"), **target(place)).is_finished
        finally:
            ending.set()
            writer.join()
        # It is no log yet, and no other one takes the prefix.
        assert not (tmp_path / "there" / "logs.db").exists()
        finished = copy(str(data), str(tmp_path / "there"), finish=True, **target(place))
        assert finished.blob_count == len(list(store.blobs))
        with opened(tmp_path / "there", place) as moved:
            assert without_files(content(moved.logs)) == without_files(content(store.logs))
            assert blobs(moved) == blobs(store)
            assert moved.logs.verify().ok
    per_day = [key.split(".")[0] for key in keys(place) if key[0] != "."]
    assert len(set(per_day)) == len(per_day)


def test_days_of_the_source_that_change_between_two_steps(data: Path, place: Place, tmp_path: Path) -> None:
    """One gains rows, one is expired, one is compressed: the objects follow."""
    first = copy(str(data), str(tmp_path / "there"), **target(place))
    assert first.copied_days > 3
    with ns.Store(data) as store:
        store.logs.append("system", "late", None, "x", at(6))
        store.logs.archive_logs(now=at(10), retention=timedelta(0), compression="zstd")
        expired = store.logs.expire_archive(before=day(1))
        before = content(store.logs)
    assert expired
    second = copy(str(data), str(tmp_path / "there"), finish=True, **target(place))
    assert 1 < second.copied_days < first.copied_days
    with opened(tmp_path / "there", place) as store:
        assert without_files(content(store.logs)) == without_files(before)
        assert store.logs.verify().ok
    assert sorted(objects(place).values()) == sorted(before["files"].values())


@pytest.mark.parametrize("first", ["another prefix", "files"])
def test_another_place_for_the_rest_gets_all_of_it(data: Path, directory: Place, tmp_path: Path, first: str) -> None:
    """What an earlier call has sent elsewhere is not taken for what is there."""
    here, there = f"{directory.url}/here", str(tmp_path / "there")
    middle = str(tmp_path / "middle")
    copy(str(data), middle, remote=f"{directory.url}/middle", finish=True)
    before = copy(
        middle,
        there,
        source_remote=f"{directory.url}/middle",
        remote=f"{directory.url}/first" if first == "another prefix" else None,
    )
    after = copy(middle, there, source_remote=f"{directory.url}/middle", remote=here, finish=True)
    assert before.copied_days == after.copied_days == after.day_count > 3
    with ns.LogStore(data / "logs.db") as log, ns.Store(there, remote=here) as store:
        assert without_files(content(store.logs)) == without_files(content(log))
        assert store.logs.verify().ok
        assert len(list(store.blobs)) == 41


KILLED = """
import sys
from nerve_store.moving import blobs, copy, directory, objects, work
from nerve_store.remote.bucket import Bucket
from support.killing import killing
point, number, source, target, remote, source_remote = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
where, name, when = point.split(".")
owner = {"target": directory.DirectoryTarget, "objects": objects.Objects, "bucket": Bucket, "work": work}[where]
setattr(owner, name, killing(getattr(owner, name), when, number))
copy(source, target, remote=remote or None, source_remote=source_remote or None, finish=True)
"""
POINTS = [
    ("objects.claim.before", 1),
    ("objects.claim.after", 1),
    ("bucket.create.after", 2),
    ("objects.put.after", 2),
    ("target.note_day.after", 3),
    ("work.bring_blobs.before", 1),
    ("work.bring_blobs.after", 1),
    ("target.replace_state.after", 1),
    ("target._note_objects.after", 1),
    ("objects.sign.after", 1),
    ("target.index.after", 1),
    ("target.publish.before", 1),
    ("objects.release.after", 1),
]


def test_killed_copy_goes_on_and_is_never_taken_for_whole(data: Path, directory: Place, tmp_path: Path) -> None:
    """Killed at one point after the other, each time where the one before had left it; days change meanwhile."""
    there = tmp_path / "there"
    expected: dict[str, Any] = {}
    for number, (point, count) in enumerate(POINTS):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, point, str(count), str(data), str(there), directory.url, ""],
            env=child_environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, (point, done.stderr)
        if point == "objects.release.after":
            break
        assert not (there / "logs.db").exists(), point
        with ns.LogStore(data / "logs.db") as log:
            log.append("system", "late", None, point, at(number % 8))
            log.archive_logs(now=at(9), retention=timedelta(0), compression="zstd" if number % 2 else None)
            expected = content(log)
    with opened(there, directory) as store:
        assert without_files(content(store.logs)) == without_files(expected)
        assert len(list(store.blobs)) == 41
        assert store.logs.verify().ok
    assert sorted(objects(directory).values()) == sorted(expected["files"].values())
    assert copy(str(data), str(there), finish=True, **target(directory)).is_finished


def test_places_that_hold_something_are_refused(data: Path, directory: Place, tmp_path: Path) -> None:
    there = str(tmp_path / "there")
    with pytest.raises(ns.NerveStoreError, match="the source's"):
        copy(str(data), there, remote=directory.url, source_remote=f"{directory.url}/")
    with ns.Store(tmp_path / "another", remote=directory.url) as store:
        store.logs.append("system", "tick", None, None, at(0))
        store.logs.archive_logs(now=NOW)
        theirs = objects(directory)
    with pytest.raises(ns.NerveStoreError, match="days of another log"):
        copy(str(data), there, **target(directory))
    assert objects(directory) == theirs
    prefix = f"{directory.url}/prefix"
    copy(str(data), there, remote=prefix)
    with pytest.raises(ns.NerveStoreError, match=f"the copy to {there}"):
        copy(str(tmp_path / "another"), str(tmp_path / "second"), remote=prefix, **source(directory))
    with pytest.raises(ns.StoreUnavailableError, match="--source-remote"):
        copy(str(tmp_path / "another"), str(tmp_path / "third"), remote=f"{directory.url}/third")
    with pytest.raises(ValueError, match="no place"):
        copy(str(data), there, remote="nowhere")
    assert copy(str(data), there, remote=prefix, finish=True).is_finished


def test_damaged_content_is_not_copied(data: Path, directory: Place, tmp_path: Path) -> None:
    there = tmp_path / "there"
    copy(str(data), str(there), finish=True, **target(directory))
    key = next(key for key in keys(directory) if key[0] != ".")
    path = directory.path / "logs" / key
    whole = path.read_bytes()
    path.write_bytes(whole[:-10] + bytes(10))
    with pytest.raises(ns.ArchiveCorruptError, match=key):
        copy(str(there), str(tmp_path / "home"), **source(directory))
    path.write_bytes(whole)
    hash = next(hash for hash in keys(directory, "blobs") if hash[0] != ".")
    blob = directory.path / "blobs" / hash
    stored = blob.read_bytes()
    blob.write_bytes(b"x" * len(stored))
    with pytest.raises(ns.BlobCorruptError):
        copy(str(there), str(tmp_path / "home"), **source(directory))
    blob.write_bytes(stored)
    assert copy(str(there), str(tmp_path / "home"), finish=True, **source(directory)).is_finished


def test_command_line(data: Path, directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(tmp_path / "unused", capsys)
    words = ["copy", str(data), str(tmp_path / "there"), "--remote", directory.url]
    told = cli(*words).out
    assert "and 41 blobs of 41" in told
    assert "the same command once more, with --finish" in told
    finished = cli(*words, "--finish", "--json").json
    assert (finished["is_finished"], finished["copied_blobs"], finished["blob_count"]) == (True, 0, 41)
    home = ["copy", str(tmp_path / "there"), str(tmp_path / "home"), "--source-remote", directory.url, "--finish"]
    out = cli(*home).out
    assert "finished" in out
    assert "blobs are not copied" not in out
    with ns.Store(tmp_path / "home") as store:
        assert len(list(store.blobs)) == 41
    assert "there is none" in cli.misused("copy", "a", "b", "--source-remote-option", "a=b")
    assert "takes no --max-cache-bytes" in cli.misused("copy", "a", "b", "--max-cache-bytes", "1")
    assert "no place in an object store" in cli.misused("copy", "a", "b", "--source-remote", "b")
    assert "SOURCE 's3://a' is a URL" in cli.misused("copy", "s3://a", "b")
    assert "named by --remote" in cli.misused("copy", "postgresql://a/b", "s3://b")


def test_variable_is_not_taken_for_one_of_the_two_places(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERVE_STORE_REMOTE", "memory://somewhere")
    told = Cli(tmp_path / "unused", capsys).refused("copy", str(data), str(tmp_path / "there"))
    assert "backup copies one into the other" in told
