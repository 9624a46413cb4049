"""`copy`: a log from a directory to a server and back. Nothing is lost, doubled or renumbered; half a copy is none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.moving import copy, server
from nerve_store.moving.directory import DirectoryTarget
from nerve_store.moving.server import ServerTarget
from nerve_store.moving.target import Target
from nerve_store.postgres import PostgresLogStore
from nerve_store.postgres.address import Address
from postgres.moved import check_that_it_works, claims, content, fill
from support import child_environment
from support.archive import NOW, at


def address(place: Backend, suffix: str = "") -> str:
    archive = place.directory / f"days{suffix}"
    return f"{place.direct_url}?schema={place.schema}{suffix}&archive={archive}"


def opened(place: Backend, suffix: str = "", **options: Any) -> PostgresLogStore:
    archive = place.directory / f"days{suffix}"
    return PostgresLogStore(place.direct_url, schema=place.schema + suffix, archive=archive, **options)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory with something of everything."""
    with ns.LogStore(tmp_path / "data" / "logs.db") as log:
        fill(log)
    return tmp_path / "data"


def test_log_moves_to_a_server_and_back(place: Backend, directory: Path) -> None:
    with ns.LogStore(directory / "logs.db") as log:
        held, lost = claims(log)
        before = content(log)
    there = copy(str(directory), address(place), finish=True)
    assert there.is_finished
    assert (there.row_count, there.run_count) == (len(before["live"]), len(before["runs"]))
    with opened(place) as moved:
        assert content(moved) == before
    back = copy(address(place), str(directory.parent / "back"), finish=True)
    assert (back.row_count, back.run_count, back.key_count) == (there.row_count, there.run_count, there.key_count)
    with ns.LogStore(directory.parent / "back" / "logs.db") as log:
        assert content(log) == before
        check_that_it_works(log, held, lost)
    with opened(place) as moved:
        check_that_it_works(moved, held, lost)
    left = [name for name in os.listdir(directory.parent / "back") if "copying" in name]
    assert left == []


GAPS = (1_000_000, 1 << 31, 1 << 32, (1 << 32) + 9, 28_622_322_942_135, (1 << 53) - 40)
"""Ids after which a server went on once it had been restarted or brought back."""


def test_gaps_between_ids_are_kept_both_ways(place: Backend, directory: Path) -> None:
    """Few rows, and more than 32 bits between them, in the archive as well as in the database."""
    with opened(place) as log:
        for number, last in enumerate(GAPS):
            place.execute(f"SELECT go_on_after({last})")
            log.append_many([("system", "tick", f"ref-{number % 2}", "x", at(number % 3, n)) for n in range(4)])
        ids = [entry.id for entry in log.query()]
        log.archive_logs(now=at(3), retention=timedelta(0))
        log.append_many([("system", "late", "ref-0", "x", at(n)) for n in range(6)])
        late = [entry.id for entry in log.query(type="late")]
        before = content(log)
    ids += late
    assert len(ids) == 4 * len(GAPS) + 6
    copy(address(place), str(directory.parent / "home"), finish=True)
    copy(str(directory.parent / "home"), address(place, "_back"), finish=True)
    with ns.LogStore(directory.parent / "home" / "logs.db") as home, opened(place, "_back") as back:
        moved: tuple[ns.LogStore | PostgresLogStore, ...] = (home, back)
        for one in moved:
            assert content(one) == before
            assert [entry.id for entry in one.query(archived=True)] == ids
            assert [entry.id for entry in one.query(archived=True, descending=True, limit=9)] == ids[:-10:-1]
            assert [entry.id for entry in one.iter(type="late")] == late
            assert one.count(archived=True, after_id=1 << 31) == sum(row_id > 1 << 31 for row_id in ids)
            assert one.count(ref_id="ref-0", type="late") == 6
            follower = one.follow(after_id=0)
            assert [next(follower).id for _ in ids] == ids
            assert one.verify().ok
            one.reindex()
            one.archive_logs(now=at(9), retention=timedelta(0))
            assert [entry.id for entry in one.query(archived=True)] == ids
            assert [entry.id for entry in one.query(archived=True, ref_id="ref-0", type="late")] == late
            assert one.append("system", "tick").id == ids[-1] + 1


def test_source_is_written_to_meanwhile(place: Backend, directory: Path) -> None:
    """Rows come, days leave for the archive, and one comes back, while the copy is under way."""
    ending = threading.Event()
    with ns.LogStore(directory / "logs.db") as log:

        def write() -> None:
            number = 0
            while not ending.is_set():
                log.append_many([("system", "more", None, str(number), at(number % 12, 1))] * 50)
                log.archive_logs(now=at(1 + number % 13), retention=timedelta(0), max_days=2)
                if number % 7 == 3:
                    log.restore_archive(log.archived_days()[0].day)
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                report = copy(str(directory), address(place))
                assert not report.is_finished
        finally:
            ending.set()
            writer.join()
        with pytest.raises(ns.NerveStoreError):
            opened(place, read_only=True)
        assert copy(str(directory), address(place), finish=True).is_finished
        with opened(place) as moved:
            assert content(moved) == content(log)
            assert moved.verify().ok


def test_finish_refuses_a_source_that_is_written_to(
    place: Backend, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ServerTarget.index
    with ns.LogStore(directory / "logs.db") as log:

        def written_to(target: ServerTarget, archived_at: Mapping[str, int]) -> dict[str, str]:
            log.append("system", "late")
            return index(target, archived_at)

        monkeypatch.setattr(ServerTarget, "index", written_to)
        with pytest.raises(ns.NerveStoreError, match="written to"):
            copy(str(directory), address(place), finish=True)
        monkeypatch.undo()
        copy(str(directory), address(place), finish=True)
        with opened(place) as moved:
            assert content(moved) == content(log)


KILLED = """
import sys
from nerve_store.moving import copy, days, directory, server
from support.killing import killing
point, number, source, target = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
where, name, when = point.split(".")
owner = {"target": server.ServerTarget if "://" in target else directory.DirectoryTarget, "days": days.Days}[where]
setattr(owner, name, killing(getattr(owner, name), when, number))
from nerve_store.moving import work
work._ROWS = 100
copy(source, target, finish=True)
"""
POINTS = [
    ("target.begin.before", 1),
    ("target.begin.after", 1),
    ("target.note_day.before", 2),
    ("target.put.before", 2),
    ("target.put.after", 3),
    ("target.advance.after", 1),
    ("target.replace_state.before", 1),
    ("target.replace_state.after", 1),
    ("target.index.after", 1),
    ("target.publish.before", 1),
    ("target.publish.after", 1),
]


@pytest.mark.parametrize("towards", ["server", "directory"])
def test_killed_copy_goes_on_and_is_never_taken_for_whole(place: Backend, directory: Path, towards: str) -> None:
    """Killed at one point after the other, each time where the one before had left it."""
    with ns.LogStore(directory / "logs.db") as log:
        expected = content(log)
    source, target = str(directory), address(place)
    if towards == "directory":
        copy(source, target, finish=True)
        source, target = target, str(directory.parent / "back")
    for point, number in POINTS:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, point, str(number), source, target],
            env=child_environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, (point, done.stderr)
        is_whole = point == "target.publish.after"
        if towards == "directory":
            assert os.path.exists(os.path.join(target, "logs.db")) is is_whole, point
        elif not is_whole:
            with pytest.raises(ns.NerveStoreError):
                opened(place, read_only=True)
        if is_whole:
            for finish in (False, True):
                again = copy(source, target, finish=finish)
                assert again.is_finished
                assert (again.row_count, again.run_count) == (len(expected["live"]), len(expected["runs"]))
    if towards == "directory":
        with ns.LogStore(Path(target) / "logs.db") as log:
            assert content(log) == expected
            assert log.verify().ok
    else:
        with opened(place) as moved:
            assert content(moved) == expected
            assert moved.verify().ok


def test_unfinished_copy_of_another_log_is_refused(place: Backend, directory: Path) -> None:
    copy(str(directory), address(place))
    with ns.LogStore(directory.parent / "other" / "logs.db") as other:
        other.append("system", "tick")
        other.archive_logs(now=NOW * 2)
    with pytest.raises(ns.NerveStoreError, match="another log"):
        copy(str(directory.parent / "other"), address(place))
    copy(str(directory), address(place), finish=True)


@pytest.mark.parametrize("towards", ["server", "directory"])
def test_two_copies_to_one_place_exclude_each_other(
    place: Backend, directory: Path, towards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.2)
    source, target = str(directory), address(place)
    other: Target
    if towards == "server":
        other = ServerTarget(Address.of(target))
    else:
        copy(source, target, finish=True)
        source, target = target, str(directory.parent / "back")
        other = DirectoryTarget(target)
    with contextlib.closing(other), pytest.raises(ns.NerveStoreError, match="under way"):
        copy(source, target)
    assert copy(source, target, finish=True).is_finished


def test_places_that_hold_something_are_refused(place: Backend, directory: Path) -> None:
    with pytest.raises(ns.NerveStoreError, match="backup"):
        copy(str(directory), str(directory.parent / "new"))
    with pytest.raises(ns.NerveStoreError, match="archive"):
        copy(str(directory), f"{place.direct_url}?schema={place.schema}")
    own = f"{place.direct_url}?schema={place.schema}&archive={directory}/archive/logs"
    with pytest.raises(ns.NerveStoreError, match="the source's archive"):
        copy(str(directory), own)
    foreign = directory.parent / "foreign"
    foreign.mkdir()
    (foreign / "2020-01-01.jsonl").write_bytes(b"")
    with pytest.raises(ns.NerveStoreError, match="whose they are"):
        copy(str(directory), f"{place.direct_url}?schema={place.schema}&archive={foreign}")
    assert os.listdir(foreign) == ["2020-01-01.jsonl"]
    copy(str(directory), address(place), finish=True)
    with ns.LogStore(directory.parent / "other" / "logs.db") as other:
        other.append("system", "tick")
    with pytest.raises(ns.NerveStoreError, match="already"):
        copy(str(directory.parent / "other"), address(place))
    with pytest.raises(ns.NerveStoreError, match="already"):
        copy(address(place), str(directory))
    full = directory.parent / "full"
    full.mkdir()
    (full / "file").touch()
    with pytest.raises(ns.NerveStoreError, match="not empty"):
        copy(address(place), str(full))
    with opened(place) as moved, ns.LogStore(directory / "logs.db") as log:
        assert content(moved) == content(log)


def test_damaged_day_is_not_copied(place: Backend, directory: Path) -> None:
    with ns.LogStore(directory / "logs.db") as log:
        path = Path(log.archived_days()[2].path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10] + bytes(10))
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        copy(str(directory), address(place))
    path.write_bytes(whole)
    assert copy(str(directory), address(place), finish=True).is_finished
