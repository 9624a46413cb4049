"""Sources that lost acknowledged rows, or were brought back, and wrote nothing since: their ids are given to none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from nerve_store.moving import copy
from nerve_store.moving.reserve import reserved_ids
from postgres.restores import RESTORES, Database, as_version_4
from support.foreign import foreign_sql
from support.servers import Server, free_port
from test_lost_commits import append_and_die, empty, overwrite, remove_with_index

pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")


def _nothing(database: Database) -> None:
    """Of what needs no backup."""


def _crash(database: Database) -> None:
    database.server.crash()
    database.server.start()


def _rows_alone(database: Database) -> None:
    database.make_anew()
    database.open().close()
    rows = (entry for entry in database.entries() if " TABLE DATA " in entry)
    database.load_entries(entry for entry in rows if " alive " not in entry)


def _by_hand(database: Database) -> None:
    database.execute("DELETE FROM nerve.logs WHERE type = 'lost'; SELECT setval('nerve.log_id', 3)")


def _older_version(database: Database) -> None:
    database.restore()
    as_version_4(database)


WAYS: dict[str, tuple[Callable[[Database], None], Callable[[Database], None]]] = {
    **RESTORES,
    "crash": (_nothing, _crash),
    "rows alone": (Database.dump, _rows_alone),
    "sequence set by hand": (_nothing, _by_hand),
    "older version": (Database.dump, _older_version),
}


@pytest.fixture
def alone(own_server: Server, tmp_path: Path) -> Database:
    """A database on a server of its own."""
    return Database(own_server, tmp_path, str(tmp_path / "days"))


Lost = tuple[list[int], ns.RunClaim]


def lose(database: Database, back_up: Callable[[Database], None]) -> Lost:
    """The ids and the claim of what was acknowledged after the backup."""
    with database.open(archive=None) as log:
        log.append_many([("system", "kept", None, None, None)] * 3)
        log.create_workflow_run("run-1", "deploy")
    back_up(database)
    with database.open(archive=None) as log:
        ids = [log.append("system", "lost").id for _ in range(5)]
        claim = log.claim_workflow_run("lost", lease=timedelta(minutes=5))
        assert claim is not None
    return [*ids, claim.token], claim


def check(log: ns.LogStore | ns.PostgresLogStore, lost: list[int], claim: ns.RunClaim | None = None) -> None:
    """It gives other ids, and the claim is lost."""
    there = {row.id for row in log.query()}
    given = [log.append("system", "new").id for _ in range(3)]
    assert given[0] > max(lost)
    assert given == sorted(set(given) - there)
    if claim is not None and claim.token not in there:
        assert log.claim_workflow_run("new") is not None
        with pytest.raises(ns.ClaimLostError):
            log.renew_claim(claim)
    assert log.verify().ok


def check_copies_of(source: str, database: Database, directory: Path, lost: Lost) -> None:
    assert copy(source, directory / "home", finish=True).is_finished
    assert copy(source, f"{database.server.url}?schema=moved", finish=True).is_finished
    with ns.LogStore(directory / "home" / "logs.db") as log:
        check(log, *lost)
    with ns.PostgresLogStore(database.server.url, schema="moved") as moved:
        check(moved, *lost)


@pytest.mark.parametrize("way", WAYS)
def test_copy_of_a_server_that_lost_rows_gives_their_ids_to_none(alone: Database, way: str, tmp_path: Path) -> None:
    back_up, restore = WAYS[way]
    lost = lose(alone, back_up)
    restore(alone)
    check_copies_of(alone.url, alone, tmp_path, lost)


def test_copy_of_a_standby_gives_no_id_that_it_has_not_received(alone: Database, tmp_path: Path) -> None:
    lost = lose(alone, Database.back_up_base)
    primary = alone.server
    data = primary.directory / "standby" / "data"
    shutil.copytree(primary.directory / "cold", data)
    (data / "standby.signal").touch()
    owner = (primary.directory / "data").stat()
    for path in (data.parent, data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
        if path.is_dir():
            path.chmod(0o700)
    standby = Server(primary.version, primary.programs, data.parent, free_port())
    standby.start()
    try:
        check_copies_of(standby.database_url(alone.name), alone, tmp_path, lost)
    finally:
        standby.stop()


def test_copy_of_a_server_that_lost_nothing_goes_on_with_the_next_id(alone: Database, tmp_path: Path) -> None:
    with alone.open(archive=None) as log:
        last = [log.append("system", "tick").id for _ in range(3)][-1]
    copy(alone.url, tmp_path / "home", finish=True)
    with ns.LogStore(tmp_path / "home" / "logs.db") as log:
        assert log.append("system", "new").id == last + 1


def _lose_log(damage: Callable[[Path], None]) -> Callable[[Path], int]:
    def lose_log(data: Path) -> int:
        with ns.LogStore(data / "logs.db") as log:
            log.append("system", "kept")
        last = append_and_die(data / "logs.db", [3, 300, 1], "normal")
        damage(data / "logs.db-wal")
        return last

    return lose_log


def _change_sequence(statement: str) -> Callable[[Path], int]:
    def change_sequence(data: Path) -> int:
        with ns.LogStore(data / "logs.db") as log:
            last = [log.append("system", "tick").id for _ in range(9)][-1]
        for change in ("DELETE FROM logs WHERE id > 3", statement):
            foreign_sql(data / "logs.db", change)
        return last

    return change_sequence


LOSSES: dict[str, Callable[[Path], int]] = {
    "killed": _lose_log(lambda wal: None),
    "log removed": _lose_log(remove_with_index),
    "log emptied": _lose_log(empty),
    "log overwritten": _lose_log(overwrite),
    "sequence lowered": _change_sequence("UPDATE sqlite_sequence SET seq = 3"),
    "sequence removed": _change_sequence("DELETE FROM sqlite_sequence"),
    "sequence at the end": _change_sequence("UPDATE sqlite_sequence SET seq = 9223372036854775807"),
    "sequence is no number": _change_sequence("UPDATE sqlite_sequence SET seq = 'x'"),
}
"""What becomes of a data directory; each gives the last id that was acknowledged before."""


@pytest.mark.parametrize("target", ["server", "directory"])
@pytest.mark.parametrize("loss", LOSSES)
def test_copy_of_a_directory_that_lost_rows_gives_their_ids_to_none(
    server: Server, tmp_path: Path, loss: str, target: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    last = LOSSES[loss](data)
    if target == "server":
        database = Database(server, tmp_path, "")
        try:
            assert copy(data, database.url, finish=True).is_finished
            with ns.PostgresLogStore(database.url) as moved:
                check(moved, [last])
        finally:
            database.remove()
    else:
        pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
        (tmp_path / "bucket").mkdir()
        remote = (tmp_path / "bucket").as_uri()
        assert copy(data, tmp_path / "home", remote=remote, finish=True).is_finished
        with ns.Store(tmp_path / "home", remote=remote) as store:
            check(store.logs, [last])


def test_reserve_of_ids_that_is_damaged_counts_for_nothing(tmp_path: Path) -> None:
    database = str(tmp_path / "logs.db")
    reserve = tmp_path / "logs.db-ids"
    assert reserved_ids(database) == 0
    last = append_and_die(tmp_path / "logs.db", [3, 300, 1])
    whole = reserve.read_bytes()
    bound = reserved_ids(database)
    assert bound > last
    for at in (0, 8, 15, 24, 39, 40, 47):
        damaged = bytearray(whole)
        for slot in (0, 512):
            damaged[slot + at] ^= 0x40
        reserve.write_bytes(damaged)
        assert reserved_ids(database) == 0
    reserve.write_bytes(whole[:20])
    assert reserved_ids(database) == 0
    # A torn write leaves the slot before.
    reserve.write_bytes(whole[:48] + bytes(len(whole) - 48))
    assert 0 < reserved_ids(database) <= bound
