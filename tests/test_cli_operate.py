"""The command line for operating a store: the newest first, what fits, doctor, backup, salvage, sql, meta, export."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nerve_store as ns
from nerve_store.cli.parser import whole_parser
from support import child_environment, foreign_sql
from support.cli import COMMAND, DAY, T0, Cli, on_a_terminal
from support.processes import start_child

PAGE = 4096


@pytest.fixture
def long_log(cli: Cli) -> Cli:
    """A hundred rows, and seventy runs in all states."""
    statuses = list(ns.WorkflowRunStatus)
    with ns.LogStore(cli.data / "logs.db") as store:
        store.append_many(("system", "tick", f"ref-{n % 4}", f"payload {n}", T0 + n) for n in range(100))
        for number in range(70):
            status = statuses[number % len(statuses)]
            run = ns.WorkflowRun(f"run-{number:02}", f"flow-{number % 2}", status, T0 + number)
            store.upsert_workflow_run(("workflow", status, run.run_id, None, T0 + number), run, force=True)
    return cli


def ids(cli: Cli, *arguments: str) -> list[int]:
    return [entry["id"] for entry in cli("logs", "--json", *arguments).json_lines]


# --- the newest --------------------------------------------------------------------------------------------------


def test_logs_are_the_newest_20_oldest_of_them_first(long_log: Cli) -> None:
    every = list(range(1, 171))
    assert ids(long_log) == every[-20:]
    assert ids(long_log, "-n", "3") == every[-3:]
    assert ids(long_log, "-n", "3", "--descending") == every[:-4:-1]
    assert ids(long_log, "-n", "0") == []
    assert ids(long_log, "--all") == every
    assert ids(long_log, "--source", "system", "-n", "2") == [99, 100]
    assert ids(long_log, "--limit", "2") == [1, 2]
    assert "not allowed with" in long_log.misused("logs", "-n", "3", "--all")


def test_logs_with_a_text(long_log: Cli) -> None:
    assert ids(long_log, "--grep", "payload 9") == [10, *range(91, 101)]
    assert ids(long_log, "--grep", "payload 9", "-n", "2") == [99, 100]
    assert ids(long_log, "--grep", "payload 9", "--limit", "2") == [10, 91]
    assert ids(long_log, "--grep", "ref-2", "--all") == list(range(3, 101, 4))
    assert ids(long_log, "--grep", "nowhere") == []


def test_logs_since_so_long_ago(cli: Cli) -> None:
    now = time.time_ns() // 1_000_000
    with ns.LogStore(cli.data / "logs.db") as store:
        store.append_many([("s", "t", None, None, now - hours * 3_600_000) for hours in (50, 3, 1)])
    assert ids(cli, "--since", "2h") == [3]
    assert ids(cli, "--since", "1d") == [2, 3]
    ages = [line.split()[2] for line in cli("logs", "--relative").lines[1:]]
    assert ages == ["2d", "3h", "60m"]


def test_logs_as_csv(long_log: Cli) -> None:
    rows = list(csv.reader(io.StringIO(long_log("logs", "--format", "csv", "-n", "2", "--source", "system").out)))
    assert rows == [
        ["id", "source", "type", "ref_id", "payload", "timestamp"],
        ["99", "system", "tick", "ref-2", "payload 98", str(T0 + 98)],
        ["100", "system", "tick", "ref-3", "payload 99", str(T0 + 99)],
    ]
    jsonl = long_log("logs", "--format", "jsonl", "-n", "2").out
    assert jsonl == long_log("logs", "--json", "-n", "2").out
    assert "exclude each other" in long_log.misused("logs", "--json", "--format", "csv")


def test_follow_begins_with_the_newest(long_log: Cli) -> None:
    command = [*COMMAND, "--data", str(long_log.data), "logs", "-f", "-n", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == [169, 170]
        with ns.LogStore(long_log.data / "logs.db") as store:
            store.append("system", "new")
        assert json.loads(process.stdout.readline())["id"] == 171
        process.terminate()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], range(69, 19, -1)),
        (["--limit", "3"], [69, 68, 67]),
        (["--all"], range(69, -1, -1)),
        (["--status", "failed", "--limit", "2"], [67, 59]),
        (["--status", "failed,crashed", "--limit", "2"], [68, 67]),
        (["--workflow", "flow-0", "--limit", "2"], [68, 66]),
        (["--since", str(T0 + 67)], [69, 68, 67]),
        (["--active", "--status", "queued"], range(0, 70, 8)),
    ],
)
def test_runs_are_the_newest_50(long_log: Cli, arguments: list[str], expected: list[int]) -> None:
    runs = long_log("runs", "--json", *arguments).json
    assert [run["run_id"] for run in runs] == [f"run-{number:02}" for number in expected]


def test_a_status_that_is_none(long_log: Cli) -> None:
    assert "queued, started" in long_log.misused("runs", "--status", "failed,lost")


def test_a_run_is_killed(long_log: Cli) -> None:
    assert long_log("runs", "kill", "run-01").out == "killed run-01 of flow-1\n"
    shown = long_log("runs", "show", "run-01", "--json").json["run"]
    assert (shown["status"], shown["exit_code"]) == ("killed", 137)
    assert "run-02" in long_log.refused("runs", "kill", "run-02")


def test_a_claim_is_shown(long_log: Cli) -> None:
    with ns.LogStore(long_log.data / "logs.db") as store:
        claim = store.claim_workflow_run("worker-1", run_id="run-00", lease=300)
        assert claim is not None
    shown = long_log("runs", "show", "run-00", "--json").json["claim"]
    assert shown == {"owner": "worker-1", "attempt": 1, "expires_at": claim.expires_at}
    assert "worker-1, attempt 1, lease until 2" in long_log("runs", "show", "run-00").out
    long_log("runs", "kill", "run-00")
    assert long_log("runs", "show", "run-00", "--json").json["claim"] is None


# --- what fits ---------------------------------------------------------------------------------------------------

TABLES = [
    ["logs"],
    ["logs", "--relative"],
    ["runs"],
    ["runs", "--relative"],
    ["runs", "rounds", "run-01"],
    ["archive", "list"],
    ["blob", "ls", "--long"],
    ["blob", "ls"],
    ["meta", "ls"],
    ["sql", "SELECT * FROM logs LIMIT 3"],
    ["doctor"],
]


@pytest.fixture
def wide(long_log: Cli) -> Cli:
    """With an archive, and blobs."""
    with ns.Store(long_log.data) as store:
        store.logs.append("workflow", "thread_workflow_message", "run-01", '{"role": "coder", "content": "words"}', T0)
        store.logs.archive_logs(now=T0 + 40 * DAY, max_days=1)
        store.blobs.write("content")
    return long_log


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_tables_fit_80_columns(wide: Cli, arguments: list[str]) -> None:
    code, shown = on_a_terminal("--data", str(wide.data), *arguments, columns=80)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert code == 0
    assert len(lines) >= 2 or arguments == ["blob", "ls"]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_columns_says_the_width_of_a_pipe_which_otherwise_gets_whole_cells(
    wide: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = wide(*arguments).out
    assert "…" not in whole
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, wide(*arguments).lines)) <= 80


def test_states_have_colors_on_a_terminal_alone(wide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--data", str(wide.data), "runs", "--status", "failed"]
    assert b"\x1b[31mfailed" in on_a_terminal(*arguments, columns=80)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b[" not in on_a_terminal(*arguments, columns=80)[1]
    assert "\x1b" not in wide("runs").out


# --- usage -------------------------------------------------------------------------------------------------------


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from parsers(command)


def test_every_help_fits_and_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = list(parsers(whole_parser()))
    assert len(found) > 30
    for parser in found:
        text = parser.format_help()
        assert max(map(len, text.splitlines())) <= 80, text
        if parser.prog != "nerve-store":
            assert f"example: nerve-store {parser.prog.removeprefix('nerve-store ')}" in " ".join(text.split()) or (
                "example: nerve-store" in text
            ), parser.prog
        for action in parser._actions:
            assert action.help or not action.option_strings, (parser.prog, action)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["lgos"], "logs"),
        (["logs", "--sicne", "2h"], "--since"),
        (["blob", "gte", "x"], "get"),
        (["runs", "shwo"], "show"),
    ],
)
def test_what_may_have_been_meant(cli: Cli, arguments: list[str], meant: str) -> None:
    assert f"did you mean {meant}?" in cli.misused(*arguments)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str, tmp_path: Path) -> None:
    script = cli("completion", shell).out
    assert "salvage" in script
    program = shutil.which(shell)
    if program is not None:
        path = tmp_path / "script"
        path.write_text(script)
        checked = subprocess.run([program, "-n", str(path)], capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["sal"], {"salvage"}),
        (["runs", "ki"], {"kill"}),
        (["logs", "--gr"], {"--grep"}),
        (["runs", "show", "--js"], {"--json"}),
    ],
)
def test_bash_completes(cli: Cli, words: list[str], completed: set[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    line = " ".join(f"'{word}'" for word in ["nerve-store", *words])
    script = (
        f"{cli('completion', 'bash').out}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _nerve_store 2>/dev/null\n"
    )
    script += 'printf "%s\\n" "${COMPREPLY[@]}"'
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == completed


def test_closed_standard_output_is_quiet(long_log: Cli) -> None:
    for arguments in ("logs --all", "stats", "runs --all --json", "doctor --quick"):
        command = f"exec {sys.executable} -m nerve_store --data '{long_log.data}' {arguments} >&-"
        done = subprocess.run(["sh", "-c", command], capture_output=True, env=child_environment(), check=False)
        assert (done.returncode, done.stderr) == (0, b""), arguments


# --- hashes ------------------------------------------------------------------------------------------------------


def test_the_first_digits_of_a_hash(cli: Cli) -> None:
    with ns.Store(cli.data) as store:
        digest = store.blobs.write("content")
        other = digest[:8] + ("0" if digest[8] != "0" else "1") + digest[9:]
        (cli.data / "blobs" / other[:2] / other[2:]).write_bytes(b"")
    assert "give more digits" in cli.refused("blob", "get", digest[:7])
    assert "is not a sha256" in cli.refused("blob", "get", digest[:5])
    assert "no blob" in cli.refused("blob", "get", "0" * 9 if digest[0] != "0" else "1" * 9)
    assert cli("blob", "rm", digest[:9].upper()).out == f"removed {digest}\n"


# --- sql, meta, export -------------------------------------------------------------------------------------------


def test_sql(long_log: Cli) -> None:
    assert long_log("sql", "SELECT count(*), max(id) FROM logs", "--json").json == [[170, 170]]
    assert long_log("sql", "SELECT id FROM logs WHERE type = ? ORDER BY id LIMIT 2", "tick").lines[1:] == ["1", "2"]
    assert long_log("sql", "SELECT 1, NULL, x'00ff', 'a,b'", "--format", "csv").out == '1,,00ff,"a,b"\n'
    assert long_log.refused("sql", "DELETE FROM logs")
    assert "timeout" in long_log.refused(
        "sql",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n",
        "--timeout",
        "0.2",
    )


def test_meta(cli: Cli) -> None:
    with ns.LogStore(cli.data / "logs.db"):
        pass
    assert cli("meta", "set", "a.one", "1").out == ""
    assert cli("meta", "set", "b", "two\nlines").exit_code == 0
    assert cli("meta", "get", "a.one").out == "1\n"
    assert cli("meta", "get", "b").out == "two\\nlines\n"
    assert cli("meta", "get", "b", "--json").json == "two\nlines"
    assert cli("meta", "ls", "--json").json == {"a.one": "1", "b": "two\nlines"}
    assert cli("meta", "ls", "a.", "--json").json == {"a.one": "1"}
    assert cli("meta", "rm", "b").exit_code == 0
    assert "no key 'b'" in cli.refused("meta", "get", "b")
    assert "no key 'b'" in cli.refused("meta", "rm", "b")


def test_export(wide: Cli, tmp_path: Path) -> None:
    with ns.LogStore(wide.data / "logs.db", read_only=True) as store:
        entries = list(store.iter(archived=True))
    target = tmp_path / "rows.jsonl"
    assert wide("export", str(target), "--json").json["row_count"] == len(entries)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [ns.LogEntry(**line) for line in lines] == entries
    assert "--force" in wide.refused("export", str(target))
    assert wide("export", str(target), "--force", "--source", "workflow").exit_code == 0
    assert len(target.read_text().splitlines()) == sum(entry.source == "workflow" for entry in entries)
    assert wide("export", str(tmp_path / "rows.csv")).exit_code == 0
    rows = list(csv.reader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [int(row[0]) for row in rows[1:]] == [entry.id for entry in entries]
    assert ".parquet" in wide.misused("export", str(tmp_path / "rows.xls"))
    assert [path.name for path in sorted(tmp_path.iterdir()) if path.is_file()] == ["rows.csv", "rows.jsonl"]


def test_export_of_columns(wide: Cli, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    for name in ("rows.arrow", "rows.parquet"):
        assert wide("export", str(tmp_path / name)).exit_code == 0
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table.column("id").to_pylist() == [
        entry["id"] for entry in wide("logs", "--all", "--archived", "--json").json_lines
    ]
    with pyarrow.ipc.open_file(tmp_path / "rows.arrow") as file:
        assert file.read_all().equals(table)


# --- doctor, backup, salvage -------------------------------------------------------------------------------------


def findings(cli: Cli, *arguments: str) -> dict[str, tuple[str, str]]:
    """Levels and messages by what was looked at; the worst of each."""
    outcome = cli("doctor", "--json", *arguments)
    found: dict[str, tuple[str, str]] = {}
    for finding in outcome.json["findings"]:
        assert list(finding) == ["level", "check", "message", "action"]
        if finding["level"] == "error" or finding["check"] not in found:
            found[finding["check"]] = (finding["level"], finding["message"])
        assert finding["level"] == "ok" or finding["action"], finding
    errors = any(level == "error" for level, _ in found.values())
    assert outcome.exit_code == (1 if errors else 0)
    assert outcome.json["ok"] is not errors
    return found


def test_doctor_finds_nothing_wrong(wide: Cli) -> None:
    found = findings(wide)
    assert {level for level, _ in found.values()} <= {"ok", "warning"}
    assert {
        "file system",
        "permissions",
        "space",
        "write-ahead log",
        "archive",
        "ids",
        "clock",
        "verification",
    } <= found.keys()
    assert "verification" not in findings(wide, "--quick")
    assert wide("doctor").lines[-1].startswith("0 errors")


def test_doctor_names_who_has_the_database_open(wide: Cli) -> None:
    child = start_child("hold_lock", path=str(wide.data / "logs.db"))
    assert child.stdout is not None
    child.stdout.readline()
    level, message = findings(wide, "--quick")["write-ahead log"]
    assert (level, str(child.pid) in message) == ("ok", True)
    assert str(child.pid) in findings(wide, "--quick")["locks"][1]
    child.communicate("\n", timeout=30)


def test_doctor_finds_what_is_wrong(wide: Cli) -> None:
    day_file = next((wide.data / "archive/logs").glob("2*"))
    day_file.rename(day_file.with_name("elsewhere"))
    (wide.data / ".nerve-store-unfinished").touch()
    os.chmod(wide.data, 0o755)
    with ns.LogStore(wide.data / "logs.db") as store:
        store.append("system", "future", None, None, time.time_ns() // 1_000_000 + DAY)
    found = findings(wide)
    assert found["archive"][0] == found["leftovers"][0] == found["verification"][0] == "error"
    assert found["permissions"][0] == found["clock"][0] == "warning"
    assert "is missing" in found["archive"][1]


def test_doctor_of_a_damaged_database_leads_to_salvage(wide: Cli, tmp_path: Path) -> None:
    with ns.LogStore(wide.data / "logs.db") as store:
        store.append_many(("s", "t", None, "x" * 500, T0) for _ in range(9000))
        rows = {entry.id: entry for entry in store.iter()}
    with (wide.data / "logs.db").open("r+b") as file:
        file.seek((wide.data / "logs.db").stat().st_size // 2 // PAGE * PAGE)
        file.write(b"\xa5" * 5 * PAGE)
    outcome = wide("doctor")
    assert outcome.exit_code == 1
    assert "nerve-store salvage" in outcome.out
    assert wide("backup", str(tmp_path / "backup")).exit_code == 1
    saved = wide("salvage", str(wide.data), str(tmp_path / "saved.db"), "--json").json
    assert saved["missing"]
    with ns.LogStore(tmp_path / "saved.db", read_only=True, archive_dir=wide.data / "archive/logs") as store:
        for entry in store.iter():
            assert rows[entry.id] == entry or any(first <= entry.id <= last for first, last in saved["unverified"])
        assert store.verify().ok
    assert "something already" in wide.refused("salvage", str(wide.data), str(tmp_path / "saved.db"))


def test_backup(wide: Cli, tmp_path: Path) -> None:
    first = wide("backup", str(tmp_path / "backup"))
    assert first.exit_code == 0
    assert "1 new day of 1, 1 new blob of 1" in first.out
    report = wide("backup", str(tmp_path / "backup"), "--json").json
    assert (report["new_day_count"], report["new_blob_count"], report["problems"]) == (0, 0, [])
    assert wide("backup", "--database-only", str(tmp_path / "one.db")).exit_code == 0
    backup = Cli(tmp_path / "backup", wide.capsys)
    assert backup("verify").exit_code == 0
    assert backup("logs", "--all", "--archived").out == wide("logs", "--all", "--archived").out


def test_reindex_and_archive_upkeep(wide: Cli) -> None:
    foreign_sql(wide.data / "logs.db", "DELETE FROM archive_refs")
    assert wide("archive", "verify").exit_code == 1
    assert wide("reindex").exit_code == 0
    assert wide("archive", "verify", "--json").json["ok"] is True
    day = wide("archive", "list", "--json").json[0]["day"]
    after = str(ns.utc_day(T0 + 30 * DAY))
    assert [item["day"] for item in wide("archive", "expire", "--before", after, "--dry-run", "--json").json] == [day]
    assert wide("archive", "expire", "--before", after).lines[-1].startswith("deleted 1 day")
    assert wide("archive", "list", "--json").json == []
    assert "nerve-store archive" in wide.misused("archive", "--zstd", "expire", "--before", after)
