"""`copy` where something went wrong before, or goes wrong: the target is right, or it is no log, and says so."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place
from nerve_store.moving import copy, work
from support.archive import NOW, at, damage_file, day
from support.calls import followed_by
from support.cli import Cli
from support.foreign import foreign_sql

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.moving.days import Days
from nerve_store.moving.directory import DirectoryTarget
from nerve_store.moving.objects import Objects
from nerve_store.moving.shelf import Directory

UPSTREAM = Path(__file__).parents[1] / "fixtures" / "upstream-0.5.0"


class Route:
    """A copy from one data directory to another."""

    def __init__(self, source: Path, target: Path, **options: Any) -> None:
        self.source, self.target, self.options = source, target, options

    def __call__(self, *, target: Path | None = None, finish: bool = False) -> Any:
        return copy(self.source, target or self.target, finish=finish, **self.options)

    def opened_source(self) -> ns.Store:
        return ns.Store(self.source, remote=self.options.get("source_remote"))

    def opened(self) -> ns.Store:
        return ns.Store(self.target, remote=self.options.get("remote"))

    @property
    def days(self) -> Path:
        """Where the days of the target are."""
        remote = self.options.get("remote")
        return self.target / "archive" / "logs" if remote is None else Path(remote.removeprefix("file://")) / "logs"


@pytest.fixture(params=["objects", "files"])
def route(request: pytest.FixtureRequest, directory: Place, tmp_path: Path) -> Route:
    """To an object store, or from there to a directory; some days are archived."""
    with ns.Store(tmp_path / "data") as store:
        store.logs.append_many([("system", "tick", "ref", str(n), at(n % 6, n)) for n in range(60)])
        store.logs.archive_logs(now=at(4), retention=timedelta(0))
        store.blobs.write("blob")
    outwards = Route(tmp_path / "data", tmp_path / "there", remote=f"{directory.url}/there")
    if request.param == "objects":
        return outwards
    outwards(finish=True)
    return Route(tmp_path / "there", tmp_path / "home", source_remote=f"{directory.url}/there")


def check_same(route: Route) -> None:
    with route.opened_source() as source, route.opened() as target:
        assert target.logs.query(archived=True) == source.logs.query(archived=True)
        assert target.logs.query_workflow_runs() == source.logs.query_workflow_runs()
        assert list(target.blobs) == list(source.blobs)
        assert target.logs.verify().ok


def test_mark_that_outlived_its_copy_is_taken_for_nothing_else(
    route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unanswered(_shelf: object) -> None:
        raise ns.StoreUnavailableError("no answer")

    for shelf in (Objects, Directory):
        monkeypatch.setattr(shelf, "release", unanswered)
    with pytest.raises(ns.StoreUnavailableError):
        route(finish=True)
    monkeypatch.undo()
    with route.opened() as store:
        store.logs.append("system", "late", None, "only here", at(1))
        store.logs.archive_logs(now=NOW)
        rows = store.logs.query(archived=True)
    files = {path.name: path.read_bytes() for path in route.days.iterdir()}
    assert ".copying" in files
    if "remote" in route.options:
        with pytest.raises(ns.NerveStoreError, match=str(route.target)):
            route(target=tmp_path / "second")
    with ns.Store(tmp_path / "other") as other:
        other.logs.append("system", "tick")
    with pytest.raises(ns.NerveStoreError, match="already") as refused:
        copy(tmp_path / "other", route.target, remote=route.options.get("remote"), source_remote="memory://none")
    assert type(pickle.loads(pickle.dumps(refused.value))) is ns.NerveStoreError
    assert {path.name: path.read_bytes() for path in route.days.iterdir()} == files
    for _ in range(2):
        report = route()
        assert report.is_finished
        assert (report.row_count, report.blob_count) == (0, 1)
    assert {path.name: path.read_bytes() for path in route.days.iterdir()} == {
        name: content for name, content in files.items() if name != ".copying"
    }
    with route.opened() as store:
        assert store.logs.query(archived=True) == rows
        assert store.logs.verify().ok


def test_ids_that_the_source_gave_out_again(route: Route, tmp_path: Path) -> None:
    """A backup of it was restored between two calls."""
    shutil.copytree(route.source, tmp_path / "backup")
    with route.opened_source() as store:
        store.logs.append_many([("system", "tick", "ref", f"before {n}", at(5, n)) for n in range(4)])
    route()
    shutil.rmtree(route.source)
    shutil.copytree(tmp_path / "backup", route.source)
    with route.opened_source() as store:
        store.logs.append_many([("system", "tick", "ref", f"after {n}", at(5, n)) for n in range(2)])
    route()
    assert route(finish=True).is_finished
    check_same(route)


def test_rows_of_somebody_else_in_the_unfinished_copy_go(route: Route) -> None:
    route()
    with ns.LogStore(route.target / ".copying.db") as half:
        half.append_many([("system", "other", None, str(n), at(2, n)) for n in range(3)])
    route(finish=True)
    check_same(route)


def test_unfinished_copy_is_not_taken_for_an_empty_directory(route: Route) -> None:
    """A daemon that is started on it too early makes no second log there."""
    route()
    half = {path: path.read_bytes() for path in route.target.rglob("*") if path.is_file()}
    for read_only in (False, True):
        with pytest.raises(ns.StoreIOError) as refused:
            ns.Store(route.target, read_only=read_only)
        assert read_only or "copy --finish" in str(refused.value)
    assert {path: path.read_bytes() for path in route.target.rglob("*") if path.is_file()} == half
    (route.target / ".copying.db").rename(route.target.parent / "moved away")
    if "remote" not in route.options:
        with pytest.raises(ns.StoreIOError, match="days of a copy"):
            ns.Store(route.target)
    (route.target.parent / "moved away").rename(route.target / ".copying.db")
    assert route(finish=True).is_finished
    check_same(route)


@pytest.mark.parametrize("words", [["doctor"], ["verify"], ["archive"], ["logs"]], ids=lambda words: words[0])
def test_commands_tell_an_unfinished_copy(route: Route, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And no backup to be restored."""
    route()
    cli = Cli(route.target, capsys)
    told = cli(*words)
    assert told.exit_code == 1
    assert "a copy that was not finished" in told.out + told.err
    assert "backup" not in told.out + told.err


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_day_of_an_unfinished_copy_is_copied_anew(route: Route, damage: str) -> None:
    route()
    path = next(path for path in sorted(route.days.iterdir()) if ".jsonl" in path.name)
    path.chmod(0o600)
    damage_file(path, damage)
    if damage == "changed":
        with pytest.raises(ns.ArchiveCorruptError, match="copy again"):
            route(finish=True)
    assert route(finish=True).is_finished
    check_same(route)


@pytest.mark.parametrize("point", ["begin", "put", "replace_state", "index", "publish"])
def test_two_copies_to_one_directory_exclude_each_other_from_beginning_to_end(
    route: Route, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method: Callable[..., Any] = getattr(DirectoryTarget, point)
    seen: list[str] = []

    def other(target: DirectoryTarget, *arguments: Any, **options: Any) -> Any:
        result = None
        for when in ("before", "after"):
            if when == "after":
                result = method(target, *arguments, **options)
            if (point, when) == ("publish", "after"):
                assert route().is_finished
            else:
                with pytest.raises(ns.NerveStoreError, match="under way"):
                    route(finish=True)
            seen.append(when)
        return result

    monkeypatch.setattr(DirectoryTarget, point, other)
    assert route(finish=True).is_finished
    monkeypatch.undo()
    assert seen[:2] == ["before", "after"]
    check_same(route)
    assert [name for name in os.listdir(route.target) if "copying" in name] == []


def test_nothing_is_left_of_calls_that_were_cut_off(route: Route) -> None:
    route()
    (route.target / ".copying-notes.db-journal").touch()
    if "remote" not in route.options:
        (route.days / ".stage-0123").touch()
    route(finish=True)
    left = [*os.listdir(route.target), *os.listdir(route.days)]
    assert [name for name in left if "copying" in name or "stage" in name] == []


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_modes(route: Route, mask: int) -> None:
    """Those that SECURITY.md promises, while it is copied and then, whatever the process's mask."""
    before = os.umask(mask)
    try:
        route.target = route.target / "deep" / "er"
        route()
        top = route.target.parents[1]
        for _ in range(2):
            found = {path: stat.S_IMODE(path.stat().st_mode) for path in (top, *top.rglob("*"))}
            assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
            assert {mode for path, mode in found.items() if path.is_file()} == {0o600}, found
            if not (route.target / "logs.db").exists():
                route(finish=True)
    finally:
        os.umask(before)


READER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN")
print(*database.execute("SELECT count(*) FROM logs").fetchone(), flush=True)
sys.stdin.read()
"""


def test_reader_of_the_unfinished_database_keeps_no_rows_from_it(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in its write-ahead log would not be found under the new name."""
    route()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **_: connect(path, timeout=0.1))
    command = [sys.executable, "-c", READER, str(route.target / ".copying.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline()
        with route.opened_source() as store:
            store.logs.append("system", "tick", None, "new", at(5))
        with pytest.raises(ns.StoreBusyError, match="open"):
            route(finish=True)
        assert not (route.target / "logs.db").exists()
        reader.communicate()
    route(finish=True)
    check_same(route)


@pytest.mark.parametrize("name", [".copying.db", ".copying-notes.db"])
def test_full_disk(route: Route, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(path: str, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        if os.path.basename(path) == name:
            connection.execute("PRAGMA max_page_count = 1")
        return connection

    with route.opened_source() as store:
        store.logs.append_many([("system", "tick", None, "x" * 1000, at(5, n)) for n in range(300)])
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(ns.StoreFullError) as refused:
        route(finish=True)
    assert refused.value.errno == errno.ENOSPC
    assert refused.value.path is not None
    assert str(route.target) in refused.value.path
    monkeypatch.undo()
    route(finish=True)
    check_same(route)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left"), ns.StoreFullError),
        (OSError(errno.EIO, "Input/output error"), ns.StoreIOError),
        (sqlite3.OperationalError("disk I/O error"), ns.StoreIOError),
    ],
)
def test_errors_of_the_system_are_ours(
    route: Route, failure: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_arguments: object, **_options: object) -> None:
        raise failure

    for method in ("begin", "note_day", "put", "advance", "replace_state", "index", "publish"):
        monkeypatch.setattr(DirectoryTarget, method, failing)
        with pytest.raises(expected) as refused:
            route(finish=True)
        monkeypatch.undo()
        assert str(route.target) in str(refused.value)
    route(finish=True)
    check_same(route)


@pytest.mark.parametrize("name", ["data", os.fsdecode(b"\xff")], ids=["UTF-8", "bytes"])
def test_predecessors_directory_that_gets_its_identity_meanwhile(directory: Place, tmp_path: Path, name: str) -> None:
    shutil.copytree(UPSTREAM / "data", tmp_path / name)
    route = Route(tmp_path / name, tmp_path / "there", remote=directory.url)
    route()
    with ns.Store(tmp_path / name) as store:
        store.logs.append("system", "tick")
    route(finish=True)
    check_same(route)


@pytest.mark.parametrize("what", ["row", "meta", "run", "blob", "deleted blob", "restored day"])
def test_finish_refuses_a_source_that_is_written_to(route: Route, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = DirectoryTarget.index
    with route.opened_source() as store:
        write: dict[str, Callable[[], object]] = {
            "row": lambda: store.logs.append("system", "late"),
            "meta": lambda: store.logs.set_meta("a", "b"),
            "run": lambda: store.logs.create_workflow_run("run", "build"),
            "blob": lambda: store.blobs.write("late"),
            "deleted blob": lambda: store.blobs.delete(next(iter(store.blobs))),
            "restored day": lambda: store.logs.restore_archive(day(2)),
        }

        def written_to(target: DirectoryTarget, archived_at: Any) -> dict[str, str]:
            write[what]()
            return index(target, archived_at)

        monkeypatch.setattr(DirectoryTarget, "index", written_to)
        with pytest.raises(ns.NerveStoreError, match="written to"):
            route(finish=True)
        monkeypatch.undo()
        route(finish=True)
    with route.opened_source() as source, route.opened() as target:
        assert target.logs.query(archived=True) == source.logs.query(archived=True)
        assert set(source.blobs) <= set(target.blobs)


def expire_first_day(route: Route) -> None:
    """What a cron job does at the source."""
    with route.opened_source() as store:
        assert store.logs.expire_archive(before=day(1))


@pytest.mark.parametrize("step", ["bring", "index", "publish"])
def test_day_that_expires_while_a_copy_is_finished(route: Route, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call says that the source was written to, or is finished; once nothing is written any more, one is."""
    owner: Any = Days if step == "bring" else DirectoryTarget
    monkeypatch.setattr(owner, step, followed_by(getattr(owner, step), lambda: expire_first_day(route)))
    if step == "publish":
        assert route(finish=True).is_finished
        return
    with pytest.raises(ns.NerveStoreError, match="written to while"):
        route(finish=True)
    monkeypatch.undo()
    assert route(finish=True).is_finished
    check_same(route)


@pytest.mark.parametrize("is_noted", [False, True])
def test_day_of_an_interrupted_copy_expires(route: Route, is_noted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the call was killed before it noted the file that it had stored, or after."""
    note = DirectoryTarget.note_day

    def interrupted(target: DirectoryTarget, item: Any) -> None:
        if is_noted:
            note(target, item)
        raise KeyboardInterrupt

    monkeypatch.setattr(DirectoryTarget, "note_day", interrupted)
    with pytest.raises(KeyboardInterrupt):
        route()
    monkeypatch.undo()
    assert [path.name for path in route.days.iterdir() if path.name.startswith(str(day(0)))]
    expire_first_day(route)
    assert route(finish=True).is_finished
    check_same(route)
    assert not [path.name for path in route.days.iterdir() if path.name.startswith(str(day(0)))]


@pytest.mark.parametrize("point", ["replace_state", "publish"])
@pytest.mark.parametrize("first", ["files", "objects"])
def test_day_expires_that_an_earlier_call_brought_to_another_place(
    directory: Place, tmp_path: Path, first: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ns.Store(tmp_path / "data", remote=f"{directory.url}/source") as store:
        store.logs.append_many([("system", "tick", "ref", str(n), at(n % 6, n)) for n in range(60)])
        store.logs.archive_logs(now=at(4), retention=timedelta(0))
    files = Route(tmp_path / "data", tmp_path / "there", source_remote=f"{directory.url}/source")
    objects = Route(files.source, files.target, remote=f"{directory.url}/there", **files.options)
    before, after = (files, objects) if first == "files" else (objects, files)

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DirectoryTarget, point, interrupted)
    with pytest.raises(KeyboardInterrupt):
        before(finish=True)
    monkeypatch.undo()
    expire_first_day(files)
    assert after(finish=True).is_finished
    check_same(after)
    assert first == "objects" or not any(before.days.iterdir())


@pytest.mark.parametrize("point", ["publish", "release"])
def test_call_whose_end_was_lost_is_repeated_any_number_of_times(
    route: Route, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed once all was done, or the answer to its last request did not come."""
    shelf = Objects if "remote" in route.options else Directory
    owner: Any = DirectoryTarget if point == "publish" else shelf
    method: Callable[..., Any] = getattr(owner, point)

    def lost(*arguments: Any) -> None:
        method(*arguments)
        raise ns.StoreUnavailableError("no answer")

    monkeypatch.setattr(owner, point, lost)
    with pytest.raises(ns.StoreUnavailableError):
        route(finish=True)
    monkeypatch.undo()
    check_same(route)
    reports = [route(finish=finish) for finish in (True, True, False)]
    with route.opened() as store:
        found = (len(store.logs.archived_days()), store.logs.count())
    for report in reports:
        assert report.is_finished
        assert (report.target, report.day_count, report.row_count) == (str(route.target), *found)
    assert ".copying" not in [path.name for path in route.days.iterdir()]
    check_same(route)


def test_finished_copy_of_a_source_that_goes_on_is_told(route: Route) -> None:
    """Jobs that move or expire days write nothing that would be missing."""
    route(finish=True)
    with route.opened_source() as store:
        store.logs.archive_logs(now=NOW)
        store.logs.expire_archive(before=day(1))
    assert route(finish=True).is_finished
    with route.opened() as store:
        store.logs.append("system", "tick", None, "at the target")
    assert route(finish=True).is_finished
    writes: list[Callable[[ns.LogStore], object]] = [
        lambda log: log.set_meta("a", "b"),
        lambda log: log.append("system", "tick"),
        lambda log: log.create_workflow_run("run", "build"),
    ]
    for write in writes:
        with route.opened_source() as store:
            write(store.logs)
        for finish in (True, False):
            with pytest.raises(ns.NerveStoreError, match="written to since") as refused:
                route(finish=finish)
            assert refused.value.path is not None


def test_finished_copy_is_not_one_to_another_place(route: Route, directory: Place) -> None:
    """Its days are not where this call says that they are."""
    route(finish=True)
    with pytest.raises(ns.NerveStoreError, match="already"):
        copy(route.source, route.target, **(route.options | {"remote": f"{directory.url}/elsewhere"}), finish=True)


def test_arguments_that_are_none(tmp_path: Path) -> None:
    arguments: list[tuple[str, Any]] = [
        *((name, wrong) for name in ("source", "target") for wrong in (None, 7, b"x")),
        *((f"{name}remote", wrong) for name in ("", "source_") for wrong in (7, tmp_path)),
        *((f"{name}remote_options", wrong) for name in ("", "source_") for wrong in (7, "x", [1], [("a", 1)])),
        ("finish", "no"),
        ("finish", 1),
        ("progress", 5),
    ]
    for name, wrong in arguments:
        given: dict[str, Any] = {"source": tmp_path, "target": tmp_path / "there", "remote": "memory://x", name: wrong}
        if name == "source_remote_options":
            given["source_remote"] = "memory://y"
        with pytest.raises(TypeError, match=f"^{name} must be "):
            copy(**given)
    for name in ("source", "target"):
        with pytest.raises(ValueError, match=f"^{name} is an empty path"):
            copy(*("" if name == side else tmp_path for side in ("source", "target")))
    with pytest.raises(ValueError, match="source_remote_options are for source_remote"):
        copy(tmp_path, tmp_path, source_remote_options={"a": 1})
    assert os.listdir(tmp_path) == []


def test_directory_that_cannot_be_made_is_named(route: Route, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ns.StoreIOError, match=str(tmp_path / "file")):
        route(target=tmp_path / "file" / "target")


def test_place_that_cannot_be_made_is_named(route: Route, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source_remote = route.options.get("source_remote", "memory://none")
    with pytest.raises(ns.StoreIOError, match=str(tmp_path / "file" / "x")) as refused:
        copy(route.source, tmp_path / "target", remote=f"file://{tmp_path}/file/x", source_remote=source_remote)
    assert refused.value.errno == errno.ENOTDIR


def test_day_that_is_not_known_yet_keeps_the_time_of_its_file(directory: Place, tmp_path: Path) -> None:
    shutil.copytree(UPSTREAM / "archived", tmp_path / "data")
    for number, path in enumerate(sorted((tmp_path / "data" / "archive" / "logs").iterdir())):
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    route = Route(tmp_path / "data", tmp_path / "there", remote=directory.url)
    route(finish=True)
    with route.opened() as store:
        found = [day.archived_at for day in store.logs.archived_days()]
    assert found == [1000 * (1_700_000_000 + number) for number in range(len(found))]


def test_batches_are_bounded_by_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_LETTERS", 1000)
    for column in ("source", "type", "ref_id", "payload"):
        texts: dict[str, Any] = {"source": "", "type": "", "ref_id": None, "payload": None, column: "x" * 400}
        rows = [ns.LogEntry(number, **texts, timestamp=0) for number in range(10)]
        assert [len(batch) for batch in work._batches(iter(rows))] == [3, 3, 3, 1]


def test_foreign_runs_travel_between_directories(route: Route) -> None:
    """A status that this version does not know is kept as it is."""
    database = route.source / "logs.db"
    foreign_sql(
        database, "INSERT INTO workflow_runs (run_id, workflow, status, timestamp) VALUES ('u', 'w', 'paused', 5)"
    )
    route(finish=True)
    statement = "SELECT * FROM workflow_runs"
    with ns.LogStore(database) as source, ns.LogStore(route.target / "logs.db") as target:
        assert target.sql(statement) == source.sql(statement)
