"""`copy` to a server where something went wrong before, or goes wrong: the target is right, or it is no log."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend, available
from contract.backends import opened as opened_backend
from nerve_store.moving import copy, server, shelf, source
from nerve_store.moving.days import Days
from nerve_store.moving.objects import Objects
from nerve_store.moving.server import ServerTarget
from nerve_store.postgres import PostgresLogStore
from nerve_store.postgres import schema as postgres_schema
from postgres.moved import content
from support.archive import NOW, at, damage_file, day
from support.calls import followed_by
from support.cli import Cli
from support.foreign import foreign_sql


def address(place: Backend, schema: str, *, days: str = "days", user: str | None = None) -> str:
    url = place.direct_url if user is None else re.sub("//[^@]*@", f"//{user}@", place.direct_url)
    return f"{url}?schema={schema}&archive={place.directory / days}"


def opened(place: Backend, schema: str, **options: Any) -> PostgresLogStore:
    return PostgresLogStore(place.direct_url, schema=schema, archive=place.directory / "days", **options)


def execute(place: Backend, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(place.direct_url, autocommit=True) as session:
        cursor = session.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def schema(place: Backend) -> Iterator[str]:
    """A name for the target, of which nothing is left."""
    yield place.schema
    for name in (place.schema, f"{place.schema}_copying", f"{place.schema}_b", f"{place.schema}_b_copying"):
        execute(place, f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with rows, some of which are archived."""
    with ns.Store(tmp_path / "data") as store:
        store.logs.append_many([("system", "tick", "ref", str(n), at(n % 6, n)) for n in range(60)])
        store.logs.archive_logs(now=at(4), retention=timedelta(0))
    return tmp_path / "data"


def check_same(place: Backend, schema: str, data: Path) -> None:
    with ns.Store(data) as source, opened(place, schema) as target:
        assert content(target) == content(source.logs)
        assert target.verify().ok


@pytest.fixture(params=["files", "objects"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the days of the target lie."""
    return str(request.param)


def finish(place: Backend, schema: str, data: Path, kind: str, *, finish: bool = True) -> bool:
    if kind == "files":
        return copy(data, address(place, schema), finish=finish).is_finished
    url = f"{place.direct_url}?schema={schema}"
    return copy(data, url, remote=(place.directory / "objects").as_uri(), finish=finish).is_finished


def check_finished(place: Backend, schema: str, data: Path, kind: str) -> None:
    archive = place.directory / "days" if kind == "files" else (place.directory / "objects").as_uri()
    with ns.Store(data) as source, PostgresLogStore(place.direct_url, schema=schema, archive=archive) as target:
        names = [name for name in content(source.logs) if name != "files"]
        assert {name: content(target)[name] for name in names} == {name: content(source.logs)[name] for name in names}
        assert target.verify().ok


def test_log_of_the_name_under_which_a_copy_is_made_stays(place: Backend, schema: str, data: Path) -> None:
    with opened(place, f"{schema}_copying") as other:
        other.append("mine", "tick")
        other.create_workflow_run("run", "build")
        other.set_meta("key", "value")
        before = content(other)
    for finish in (False, True):
        with pytest.raises(ns.NerveStoreError, match=f"{schema}_copying.* has a log of its own"):
            copy(data, address(place, schema, days="other"), finish=finish)
    with opened(place, f"{schema}_copying") as other:
        assert content(other) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_unfinished_copy_is_opened_by_no_store(place: Backend, schema: str, data: Path, read_only: bool) -> None:
    copy(data, address(place, schema))
    with pytest.raises(ns.NerveStoreError, match="copy --finish"):
        opened(place, f"{schema}_copying", read_only=read_only)
    with pytest.raises(ns.NerveStoreError, match="copy --finish"):
        copy(address(place, f"{schema}_copying"), data.parent / "new")
    assert copy(data, address(place, schema), finish=True).is_finished
    check_same(place, schema, data)


def schemas(place: Backend, schema: str) -> list[str]:
    found = execute(place, f"SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, '{schema}') ORDER BY 1")
    return [str(row[0]) for row in found]


@pytest.mark.parametrize("read_only", [False, True])
def test_store_that_is_opened_too_early_makes_no_log(
    place: Backend, schema: str, data: Path, kind: str, read_only: bool
) -> None:
    """A worker that is started with the URL of the target before the copy to it is finished."""
    finish(place, schema, data, kind, finish=False)
    for archive in (None, place.directory / "days", (place.directory / "objects").as_uri()):
        with pytest.raises(ns.NerveStoreError, match="copy --finish") as refused:
            PostgresLogStore(place.direct_url, schema=schema, archive=archive, read_only=read_only)
        assert refused.value.path is not None
        assert f"drop the schema {schema}_copying" in str(refused.value)
    assert schemas(place, schema) == [f"{schema}_copying"]
    assert finish(place, schema, data, kind)
    check_finished(place, schema, data, kind)


def test_copy_that_begins_while_a_store_is_opened(
    place: Backend, schema: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is first has the name."""
    make = postgres_schema.lock_name

    def begins(*arguments: Any) -> None:
        monkeypatch.undo()
        copy(data, address(place, schema))
        make(*arguments)

    monkeypatch.setattr(postgres_schema, "lock_name", begins)
    with pytest.raises(ns.NerveStoreError, match="copy --finish"):
        opened(place, schema)
    assert copy(data, address(place, schema), finish=True).is_finished
    check_same(place, schema, data)


def test_store_that_is_opened_while_a_copy_begins(
    place: Backend, schema: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = postgres_schema.lock_name

    def opens(*arguments: Any) -> None:
        opened(place, schema).close()
        lock(*arguments)

    monkeypatch.setattr(server, "lock_name", opens)
    with pytest.raises(ns.NerveStoreError, match="already"):
        copy(data, address(place, schema))
    assert schemas(place, schema) == [schema]


@pytest.mark.parametrize("query", ["schema=", "schema=a%20b", f"schema={'a' * 33}", "schema={schema}&archive="])
def test_parameters_that_are_none_are_refused_before_anything_is_done(
    place: Backend, schema: str, data: Path, query: str
) -> None:
    before = schemas(place, "")
    with pytest.raises(ValueError, match=r"schema|^archive is an empty path"):
        copy(data, f"{place.direct_url}?{query.format(schema=schema)}")
    assert schemas(place, "") == before


def test_schema_that_was_made_before_is_refused_before_anything_is_done(
    place: Backend, schema: str, data: Path
) -> None:
    execute(place, f"CREATE SCHEMA {schema}")
    with pytest.raises(ns.NerveStoreError, match="drop it, or name another"):
        copy(data, address(place, schema))
    assert execute(place, f"SELECT FROM pg_namespace WHERE nspname = '{schema}_copying'") == []
    assert not (place.directory / "days").exists()
    execute(place, f"DROP SCHEMA {schema}")
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


@contextmanager
def role(place: Backend, name: str) -> Iterator[str]:
    execute(place, f"CREATE ROLE {name} LOGIN")
    try:
        yield name
    finally:
        execute(place, f"DROP OWNED BY {name} CASCADE")
        execute(place, f"DROP ROLE {name}")


@pytest.mark.parametrize("has_schema", [False, True])
def test_role_that_may_make_no_schema_is_told_before_anything_is_done(
    place: Backend, schema: str, data: Path, has_schema: bool
) -> None:
    with role(place, f"weak_{schema}") as weak:
        if has_schema:
            execute(place, f"CREATE SCHEMA {schema}_copying AUTHORIZATION {weak}")
        with pytest.raises(ns.StoreIOError, match="GRANT CREATE ON DATABASE"):
            copy(data, address(place, schema, user=weak))
        assert not (place.directory / "days").exists()
        database = execute(place, "SELECT current_database()")[0][0]
        execute(place, f"GRANT CREATE ON DATABASE {database} TO {weak}")
        assert copy(data, address(place, schema, user=weak), finish=True).is_finished
        check_same(place, schema, data)


@pytest.mark.parametrize("what", ["doubled", "others"])
def test_rows_that_the_source_has_not_go(place: Backend, schema: str, data: Path, what: str) -> None:
    """Doubled ones, as two copies at once through a pooler once wrote them, or those of somebody else."""
    copy(data, address(place, schema))
    shown = "id, payload" if what == "doubled" else "id + 1000, payload || 'x'"
    for where in ("id < 20", "id > 40"):
        execute(
            place,
            f"INSERT INTO {schema}_copying.logs (id, payload, source, type, ref_id, timestamp, is_round)"
            f" SELECT {shown}, source, type, ref_id, timestamp, is_round FROM {schema}_copying.logs WHERE {where}",
        )
    assert copy(data, address(place, schema), finish=True).is_finished
    check_same(place, schema, data)


def test_rows_that_come_while_it_is_finished_are_noticed(
    place: Backend, schema: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = ServerTarget.count

    def doubled(target: ServerTarget) -> int:
        execute(place, f"INSERT INTO {schema}_copying.logs SELECT * FROM {schema}_copying.logs LIMIT 1")
        return count(target)

    monkeypatch.setattr(ServerTarget, "count", doubled)
    with pytest.raises(ns.NerveStoreError, match="other rows"):
        copy(data, address(place, schema), finish=True)
    monkeypatch.undo()
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


def test_pooler_in_transaction_mode_needs_an_address_around_it(tmp_path: Path, data: Path) -> None:
    reason = available("postgresql-15-pgbouncer")
    if reason is not None:
        pytest.skip(reason)
    for place in opened_backend("postgresql-15-pgbouncer", tmp_path):
        through = f"{place.url}?schema={place.schema}&archive={place.directory / 'days'}"
        with pytest.raises(ns.NerveStoreError, match="listen_url"):
            copy(data, through)
        assert execute(place, f"SELECT FROM pg_namespace WHERE nspname LIKE '{place.schema}%'") == []
        assert copy(data, f"{through}&listen_url={place.direct_url}", finish=True).is_finished
        check_same(place, place.schema, data)


def test_mark_that_outlived_its_copy_is_taken_for_nothing_else(
    place: Backend, schema: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unanswered(_shelf: object) -> None:
        raise ns.StoreUnavailableError("no answer")

    monkeypatch.setattr(shelf.Directory, "release", unanswered)
    with pytest.raises(ns.StoreUnavailableError):
        copy(data, address(place, schema), finish=True)
    monkeypatch.undo()
    with opened(place, schema) as log:
        log.append("system", "late", None, "only here", at(1))
        log.archive_logs(now=NOW)
        before = content(log)
    doctor = Cli(data, capsys)("--data", address(place, schema), "doctor").out
    assert "nerve-store copy once more" in doctor
    with pytest.raises(ns.NerveStoreError, match=f"the copy to .*{schema}"):
        copy(data, address(place, f"{schema}_b"))
    assert copy(data, address(place, schema)).is_finished
    assert ".copying" not in os.listdir(place.directory / "days")
    with pytest.raises(ns.NerveStoreError, match="archive of another log"):
        copy(data, address(place, f"{schema}_b"))
    with opened(place, schema) as log:
        assert content(log) == before
        assert log.verify().ok


@pytest.mark.parametrize("point", ["publish", "release"])
def test_call_whose_end_was_lost_is_repeated_any_number_of_times(
    place: Backend, schema: str, data: Path, kind: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed once all was done, or the answer to its last request did not come."""
    owner: Any = ServerTarget if point == "publish" else shelf.Directory if kind == "files" else Objects
    method: Callable[..., Any] = getattr(owner, point)

    def lost(*arguments: Any) -> None:
        method(*arguments)
        raise ns.StoreUnavailableError("no answer")

    monkeypatch.setattr(owner, point, lost)
    with pytest.raises(ns.StoreUnavailableError):
        finish(place, schema, data, kind)
    monkeypatch.undo()
    for _ in range(2):
        assert finish(place, schema, data, kind)
        check_finished(place, schema, data, kind)
    with ns.Store(data) as store:
        store.logs.append("system", "tick")
    with pytest.raises(ns.NerveStoreError, match="written to since"):
        finish(place, schema, data, kind)


def test_copy_without_an_archive_is_repeated_any_number_of_times(place: Backend, schema: str, tmp_path: Path) -> None:
    """There is no mark of it."""
    source, target = tmp_path / "data", f"{place.direct_url}?schema={schema}"
    with ns.Store(source) as store:
        store.logs.append("system", "tick")
    reports = [copy(source, target, finish=finish) for finish in (True, True, False)]
    assert [(report.is_finished, report.row_count, report.day_count) for report in reports] == [(True, 1, 0)] * 3
    assert len({report.target for report in reports}) == 1
    with ns.Store(tmp_path / "other") as store:
        store.logs.append("system", "tick")
    with pytest.raises(ns.NerveStoreError, match="already"):
        copy(tmp_path / "other", target, finish=True)
    # Back, and there once more.
    assert copy(target, tmp_path / "home", finish=True).is_finished
    assert copy(target, tmp_path / "home", finish=True).is_finished
    with pytest.raises(ns.NerveStoreError, match="already"):
        copy(tmp_path / "home", target, finish=True)


def test_log_that_was_there_before_is_not_taken_for_a_copy(place: Backend, schema: str, data: Path, kind: str) -> None:
    """Also one that was made, with the name of the target, beside a copy to it."""
    finish(place, schema, data, kind, finish=False)
    execute(place, f"ALTER SCHEMA {schema}_copying RENAME TO {schema}_b")
    PostgresLogStore(place.direct_url, schema=schema).close()
    execute(place, f"ALTER SCHEMA {schema}_b RENAME TO {schema}_copying")
    with pytest.raises(ns.NerveStoreError, match="already"):
        finish(place, schema, data, kind)
    execute(place, f"DROP SCHEMA {schema} CASCADE")
    assert finish(place, schema, data, kind)
    check_finished(place, schema, data, kind)


def test_days_of_a_copy_that_was_given_up_are_not_those_of_the_next(place: Backend, schema: str, data: Path) -> None:
    copy(data, address(place, schema))
    execute(place, f"DROP SCHEMA {schema}_copying CASCADE")
    with pytest.raises(ns.NerveStoreError, match="delete what is there"):
        copy(data, address(place, schema))
    shutil.rmtree(place.directory / "days")
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


def test_ids_that_the_source_gave_out_again(place: Backend, schema: str, data: Path) -> None:
    """A backup of it was restored between two calls."""
    shutil.copytree(data, data.parent / "backup")
    with ns.Store(data) as store:
        store.logs.append_many([("system", "tick", "ref", f"before {n}", at(5, n)) for n in range(4)])
    copy(data, address(place, schema))
    shutil.rmtree(data)
    shutil.copytree(data.parent / "backup", data)
    with ns.Store(data) as store:
        store.logs.append_many([("system", "tick", "ref", f"after {n}", at(5, n)) for n in range(2)])
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


@pytest.mark.parametrize("point", ["put", "advance", "note_day", "replace_state", "publish"])
def test_session_that_the_server_ends_is_told_and_the_copy_goes_on(
    place: Backend, schema: str, data: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method: Callable[..., Any] = getattr(ServerTarget, point)

    def ended(target: ServerTarget, *arguments: Any, **options: Any) -> Any:
        execute(place, f"SELECT pg_terminate_backend({target._session.info.backend_pid}, 10000)")
        return method(target, *arguments, **options)

    monkeypatch.setattr(ServerTarget, point, ended)
    with pytest.raises(ns.StoreUnavailableError, match=schema):
        copy(data, address(place, schema), finish=True)
    monkeypatch.undo()
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


def test_lock_of_another_session_is_not_waited_for_without_bound(
    place: Backend, schema: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(data, address(place, schema))
    monkeypatch.setattr(server, "_PATIENCE", 0.3)
    with psycopg.connect(place.direct_url) as dump:
        dump.execute(f"LOCK TABLE {schema}_copying.copying IN ACCESS SHARE MODE".encode())
        with pytest.raises(ns.StoreBusyError):
            copy(data, address(place, schema), finish=True)
    monkeypatch.undo()
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


FOREIGN = {
    "status": "INSERT INTO workflow_runs (run_id, workflow, status, timestamp) VALUES ('r', 'w', 'paused', 5)",
    "exit_code": "INSERT INTO workflow_runs (run_id, workflow, status, timestamp, exit_code)"
    " VALUES ('r', 'w', 'failed', 5, 1.5)",
    "timestamp": "INSERT INTO workflow_runs (run_id, workflow, status, timestamp) VALUES ('r', 'w', 'failed', 5.5)",
    "run_id": "INSERT INTO workflow_runs (run_id, workflow, status, timestamp) VALUES (NULL, 'w', 'failed', 5)",
    "digest": "UPDATE append_keys SET digest = 'text'",
    "appended_at": f"UPDATE append_keys SET appended_at = {2**62}",
}


@pytest.mark.parametrize("field", FOREIGN)
def test_what_a_server_does_not_take_is_named(place: Backend, schema: str, data: Path, field: str) -> None:
    """Other programs write to a data directory; a half copy stays one."""
    with ns.Store(data) as store:
        store.logs.append("system", "once", key="key")
    foreign_sql(data / "logs.db", FOREIGN[field])
    with pytest.raises(ns.CorruptStoreError, match=f"has the {field} .*at the source"):
        copy(data, address(place, schema), finish=True)
    foreign_sql(data / "logs.db", "DELETE FROM workflow_runs")
    foreign_sql(data / "logs.db", "DELETE FROM append_keys")
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


def test_lease_of_any_length_travels(place: Backend, schema: str, data: Path) -> None:
    with ns.Store(data) as store:
        store.logs.create_workflow_run("run", "build", timestamp=at(5))
        claim = store.logs.claim_workflow_run("owner", lease=1e15)
        assert claim is not None
    copy(data, address(place, schema), finish=True)
    with opened(place, schema) as log:
        assert log.append("system", "held", claim=claim).id > 0


def test_role_that_reads_is_a_source(place: Backend, schema: str, data: Path, tmp_path: Path) -> None:
    """With what the documentation names (docs/beyond-one-machine.md, Roles)."""
    copy(data, address(place, schema), finish=True)
    with role(place, f"reader_{schema}") as reader:
        execute(place, f"GRANT USAGE ON SCHEMA {schema} TO {reader}")
        execute(place, f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader}")
        with pytest.raises(ns.StoreIOError, match="log_id"):
            copy(address(place, schema, user=reader), tmp_path / "home")
        execute(place, f"GRANT SELECT ON SEQUENCE {schema}.log_id, {schema}.given_id TO {reader}")
        assert copy(address(place, schema, user=reader), tmp_path / "home", finish=True).is_finished


@pytest.mark.parametrize(
    "url", ["postgresql://u:geh eim@h/x", "postgresql://u@h/x?password=geh&eim", "postgresql://u:geh%zzeim@h"]
)
def test_message_about_a_wrong_url_has_no_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="no URL of PostgreSQL") as refused:
        copy(url, tmp_path / "target")
    assert "geh" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_day_of_an_unfinished_copy_is_copied_anew(place: Backend, schema: str, data: Path, damage: str) -> None:
    copy(data, address(place, schema))
    path = min((place.directory / "days").glob("*.jsonl"))
    damage_file(path, damage)
    if damage == "changed":
        with pytest.raises(ns.ArchiveCorruptError, match="copy again"):
            copy(data, address(place, schema), finish=True)
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


def expire_first_day(data: Path) -> None:
    """What a cron job does at the source."""
    with ns.Store(data) as store:
        assert store.logs.expire_archive(before=day(1))


@pytest.mark.parametrize("step", ["bring", "index"])
def test_day_that_expires_while_a_copy_is_finished(
    place: Backend, schema: str, data: Path, kind: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call says that the source was written to; once nothing is written any more, one is finished."""
    with ns.Store(data) as store:
        for number in range(6):
            payload = '{"role":"user","content":"x"}'
            store.logs.append("workflow", "thread_workflow_message", "run", payload, at(number))
        store.logs.upsert_workflow_run(
            ("workflow", "completed", "run", None, at(5)), ns.WorkflowRun("run", "build", "completed", at(5), 0)
        )
        store.logs.archive_logs(now=at(4), retention=timedelta(0))
    owner: Any = Days if step == "bring" else ServerTarget
    monkeypatch.setattr(owner, step, followed_by(getattr(owner, step), lambda: expire_first_day(data)))
    with pytest.raises(ns.NerveStoreError, match="written to while"):
        finish(place, schema, data, kind)
    monkeypatch.undo()
    assert finish(place, schema, data, kind)
    archive = place.directory / "days" if kind == "files" else (place.directory / "objects").as_uri()
    with ns.Store(data) as source, PostgresLogStore(place.direct_url, schema=schema, archive=archive) as target:
        assert target.query(archived=True) == source.logs.query(archived=True)
        assert target.archived_days()[0].day == day(1)
        # Those that are left are numbered from 1.
        assert [one.round for one in target.get_thread_rounds("run", limit=100)] == [5, 4, 3, 2, 1]
        assert target.verify().ok


@pytest.mark.parametrize("is_noted", [False, True])
def test_day_of_an_interrupted_copy_expires(
    place: Backend, schema: str, data: Path, kind: str, is_noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the call was killed before it noted the file that it had stored, or after."""
    note = ServerTarget.note_day

    def interrupted(target: ServerTarget, item: Any) -> None:
        if is_noted:
            note(target, item)
        raise KeyboardInterrupt

    monkeypatch.setattr(ServerTarget, "note_day", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finish(place, schema, data, kind)
    monkeypatch.undo()
    expire_first_day(data)
    assert finish(place, schema, data, kind)
    check_finished(place, schema, data, kind)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, ns.StoreFullError), (errno.EDQUOT, ns.StoreFullError), (errno.EIO, ns.StoreIOError)],
)
def test_disk_of_the_day_files_is_named(
    place: Backend, schema: str, data: Path, side: str, number: int, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the server."""

    def failing(*_arguments: object) -> Iterator[bytes]:
        with shelf.named(str(data / "archive")) if side == "source" else nullcontext():
            raise OSError(number, os.strerror(number))
        yield b""

    monkeypatch.setattr(source, "file_pieces", failing)
    with pytest.raises(expected) as refused:
        copy(data, address(place, schema), finish=True)
    assert refused.value.path == str(data / "archive" if side == "source" else place.directory / "days")
    monkeypatch.undo()
    copy(data, address(place, schema), finish=True)
    check_same(place, schema, data)


def test_days_in_a_directory_elsewhere_are_told(place: Backend, schema: str, data: Path, tmp_path: Path) -> None:
    (data / "archive" / "logs").rename(tmp_path / "elsewhere")
    with pytest.raises(ns.ArchiveCorruptError, match=r"archive_dir.*symbolic link") as refused:
        copy(data, address(place, schema))
    assert refused.value.path == str(data / "archive" / "logs" / f"{day(0)}.jsonl")
    (data / "archive" / "logs").symlink_to(tmp_path / "elsewhere")
    assert copy(data, address(place, schema), finish=True).is_finished
    check_same(place, schema, data)


@pytest.mark.parametrize("mask", [0, 0o022])
def test_modes(place: Backend, schema: str, data: Path, mask: int) -> None:
    """Those that SECURITY.md promises, whatever the process's mask."""
    before = os.umask(mask)
    try:
        top = place.directory / "deep"
        for finish in (False, True):
            copy(data, address(place, schema, days="deep/er"), finish=finish)
            found = {path: stat.S_IMODE(path.stat().st_mode) for path in (top, *top.rglob("*"))}
            assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
            assert {mode for path, mode in found.items() if path.is_file()} == {0o600}, found
    finally:
        os.umask(before)
