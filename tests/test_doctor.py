"""`nerve-store doctor`: each thing that it looks for, where it is so."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import nerve_store as ns
from nerve_store.cli import doctor_files
from support import foreign_sql
from support.cli import DAY, T0, Cli
from support.disks import tiny_disk
from support.processes import start_child

Found = list[tuple[str, str, str]]
"""Level, what was looked at, and message and action in one."""


def findings(cli: Cli, *arguments: str) -> Found:
    outcome = cli("doctor", "--json", *arguments)
    found = [
        (finding["level"], finding["check"], f"{finding['message']} -> {finding['action']}")
        for finding in outcome.json["findings"]
    ]
    assert outcome.exit_code == int(any(level == "error" for level, _, _ in found))
    assert all(level == "ok" or not text.endswith("None") for level, _, text in found), found
    return found


def only(found: Found, check: str, level: str) -> str:
    (text,) = [text for its_level, its_check, text in found if (its_level, its_check) == (level, check)]
    return text


def lose_a_day(cli: Cli) -> str:
    path = next((cli.data / "archive/logs").glob("2*"))
    path.unlink()
    return path.name


def give_out_fewer_ids(cli: Cli) -> str:
    foreign_sql(cli.data / "logs.db", "DELETE FROM logs")
    foreign_sql(cli.data / "logs.db", "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'logs'")
    return "the database gave out 1 -> open the store for writing once"


def write_in_the_future(cli: Cli) -> str:
    with ns.LogStore(cli.data / "logs.db") as store:
        store.append("system", "future", None, None, time.time_ns() // 1_000_000 + DAY)
    return "still to come"


def have_another_schema(cli: Cli) -> str:
    foreign_sql(cli.data / "logs.db", "PRAGMA user_version = 2000000000")
    return "upgrade"


def damage_the_header(cli: Cli) -> str:
    with (cli.data / "logs.db").open("r+b") as file:
        file.write(b"\xa5" * 4096)
    return f"nerve-store salvage {cli.data} saved.db"


def leave_a_backup_unfinished(cli: Cli) -> str:
    (cli.data / ".nerve-store-unfinished").touch()
    return "make the backup again"


def move_a_blob_aside(cli: Cli) -> str:
    (cli.data / "blobs/.quarantine").mkdir(exist_ok=True)
    (cli.data / "blobs/.quarantine/damaged").touch()
    return "1 damaged blob"


def leave_the_mark_of_a_copy(cli: Cli) -> str:
    (cli.data / "archive/logs/.copying").touch()
    return "nerve-store copy once more"


def leave_staged_files(cli: Cli) -> str:
    (cli.data / "archive/logs/.export-1").touch()
    (cli.data / ".stage-2").touch()
    return "2 staged files"


def open_it_to_others(cli: Cli) -> str:
    os.chmod(cli.data / "logs.db", 0o644)
    return f"chmod go= {cli.data / 'logs.db'}"


def give_it_to_another_user(cli: Cli) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    os.chown(cli.data / "logs.db", 12345, -1)
    return "chown"


def lose_the_database(cli: Cli) -> str:
    (cli.data / "logs.db").unlink()
    return "is missing"


def lose_all_but_the_write_ahead_log(cli: Cli) -> str:
    shutil.rmtree(cli.data / "archive")
    (cli.data / "logs.db").rename(cli.data / "logs.db-wal")
    return "logs.db-wal -> put it back"


def empty_the_database(cli: Cli) -> str:
    (cli.data / "logs.db").write_bytes(b"")
    return "is empty, and what belongs to it is there"


def have_blobs_alone(cli: Cli) -> str:
    shutil.rmtree(cli.data / "archive")
    for path in cli.data.glob("logs.db*"):
        path.unlink()
    return "there is none"


def have_nothing(cli: Cli) -> str:
    shutil.rmtree(cli.data)
    cli.data.mkdir(0o700)
    return "a data directory? -> name the data directory"


@pytest.mark.parametrize(
    ("make", "level", "check"),
    [
        (lose_a_day, "error", "archive"),
        (give_out_fewer_ids, "warning", "ids"),
        (write_in_the_future, "warning", "clock"),
        (have_another_schema, "error", "schema"),
        (damage_the_header, "error", "database"),
        (leave_a_backup_unfinished, "error", "leftovers"),
        (leave_staged_files, "ok", "leftovers"),
        (leave_the_mark_of_a_copy, "warning", "leftovers"),
        (move_a_blob_aside, "warning", "blobs"),
        (open_it_to_others, "warning", "permissions"),
        (give_it_to_another_user, "warning", "owner"),
        (lose_the_database, "error", "database"),
        (lose_all_but_the_write_ahead_log, "error", "database"),
        (empty_the_database, "error", "database"),
        (have_blobs_alone, "warning", "database"),
        (have_nothing, "error", "database"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_so_is_found(wide: Cli, make: Callable[[Cli], str], level: str, check: str) -> None:
    before = findings(wide, "--quick")
    assert (level, check) not in [finding[:2] for finding in before]
    expected = make(wide)
    assert expected in only(findings(wide, "--quick"), check, level)


@pytest.mark.parametrize("lose", [lose_the_database, empty_the_database])
def test_a_database_that_is_gone_is_not_begun_anew(wide: Cli, tmp_path: Path, lose: Callable[[Cli], str]) -> None:
    lose(wide)
    before = sorted((path, path.stat().st_size) for path in wide.data.rglob("*"))
    for words in (
        "runs",
        "archive",
        "reindex",
        "meta set a b",
        f"backup {tmp_path / 'backup'}",
        "archive restore 2024-03-11",
    ):
        assert "put it back, or restore a backup" in wide.refused(*words.split()), words
    assert wide("verify").exit_code == 1
    assert sorted((path, path.stat().st_size) for path in wide.data.rglob("*")) == before


def test_a_file_of_no_day_is_to_be_moved(wide: Cli) -> None:
    (wide.data / "archive" / "logs" / "1969-12-31.jsonl").touch()
    assert only(findings(wide), "verification", "error").endswith("so that its rows are not read -> move it elsewhere")


def test_a_row_that_cannot_be_read_is_no_reason_to_salvage(wide: Cli) -> None:
    foreign_sql(
        wide.data / "logs.db",
        "INSERT INTO logs (source, type, payload, timestamp) VALUES ('system', 'tick', x'00', 5)",
    )
    assert "payload is Blob, not text" in only(findings(wide, "--quick"), "clock", "error")
    found = findings(wide)
    assert "payload is Blob, not text" in only(found, "verification", "error")
    assert all("salvage" not in text for _, _, text in found)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_an_error(wide: Cli, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(doctor_files, "_kind_of_file_system", lambda _: kind)
    assert kind in only(findings(wide, "--quick"), "file system", "error")


def test_memory_is_no_disk_and_space_is_what_a_vacuum_needs(wide: Cli, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "4m"):
        shutil.copytree(wide.data, tmp_path / "disk/data")
        cli = Cli(tmp_path / "disk/data", wide.capsys)
        assert "tmpfs" in only(findings(cli, "--quick"), "file system", "warning")
        assert "free, an archive job or a full vacuum needs" in only(findings(cli, "--quick"), "space", "ok")
        with ns.LogStore(cli.data / "logs.db") as store:
            store.append("system", "large", None, "x" * 1_500_000)
        assert "--incremental-vacuum" in only(findings(cli, "--quick"), "space", "warning")


def test_the_way_out_of_a_full_disk_leads_out_of_it(wide: Cli, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "12m"):
        shutil.copytree(wide.data, tmp_path / "disk/data")
        ballast = tmp_path / "disk/something else"
        ballast.write_bytes(b"x" * 6_000_000)
        cli = Cli(tmp_path / "disk/data", wide.capsys)
        rows = (("system", "large", None, "x" * 20_000, T0 + number * DAY // 20) for number in range(1000))
        with ns.LogStore(cli.data / "logs.db") as store, suppress(ns.StoreFullError):
            for row in rows:
                store.append(*row)
        action = only(findings(cli, "--quick"), "space", "warning").partition(" -> ")[2]
        first, _, then = action.partition("; then ")
        assert first.startswith("free some space beside the store")
        ballast.unlink()
        used = shutil.disk_usage(tmp_path / "disk").used
        outcome = cli(*then.partition(",")[0].split())
        assert outcome.exit_code == 0, outcome
        assert shutil.disk_usage(tmp_path / "disk").used < used


def test_who_pins_a_large_log_is_named(wide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_files, "_LARGE_LOG", 1000)
    child = start_child("hold_snapshot", path=str(wide.data / "logs.db"))
    assert child.stdout is not None
    child.stdout.readline()
    with ns.LogStore(wide.data / "logs.db") as store:
        store.append("system", "tick")
        found = findings(wide, "--quick")
    child.communicate("\n", timeout=60)
    assert str(child.pid) in only(found, "write-ahead log", "warning")
    assert str(child.pid) in only(found, "locks", "ok")


@pytest.mark.parametrize("make", [open_it_to_others, damage_the_header])
def test_commands_to_be_typed_are_quoted(wide: Cli, tmp_path: Path, make: Callable[[Cli], str]) -> None:
    cli = Cli(tmp_path / "data of a 'daemon'", wide.capsys)
    shutil.copytree(wide.data, cli.data)
    make(cli)
    (action,) = [action for _, _, action in findings(cli, "--quick") if "data of" in action and "-> " in action]
    words = shlex.split(action.rpartition("-> ")[2].rpartition(": ")[2])
    assert any(word.startswith(str(cli.data)) for word in words)


def test_what_archiving_would_free(wide: Cli) -> None:
    with ns.LogStore(wide.data / "logs.db") as store:
        store.append_many(("s", "t", None, "x" * 1000, T0) for _ in range(1000))
    said = only(findings(wide, "--quick"), "archiving", "ok")
    assert "rows older than 30 days, about 1." in said
    assert "MB" in said


def test_what_archiving_would_leave_is_not_named(wide: Cli) -> None:
    """Rows of active runs, and of a day that is not over for long enough."""
    with ns.Store(wide.data) as store:
        store.logs.archive_logs()
        now = time.time_ns() // 1_000_000
        store.logs.append("system", "tick", None, "x", now - 30 * DAY - 1)
        store.logs.create_workflow_run("run-old", "poet", timestamp=now - 90 * DAY)
        store.logs.append("workflow", "thread_workflow_message", "run-old", "{}", now - 80 * DAY)
    assert "archiving" not in [check for _, check, _ in findings(wide, "--quick")]
    with ns.Store(wide.data) as store:
        store.logs.transition("run-old", "killed")
    assert "would move 2 rows older than 30 days" in only(findings(wide, "--quick"), "archiving", "ok")


def test_a_sound_store_has_no_findings_but_of_the_disk(wide: Cli) -> None:
    assert {check for level, check, _ in findings(wide) if level != "ok"} <= {"file system"}


def test_the_same_damage_is_told_once(cli: Cli) -> None:
    path = cli.data / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("daemon", "tick", None, f"{n} of a hundred", T0) for n in range(60_000)])
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 8192 * 4096)
        file.write(os.urandom(16 * 4096))
    found = [finding for finding in findings(cli) if finding[0] == "error"]
    assert found
    assert len(found) == len(set(found)), found
