"""Damaged day files: what `doctor` advises, and what `reindex` says that it did with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_script, foreign_sql
from support.cli import DAY, T0, Cli

DAYS = ("2024-03-11", "2024-03-12", "2024-03-13")


@pytest.fixture(params=["jsonl", "jsonl.zst"])
def archived(cli: Cli, request: pytest.FixtureRequest) -> tuple[Cli, Path]:
    """A directory with three archived days, and the file of the one in the middle."""
    with ns.LogStore(cli.data / "logs.db") as store:
        for number in range(len(DAYS)):
            store.append_many(("s", "t", None, f"payload {n}", T0 + number * DAY + n) for n in range(40))
        store.archive_logs(compression="zstd" if request.param == "jsonl.zst" else None)
    return cli, cli.data / f"archive/logs/{DAYS[1]}.{request.param}"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.find(b"payload 7") + 8 if b"payload 7" in content else 20] ^= 1
    path.write_bytes(content)


def flip_and_keep_the_time(path: Path) -> None:
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def insert_a_digit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"payload 7", b"payload 77", 1) + b"\n" * path.name.endswith("zst"))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-25])


def lose_rows(path: Path) -> None:
    if path.name.endswith("zst"):
        shutil.copy(path.with_name(f"{DAYS[0]}.jsonl.zst"), path)
    else:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_rows_of_another_day(path: Path) -> None:
    shutil.copy(path.with_name(path.name.replace(DAYS[1], DAYS[2])), path)


HARMS = [flip, flip_and_keep_the_time, insert_a_digit, cut_off, lose_rows, empty, put_rows_of_another_day, Path.unlink]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_day_is_to_be_restored_first(archived: tuple[Cli, Path], harm: Callable[[Path], object]) -> None:
    cli, path = archived
    harm(path)
    outcome = cli("doctor", "--json")
    assert outcome.exit_code == 1
    found = [item for item in outcome.json["findings"] if item["level"] == "error"]
    assert [item["check"] for item in found if str(path) in item["message"]][-1:] == ["verification"]
    for finding in found:
        assert finding["action"].startswith(("restore the file from a backup", "put the file back from a backup"))
        assert "()" not in finding["action"]


@pytest.mark.parametrize("harm", HARMS)
def test_reindex_names_what_it_did_with_each_damaged_day(
    archived: tuple[Cli, Path], harm: Callable[[Path], object]
) -> None:
    cli, path = archived
    rows = cli("logs", "--all", "--archived", "--json").out
    shutil.copy2(path, cli.data / "kept")
    harm(path)
    outcome = cli("reindex")
    assert outcome.exit_code == 1
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("nerve-store: error: ")]
    assert line.startswith(f"nerve-store: error: {path}: ")
    is_listed = DAYS[1] in [day["day"] for day in cli("archive", "list", "--json").json]
    assert is_listed != ("was forgotten" in line)
    # What it took for the truth is named once; what is damaged still, each time.
    again = cli("reindex", "--json")
    assert (again.exit_code == 1) == ("stays listed" in line) == any(str(path) in it for it in again.json["problems"])

    shutil.copy2(cli.data / "kept", path)
    cli("reindex")
    assert cli("reindex").exit_code == 0
    assert cli("doctor").exit_code == 0
    assert cli("logs", "--all", "--archived", "--json").out == rows


def test_doctor_says_reindex_where_that_helps(archived: tuple[Cli, Path]) -> None:
    cli, _ = archived
    foreign_sql(cli.data / "logs.db", "DELETE FROM archive_refs")
    foreign_sql(cli.data / "logs.db", "UPDATE archive_days SET kinds = '[]'")
    errors = [item for item in cli("doctor", "--json").json["findings"] if item["level"] == "error"]
    assert errors
    assert all(item["action"].startswith("reindex ") for item in errors), errors
    assert cli("reindex").exit_code == 0
    assert cli("doctor").exit_code == 0


def test_lost_rows_are_not_accepted_by_default(cli: Cli) -> None:
    with ns.LogStore(cli.data / "logs.db") as store:
        store.append_many(("s", "t", None, f"payload {n}", T0 + n) for n in range(5000))
        store.reindex()
    foreign_sql(cli.data / "logs.db", "DROP TRIGGER IF EXISTS logs_deleted")
    foreign_sql(cli.data / "logs.db", "DELETE FROM logs WHERE id = 17")
    actions = [item["action"] for item in cli("doctor", "--json").json["findings"] if item["level"] == "error"]
    assert any(action.startswith("restore a backup, or accept it with reindex") for action in actions), actions


def test_files_of_later_jobs_beside_an_older_database_are_no_damage(archived: tuple[Cli, Path], tmp_path: Path) -> None:
    cli, path = archived
    shutil.copy2(cli.data / "logs.db", tmp_path / "older.db")
    with ns.LogStore(cli.data / "logs.db") as store:
        store.append("s", "late", None, None, T0 + DAY)
        store.archive_logs(compression="zstd" if path.name.endswith("zst") else None)
    rows = cli("logs", "--all", "--archived", "--json").out
    for left in cli.data.glob("logs.db*"):
        left.unlink()
    shutil.copy2(tmp_path / "older.db", cli.data / "logs.db")
    outcome = cli("reindex", "--json")
    assert (outcome.exit_code, outcome.json["problems"], outcome.err) == (0, [], "")
    assert cli("logs", "--all", "--archived", "--json").out == rows


def test_a_file_that_a_killed_job_published_is_no_damage(archived: tuple[Cli, Path], tmp_path: Path) -> None:
    """Between the renaming of the file and the commit that makes it the day's."""
    cli, path = archived
    database, before = cli.data / "logs.db", tmp_path / "before.db"
    shutil.copy2(database, before)
    with ns.LogStore(database) as store:
        store.append("s", "late", None, None, T0 + DAY)
        store.archive_logs(compression="zstd" if path.name.endswith("zst") else None)
    rows = cli("logs", "--all", "--archived", "--json").out
    moved = [
        f"UPDATE main.{table} SET state = 1 WHERE day = '{DAYS[1]}';"
        f"INSERT INTO main.{table} SELECT * FROM before.{table} WHERE day = '{DAYS[1]}';"
        for table in ("archive_days", "archive_contents")
    ]
    foreign_script(database, f"ATTACH '{before}' AS before; {''.join(moved)}")
    outcome = cli("reindex", "--json")
    assert (outcome.exit_code, outcome.json["problems"], outcome.err) == (0, [], "")
    assert cli("logs", "--all", "--archived", "--json").out == rows
    assert cli("verify").exit_code == 0
