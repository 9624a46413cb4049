"""The command line that looks after a store: sql, meta, export, doctor, backup, salvage."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_script, foreign_sql
from support.cli import DAY, T0, Cli
from support.processes import start_child

PAGE = 4096


# --- sql, meta, export -------------------------------------------------------------------------------------------


def test_sql(long_log: Cli) -> None:
    assert long_log("sql", "SELECT count(*) AS n, max(id) FROM logs", "--json").json == [{"n": 170, "max(id)": 170}]
    assert long_log("sql", "SELECT id FROM logs WHERE type = ? ORDER BY id LIMIT 2", "tick").lines[1:] == ["1", "2"]
    assert long_log("sql", "SELECT 1, NULL, x'00ff', 'a,b'", "--format", "csv").out == '1,,00ff,"a,b"\n'
    assert long_log.refused("sql", "DELETE FROM logs")
    assert "timeout" in long_log.refused(
        "sql",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n",
        "--timeout",
        "0.2",
    )


NAMED = [
    ("SELECT id, type AS kind FROM logs", ["id", "kind"], ["id", "kind"]),
    ("SELECT * FROM meta WHERE key IS NULL", ["key", "value"], None),
    ("SELECT 1 AS a, 2 AS b, 3 AS a, 4 AS a", ["a", "b", "a", "a"], ["a", "b", "a:1", "a:2"]),
    ("SELECT 1 AS a, 2 AS a, 3 AS 'a:1'", ["a", "a", "a:1"], ["a", "a:2", "a:1"]),
    ("SELECT 1 AS 'a:1', 2 AS 'a:1', 3 AS a", ["a:1", "a:1", "a"], ["a:1", "a:1:1", "a"]),
    (
        "SELECT 1 AS '\x1b[31m', max(\n2, 3), 4 AS ''",
        ["\\x1b[31m", "max(\\n2, 3)", ""],
        ["\x1b[31m", "max(\n2, 3)", ""],
    ),
    ("VALUES (1, 2)", ["column1", "column2"], ["column1", "column2"]),
    ("PRAGMA user_version", ["user_version"], ["user_version"]),
]


@pytest.mark.parametrize(("query", "titles", "keys"), NAMED, ids=[query for query, _, _ in NAMED])
def test_columns_have_the_names_of_the_statement(
    long_log: Cli, query: str, titles: list[str], keys: list[str] | None
) -> None:
    """In the table as they are; as keys of JSON made distinct. `keys`: None if there is no row."""
    table = long_log("sql", query)
    assert (table.exit_code, re.split(" {2,}", table.lines[0])) == (0, [title for title in titles if title])
    rows = long_log("sql", query, "--json").json
    assert [list(row) for row in rows[:1]] == ([] if keys is None else [keys])
    assert len(table.lines) == 1 + len(rows)


def test_a_name_that_is_not_utf8_is_refused_alone(cli: Cli) -> None:
    """Another program may have stored it."""
    with ns.LogStore(cli.data / "logs.db") as store:
        store.append("system", "tick")
    foreign_script(
        cli.data / "logs.db",
        """CREATE VIEW odd AS SELECT 1 AS name;
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = CAST(X'4352454154452056494557206f64642041532053454c454354203120415320ff' AS TEXT)
        WHERE name = 'odd'""",
    )
    cli.refused("sql", "SELECT * FROM odd")
    assert cli("sql", "SELECT count(*) AS n FROM odd", "--json").json == [{"n": 1}]
    assert cli("sql", "SELECT name FROM sqlite_schema WHERE name = 'odd'", "--json").json == [{"name": "odd"}]


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


def test_salvage_tells_what_is_missing_from_what_was_reserved(wide: Cli, tmp_path: Path) -> None:
    """As a killed process leaves the directory."""
    with ns.LogStore(wide.data / "logs.db") as store:
        last = store.append("system", "tick").id
        shutil.copytree(wide.data, tmp_path / "killed")
    said = wide("salvage", str(tmp_path / "killed"), str(tmp_path / "saved.db")).out
    assert f"lost, or reserved and never given out: ids {last + 1} to" in said
    assert "missing:" not in said
    assert f"move it to {tmp_path / 'killed/logs.db'}" in said
    assert [path.name for path in tmp_path.glob("saved*")] == ["saved.db"]


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
