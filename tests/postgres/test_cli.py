"""The command line on a log on a server: the same words as on a directory, and what does not apply there."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.cli import main
from nerve_store.postgres.address import Address
from postgres.moved import fill
from support.cli import Cli


@pytest.fixture
def cli(place: Backend, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs commands on a log with something of everything."""
    fill(place.open())
    url = f"{place.direct_url}?schema={place.schema}&archive={place.archive}"
    return Cli(url, capsys)  # type: ignore[arg-type]


def test_commands_say_what_they_say_of_a_directory(
    cli: Cli, place: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ns.LogStore(tmp_path / "other" / "logs.db") as other:
        fill(other)
        live = other.query()
    directory = Cli(tmp_path / "other", capsys)
    for words in (
        ["logs", "--json", "--all", "--archived"],
        ["logs", "-n", "5"],
        ["logs", "--source", "system", "--type", "once", "--json"],
        ["logs", "--grep", "late", "--format", "csv"],
        ["runs", "--json", "--all"],
        ["runs", "--status", "queued,started", "--workflow", "deploy"],
        ["runs", "show", "run-1", "--json"],
        ["runs", "messages", "run-2", "--json"],
        ["runs", "rounds", "run-2"],
        ["archive", "cat", "2026-01-02", "--json"],
        ["meta", "ls"],
        ["meta", "get", "app.cursor"],
    ):
        ours, theirs = cli(*words), directory(*words)
        assert (ours.exit_code, ours.out, ours.err) == (theirs.exit_code, theirs.out, theirs.err), words
    listed = cli("archive", "list", "--json").json
    assert [(day["day"], day["sha256"]) for day in listed] == [
        (day["day"], day["sha256"]) for day in directory("archive", "list", "--json").json
    ]
    stats = cli("stats", "--json").json
    assert stats["blobs"] is None
    assert stats["archive"]["row_count"] == directory("stats", "--json").json["archive"]["row_count"]
    assert stats["logs"]["last_id"] == live[-1].id
    assert "blobs" not in cli("stats").out


def test_commands_that_write(cli: Cli, place: Backend) -> None:
    assert cli("meta", "set", "app.mode", "fast").exit_code == 0
    assert cli("meta", "get", "app.mode").out == "fast\n"
    assert cli("meta", "rm", "app.mode").exit_code == 0
    assert cli("runs", "kill", "queued-first").exit_code == 0
    log = place.open()
    killed = log.get_workflow_run("queued-first")
    assert killed is not None
    assert killed.status == "killed"
    assert cli("archive", "--retention-days", "0", "--dry-run", "--json").json["dry_run"]
    assert cli("archive", "--retention-days", "0", "--vacuum").exit_code == 0
    assert cli("archive", "restore", "2026-01-03", "--json").json["restored_rows"] > 0
    assert cli("archive", "verify").exit_code == 0
    assert cli("reindex").exit_code == 0
    assert "1 day before 2026-01-02" in cli("archive", "expire", "--before", "2026-01-02").out
    assert cli("verify").exit_code == 0
    assert "blob" not in cli("verify").out


def test_claim_of_a_run_is_shown(cli: Cli, place: Backend) -> None:
    claim = place.open().claim_workflow_run("worker \0", run_id="queued-first", lease=60)
    assert claim is not None
    shown = cli("runs", "show", "queued-first", "--json").json["claim"]
    assert (shown["owner"], shown["attempt"]) == ("worker \0", 1)
    assert abs(shown["expires_at"] - claim.expires_at) <= 1
    assert cli("runs", "show", "run-1", "--json").json["claim"] is None


def test_follow_prints_what_comes_after_the_newest(
    cli: Cli, place: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    log = place.open()
    newest = log.query(archived=True)[-1].id
    log.append("system", "next")
    followed = cli("logs", "-f", "--after-id", str(newest), "--limit", "1", "--json").json_lines
    assert [row["type"] for row in followed] == ["next"]


def test_sql_in_the_dialect_of_the_server(cli: Cli) -> None:
    counted = "SELECT count(*) FROM workflow_runs WHERE workflow = %s"
    assert cli("sql", counted, "build", "--json").json == [{"count": 3}]
    assert cli("sql", counted, "build").lines == ["count", "3"]
    typed = cli("sql", "SELECT 1.5::numeric, '2026-01-01'::date, NULL AS n, 'a' AS n, ARRAY[1, 2]", "--json").json
    assert typed == [{"numeric": "1.5", "date": "2026-01-01", "n": None, "n:1": "a", "array": [1, 2]}]
    assert cli("sql", "SELECT key, value AS known FROM meta WHERE false").lines == ["key  known"]
    assert "read-only" in cli.refused("sql", "DELETE FROM logs")


def test_export_writes_the_rows(cli: Cli, place: Backend, tmp_path: Path) -> None:
    rows = place.open().query(archived=True)
    assert cli("export", str(tmp_path / "all.csv")).exit_code == 0
    with open(tmp_path / "all.csv", encoding="utf-8", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [str(row.id) for row in rows]
    assert cli("export", str(tmp_path / "all.jsonl")).exit_code == 0
    lines = (tmp_path / "all.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["payload"] for line in lines[:-1]] == [row.payload for row in rows]
    pytest.importorskip("pyarrow")
    assert cli("export", str(tmp_path / "all.parquet"), "--json").json["row_count"] == len(rows)


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "there"],
        ["blob", "ls"],
        ["blob", "put", __file__],
        ["blob", "verify"],
        ["demo"],
        ["salvage", "postgresql://x/y", "z"],
    ],
)
def test_what_does_not_apply_to_a_server_says_so(
    place: Backend,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    url = place.direct_url.replace("tester@", "tester:secret@")
    refused = Cli(url, capsys).refused(*words)  # type: ignore[arg-type]
    assert "server" in refused
    assert "secret" not in refused
    assert list(tmp_path.iterdir()) == []


def test_schema_that_is_not_there_is_not_made(place: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(f"{place.direct_url}?schema={place.schema}", capsys)  # type: ignore[arg-type]
    for words in (["stats"], ["logs"], ["meta", "set", "a", "b"], ["archive"], ["verify"]):
        assert "no log in this schema" in cli.refused(*words), words
    with psycopg.connect(place.direct_url) as session:
        found = session.execute("SELECT FROM pg_namespace WHERE nspname = %s", (place.schema,)).fetchall()
    assert found == []


def test_archive_needs_its_directory(cli: Cli, place: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    bare = Cli(f"{place.direct_url}?schema={place.schema}", capsys)  # type: ignore[arg-type]
    assert "?archive=" in bare.refused("archive", "cat", "2026-01-02")
    assert bare("stats", "--json").json["archive"]["day_count"] == 8


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("postgresql:///db", Address("postgresql:///db")),
        (
            "postgresql://u@h:1,h2:2/db?sslmode=verify-full&schema=a&options=-c%20x%3Dy&archive=/a%20b",
            Address("postgresql://u@h:1,h2:2/db?sslmode=verify-full&options=-c%20x%3Dy", "a", "/a b"),
        ),
        (
            "postgresql://h/db?listen_url=postgresql%3A%2F%2Fd%2Fdb",
            Address("postgresql://h/db", listen_url="postgresql://d/db"),
        ),
    ],
)
def test_address_takes_ours_out_of_the_url(text: str, address: Address) -> None:
    assert Address.of(text) == address


def test_address_with_two_schemas_is_refused() -> None:
    with pytest.raises(ValueError, match="schema"):
        Address.of("postgresql:///db?schema=a&schema=b")


# --- doctor ------------------------------------------------------------------------------------------------------


def findings(cli: Cli, *words: str) -> dict[str, tuple[str, str]]:
    found = cli("doctor", "--json", *words).json["findings"]
    return {item["check"]: (item["level"], item["message"]) for item in found}


def test_doctor_looks_at_the_server(cli: Cli, place: Backend) -> None:
    found = findings(cli)
    version = place.name.split("-")[1]
    assert found["server"][1].startswith(f"PostgreSQL {version}")
    # The server of the tests runs so.
    assert found["fsync"][0] == "error"
    assert found["full_page_writes"][0] == "warning"
    for check in (
        "schema",
        "synchronous_commit",
        "time zone",
        "role",
        "clocks",
        "connections",
        "archive",
        "verification",
    ):
        assert found[check][0] == "ok", (check, found[check])
    assert "verification" not in findings(cli, "--quick")


def test_doctor_names_what_a_role_lacks(cli: Cli, place: Backend) -> None:
    role = f"r_{place.schema}"
    place.execute(f"CREATE ROLE {role} LOGIN")
    try:
        url = str(cli.data).replace("tester@", f"{role}@")
        other = Cli(url, cli.capsys)  # type: ignore[arg-type]
        assert findings(other)["database"][0] == "error"
        place.execute(f"GRANT USAGE ON SCHEMA {place.schema} TO {role}")
        place.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {place.schema} TO {role}")
        place.execute(f"GRANT SELECT ON {place.schema}.log_id TO {role}")
        level, message = findings(other)["role"]
        assert level == "warning"
        assert "INSERT on logs" in message
        assert "UPDATE on the sequence" in message
        assert "SELECT on logs" not in message
    finally:
        place.execute(f"DROP OWNED BY {role}")
        place.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("is_worker", [True, False])
def test_doctor_serves_roles_with_the_rights_of_the_documentation(
    cli: Cli, place: Backend, capsys: pytest.CaptureFixture[str], is_worker: bool
) -> None:
    del cli  # which has filled the log
    role = f"r_{place.schema}"
    text = Path("docs/beyond-one-machine.md").read_text("utf-8")
    grants = text.partition("GRANT USAGE ON SCHEMA nerve")[2].partition("```")[0]
    grants = "GRANT USAGE ON SCHEMA nerve" + grants
    if not is_worker:
        grants = grants.replace("SELECT, INSERT, UPDATE, DELETE", "SELECT").rpartition("GRANT SELECT, UPDATE")[0]
    place.execute(f"CREATE ROLE {role} LOGIN")
    try:
        place.execute(re.sub(r"\bworker\b", role, re.sub(r"\bnerve\b", place.schema, grants)))
        url = place.direct_url.replace("tester@", f"{role}@")
        found = findings(Cli(f"{url}?schema={place.schema}&archive={place.archive}", capsys))  # type: ignore[arg-type]
        assert found["role"][0] == ("ok" if is_worker else "warning")
        errors = {check: told for check, told in found.items() if told[0] == "error"}
        # The server of the tests runs without.
        assert errors.keys() <= {"fsync"}, errors
        assert "database" in found
    finally:
        place.execute(f"DROP OWNED BY {role}")
        place.execute(f"DROP ROLE {role}")


def test_doctor_tells_a_clock_that_differs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + 3_600_000_000_000)
    level, message = findings(cli, "--quick")["clocks"]
    assert level == "warning"
    assert "behind" in message


def test_doctor_names_a_newer_schema(cli: Cli, place: Backend) -> None:
    place.execute("UPDATE state SET schema_version = 99")
    assert findings(cli)["schema"][0] == "error"


def test_doctor_finds_a_day_that_is_gone(cli: Cli, place: Backend) -> None:
    next(place.archive.glob("*.jsonl")).unlink()
    outcome = cli("doctor", "--json")
    assert outcome.exit_code == 1
    found = {item["check"]: item["level"] for item in outcome.json["findings"]}
    assert found["archive"] == found["verification"] == "error"


# --- copy --------------------------------------------------------------------------------------------------------


def test_copy_says_how_to_go_on(cli: Cli, place: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "back"
    begun = cli("copy", str(cli.data), str(target))
    assert (begun.exit_code, "--finish" in begun.out) == (0, True)
    assert main(["--data", str(target), "stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["logs"] is None
    done = cli("copy", "--finish", str(cli.data), str(target), "--json").json
    assert done["is_finished"]
    assert main(["--data", str(target), "verify"]) == 0
    with ns.LogStore(target / "logs.db") as log:
        assert log.query(archived=True) == place.open().query(archived=True)
    assert cli("copy", str(cli.data), str(target), "--json").json["is_finished"]


def test_missing_and_changed_days_are_named(cli: Cli) -> None:
    """Of an archive in a directory; an object store keeps objects under names that say what they hold."""
    days = cli("archive", "list", "--json").json
    plain = [Path(day["path"]) for day in days if day["format"] == "jsonl" and "://" not in day["path"]]
    if len(plain) < 2:
        pytest.skip("needs plain files in a directory")
    changed, missing = plain[:2]
    changed.write_bytes(changed.read_bytes().replace(b"tick", b"tock", 1))
    assert f"{changed}: its size or sha256" in cli.refused("archive")
    missing.unlink()
    refused = cli("archive", "--json")
    assert refused.exit_code == 1
    assert [problem["path"] for problem in refused.json["problems"]] == [str(changed), str(missing)]
    assert all(f"{path}: it" in refused.err for path in (changed, missing))
    outcome = cli("reindex")
    assert outcome.exit_code == 1
    found = {line.partition(": it is ")[0].rpartition(" ")[2]: line for line in outcome.err.splitlines()}
    assert found.keys() == {str(changed), str(missing)}
    assert "was taken as it is" in found[str(changed)]
    assert "was forgotten" in found[str(missing)]
    assert cli("reindex").exit_code == 0
