"""The command line and the archive: `archive`, `archive list`, `archive cat`, `archive restore`, `logs --archived`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_sql
from support.archive import MARK
from support.cli import DAY, T0, Cli
from support.processes import start_child


@pytest.fixture
def archived(filled: Cli) -> Cli:
    assert filled("archive").exit_code == 0
    return filled


def day_files(cli: Cli) -> list[str]:
    return sorted(path.name for path in (cli.data / "archive" / "logs").iterdir() if path.name != MARK)


# --- moving days -------------------------------------------------------------------------------------------------


def test_archive_moves_old_days_and_says_so(filled: Cli) -> None:
    dry = filled("archive", "--dry-run", "--json").json
    assert dry["dry_run"] is True
    assert [day["added_rows"] for day in dry["days"]] == [5, 1, 1]
    assert filled("logs", "--json").out.count("\n") == 8

    result = filled("archive", "--max-days", "1", "--json").json
    assert [(day["day"], day["added_rows"], day["row_count"]) for day in result["days"]] == [("2024-03-11", 5, 5)]
    assert "moved 2 rows of 2 days" in filled("archive", "--retention-days", "30", "--vacuum").out
    assert filled("archive", "--json").json["pinned_rows"] == 1
    assert "1 row of active runs" in filled("archive").out
    assert [entry["id"] for entry in filled("logs", "--json").json_lines] == [7]


def test_archive_keeps_what_is_younger_than_the_retention(filled: Cli) -> None:
    assert filled("archive", "--retention-days", "300000", "--json").json["days"] == []


def test_archive_compresses_what_gains_rows(filled: Cli) -> None:
    assert filled("archive", "--zstd", "--max-days", "1").exit_code == 0
    assert day_files(filled) == ["2024-03-11.jsonl.zst"]
    text = filled("archive").out
    assert day_files(filled) == ["2024-03-11.jsonl.zst", "2024-03-12.jsonl", "2024-03-14.jsonl"]
    assert "moved 2 rows of 2 days\nthe files of these days have" in text
    with ns.LogStore(filled.data / "logs.db") as store:
        store.append("system", "late", None, None, T0 + DAY)
    (day,) = filled("archive", "--zstd", "--json").json["days"]
    assert (day["format"], day["added_rows"], day["row_count"]) == ("jsonl.zst", 1, 2)
    assert day_files(filled) == ["2024-03-11.jsonl.zst", "2024-03-12.jsonl.zst", "2024-03-14.jsonl"]


def test_a_dry_run_says_the_sizes_that_come_true(filled: Cli) -> None:
    told = filled("archive", "--zstd", "--dry-run", "--json").json
    assert not (filled.data / "archive").exists()
    done = filled("archive", "--zstd", "--json").json
    assert told["days"]
    for one, other in zip(told["days"], done["days"], strict=True):
        assert {**one, "archived_at": 0} == {**other, "archived_at": 0}


def test_archive_vacuums_at_once_or_in_slices(filled: Cli) -> None:
    with ns.LogStore(filled.data / "logs.db") as store:
        store.append_many([("system", "tick", None, "x" * 1000, T0 + 5 * DAY) for _ in range(1000)])
    assert filled("archive", "--max-days", "1", "--json").json["vacuumed"] is False
    result = filled("archive", "--incremental-vacuum", "--json").json
    assert (sum(day["added_rows"] for day in result["days"]), result["vacuumed"]) == (1002, True)
    assert filled("stats", "--json").json["logs"]["free_bytes"] == 0
    assert filled("archive", "--vacuum", "--json").json["vacuumed"] is True
    assert "not allowed with" in filled.misused("archive", "--vacuum", "--incremental-vacuum")


def test_the_predecessors_database_shrinks_in_slices_after_a_full_vacuum(
    upstream_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(upstream_data, capsys)
    assert "vacuum it once in full" in cli.refused("archive", "--incremental-vacuum")
    for option in ("--vacuum", "--incremental-vacuum"):
        outcome = cli("archive", option)
        assert (outcome.exit_code, outcome.err) == (0, "")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def put_a_damaged_one_beside(path: Path) -> None:
    path.rename(path.with_name("2024-03-20.jsonl"))
    path.with_name("2024-03-20.jsonl").write_bytes(b"no row\n")


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"planner", b"somebody else"))


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--zstd", "--vacuum")], ids=str)
@pytest.mark.parametrize("harm", [damage, shorten, Path.unlink, put_a_damaged_one_beside, rewrite])
def test_a_job_that_finds_a_problem_exits_with_1_and_names_it(
    archived: Cli, harm: Callable[[Path], object], arguments: tuple[str, ...]
) -> None:
    harm(archived.data / "archive/logs/2024-03-11.jsonl")
    outcome = archived("archive", *arguments)
    assert outcome.exit_code == 1
    lines = outcome.err.splitlines()
    assert lines
    for line in lines:
        assert line.startswith(f"nerve-store: error: {archived.data}/archive/logs/2024-03-"), line
    if "--json" in arguments:
        found = [f"nerve-store: error: {item['path']}: {item['reason']}" for item in outcome.json["problems"]]
        assert found == lines
    else:
        assert "moved 0 rows" in outcome.out


def test_a_dry_run_names_a_missing_day(archived: Cli) -> None:
    (archived.data / "archive/logs/2024-03-11.jsonl").unlink()
    assert "2024-03-11.jsonl: it is missing, and held 5 rows" in archived.refused("archive", "--dry-run")


def test_rows_that_stay_are_not_said_to_be_of_another_time(filled: Cli) -> None:
    foreign_sql(filled.data / "logs.db", "UPDATE logs SET payload = x'ff' WHERE id = 1")
    foreign_sql(filled.data / "logs.db", "UPDATE logs SET timestamp = -5 WHERE id = 2")
    outcome = filled("archive")
    assert outcome.exit_code == 0
    assert "2 rows stay for a timestamp of no year from 1970 to 9999, or a text that is bytes" in outcome.out


@pytest.mark.parametrize("option", ["--vacuum", "--incremental-vacuum"])
def test_a_vacuum_that_an_open_read_prevented_is_told(filled: Cli, option: str) -> None:
    with ns.LogStore(filled.data / "logs.db") as store:
        store.append_many([("system", "tick", None, "x" * 1000, T0 + 5 * DAY) for _ in range(1000)])
    child = start_child("hold_snapshot", path=str(filled.data / "logs.db"))
    assert child.stdout is not None
    child.stdout.readline()
    outcome = filled("archive", option)
    child.communicate("\n", timeout=60)
    assert outcome.exit_code == 0
    assert outcome.err.startswith("nerve-store: warning: no free space was returned")
    assert "returned free space" not in outcome.out
    for again in (option, option):
        assert filled("archive", again).err == ""
    assert filled("archive", option, "--dry-run").err == ""


HOLD = """
import sys
import nerve_store as ns

with ns.LogStore(sys.argv[1]) as store:

    def hold(done, total):
        if done == 0:
            print("held", flush=True)
            sys.stdin.read()

    store.archive_logs(max_days=1, progress=hold)
"""


@pytest.fixture
def other_archiver(filled: Cli) -> subprocess.Popen[str]:
    """Another process in the middle of an archive job, which it ends when its standard input does."""
    command = [sys.executable, "-c", HOLD, str(filled.data / "logs.db")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_archiver_is_refused_or_waits(filled: Cli, other_archiver: subprocess.Popen[str]) -> None:
    refused = filled.refused("archive")
    assert "archive" in refused
    assert "another" in refused
    assert "--wait" not in refused
    timer = threading.Timer(0.3, other_archiver.communicate)
    timer.start()
    outcome = filled("archive", "--wait", "30", "--json")
    timer.join()
    assert other_archiver.returncode == 0
    assert outcome.exit_code == 0
    assert [entry["id"] for entry in filled("logs", "--archived", "--json").json_lines] == [1, 2, 3, 4, 5, 6, 7, 8]


# --- list, cat, restore ------------------------------------------------------------------------------------------


def test_archive_list_tells_what_the_files_are(filled: Cli) -> None:
    assert filled("archive", "list", "--json").json == []
    filled("archive", "--max-days", "1")
    filled("archive", "--zstd")
    listed = filled("archive", "list", "--json").json
    assert [(day["day"], day["format"], day["row_count"], day["first_id"], day["last_id"]) for day in listed] == [
        ("2024-03-11", "jsonl", 5, 1, 5),
        ("2024-03-12", "jsonl.zst", 1, 6, 6),
        ("2024-03-14", "jsonl.zst", 1, 8, 8),
    ]
    for day in listed:
        content = Path(day["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (day["size"], day["sha256"])
        assert "added_rows" not in day
    heading, first, *_ = filled("archive", "list").lines
    assert heading.split() == ["day", "format", "rows", "first", "id", "last", "id", "bytes", "archived", "sha256"]
    cells = first.split()
    assert cells[:6] == ["2024-03-11", "jsonl", "5", "1", "5", str(listed[0]["size"])]
    assert cells[6].startswith("20")
    assert cells[7] == listed[0]["sha256"]


@pytest.mark.parametrize("compression", [[], ["--zstd"]], ids=["plain", "zstd"])
def test_archive_cat_prints_the_rows_of_a_day(filled: Cli, compression: list[str]) -> None:
    before = filled("logs", "--json", "--until", "2024-03-11").json_lines
    filled("archive", *compression)
    assert filled("archive", "cat", "2024-03-11", "--json").json_lines == before
    assert len(filled("archive", "cat", "2024-03-11").lines) == 6
    assert "2024-03-13" in filled.refused("archive", "cat", "2024-03-13")


def test_archive_restore_puts_a_day_back_once(filled: Cli) -> None:
    before = filled("logs").out
    filled("archive")
    assert filled("archive", "restore", "2024-03-11", "--json").json == {"day": "2024-03-11", "restored_rows": 5}
    assert [entry["id"] for entry in filled("logs", "--json").json_lines] == [1, 2, 3, 4, 5, 7]
    assert "restored 0 rows of 2024-03-11" in filled("archive", "restore", "2024-03-11").out
    for day in ("2024-03-12", "2024-03-14"):
        assert "restored 1 row of" in filled("archive", "restore", day).out
    assert filled("logs").out == before
    assert "2024-03-13" in filled.refused("archive", "restore", "2024-03-13")
    # The files are still there, so that nothing is added to them; the rows go again.
    assert filled("archive", "--json").json["days"] == []
    assert [entry["id"] for entry in filled("logs", "--json").json_lines] == [7]


def test_a_damaged_day_is_neither_printed_nor_restored(archived: Cli) -> None:
    path = archived.data / "archive" / "logs" / "2024-03-11.jsonl"
    path.write_bytes(path.read_bytes().replace(b"planner", b"PLANNER"))
    for command in ("cat", "restore"):
        assert str(path) in archived.refused("archive", command, "2024-03-11")
    assert [entry["id"] for entry in archived("logs", "--json").json_lines] == [7]


# --- reading through ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filters",
    [
        [],
        ["--ref-id", "run-1"],
        ["--type", "thread_workflow_message"],
        ["--since", "2024-03-12", "--until", "2024-03-13"],
        ["--after-id", "2", "--limit", "4"],
        ["--descending", "--before-id", "8", "--limit", "3"],
    ],
    ids=" ".join,
)
def test_logs_reads_through_the_archive_if_asked(filled: Cli, filters: list[str]) -> None:
    before = [filled("logs", *filters, *flags).out for flags in ([], ["--json"])]
    assert before[0].count("\n") > 1
    filled("archive", "--zstd", "--max-days", "1")
    filled("archive")
    assert [filled("logs", "--archived", *filters, *flags).out for flags in ([], ["--json"])] == before
    assert {entry["id"] for entry in filled("logs", "--json", *filters).json_lines} <= {7}


@pytest.mark.parametrize("flags", [[], ["--archived"]], ids=["follow", "follow archived"])
def test_followed_logs_begin_in_the_archive(filled: Cli, flags: list[str]) -> None:
    before = filled("logs", "--json", "--after-id", "3").json_lines
    filled("archive")
    followed = filled("logs", "--follow", *flags, "--after-id", "3", "--limit", "5", "--json")
    assert followed.json_lines == before


def test_runs_keep_their_history_in_the_archive(filled: Cli) -> None:
    commands = [["runs", command, "run-1", "--json"] for command in ("show", "rounds", "messages")]
    before = [filled(*command).json for command in commands]
    filled("archive")
    assert [entry["id"] for entry in filled("logs", "--json").json_lines] == [7]
    assert [filled(*command).json for command in commands] == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--zstd", "list"],
        ["--vacuum", "list"],
        ["--wait", "3", "cat", "2024-03-11"],
        ["--incremental-vacuum", "restore", "2024-03-11"],
        ["--wait", "-1"],
        ["--wait", "soon"],
        ["restore"],
        ["restore", "yesterday"],
    ],
    ids=" ".join,
)
def test_wrong_usage_of_archive_exits_with_2(cli: Cli, arguments: list[str]) -> None:
    assert "nerve-store archive" in cli.misused("archive", *arguments)
    assert not cli.data.exists()
