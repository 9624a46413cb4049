"""The command line: its options, its errors, `logs` and `runs`, as text and as JSON, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nerve_store as ns
import support
from nerve_store.cli import main
from support.cli import DAY, MISSING_HASH, T0, Cli

# --- options and errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("--json", "--data", "{}", "stats"), ("stats", "--json", "--data", "{}")])
def test_common_options_stand_before_or_after_the_command(
    filled: Cli, capsys: pytest.CaptureFixture[str], order: tuple[str, ...]
) -> None:
    assert main([part.format(filled.data) for part in order]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == str(filled.data)


def test_common_options_stand_after_a_subcommand_too(filled: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--data", "elsewhere", "show", "run-1", "--json", "--data", str(filled.data)]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["run_id"] == "run-1"


def test_the_environment_names_the_directory(
    filled: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERVE_STORE_DATA", str(filled.data))
    assert main(["stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == str(filled.data)


def test_the_directory_is_data_unless_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NERVE_STORE_DATA", raising=False)
    assert main(["stats"]) == 1
    assert "no data directory 'data'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["logs", "--unknown"],
        ["logs", "--limit", "-1"],
        ["logs", "--limit", "1e3"],
        ["logs", "--after-id", "9" * 19],
        ["logs", "--since", "yesterday"],
        ["logs", "--until", "2024-13-01"],
        ["logs", "--sou", "system"],
        ["runs", "show"],
        ["runs", "--active", "show", "run-1"],
        ["runs", "rounds", "run-1", "--limit", "-3"],
        ["archive", "cat"],
        ["archive", "cat", "20260311"],
        ["archive", "cat", "2024-02-30"],
        ["archive", "--dry-run", "list"],
        ["archive", "--retention-days", "-1"],
        ["archive", "--compress"],
        ["verify", "--repair"],
        ["blob"],
        ["blob", "put"],
        ["demo", "--rows", "3"],
        ["stats", "--data", ""],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(cli: Cli, arguments: list[str]) -> None:
    assert "nerve-store" in cli.misused(*arguments)
    assert not cli.data.exists()


READS = [
    ["logs"],
    ["runs"],
    ["runs", "show", "run-1"],
    ["runs", "rounds", "run-1"],
    ["runs", "messages", "run-1"],
    ["blob", "get", MISSING_HASH],
    ["blob", "ls"],
    ["blob", "rm", MISSING_HASH],
    ["stats"],
    ["archive"],
    ["archive", "--dry-run"],
    ["archive", "list"],
    ["archive", "cat", "2024-03-11"],
    ["archive", "restore", "2024-03-11"],
    ["verify"],
]


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_a_missing_directory_is_a_problem_and_is_not_created(cli: Cli, arguments: list[str]) -> None:
    assert f"there is no data directory {str(cli.data)!r}" in cli.refused(*arguments)
    assert not cli.data.exists()


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_a_file_in_place_of_the_directory_is_a_problem(cli: Cli, arguments: list[str]) -> None:
    cli.data.write_text("a file")
    assert "is not a directory" in cli.refused(*arguments)


@pytest.mark.parametrize("arguments", [["logs"], ["runs"], ["archive"], ["archive", "list"]], ids=" ".join)
def test_a_directory_without_a_log_is_a_problem_and_stays_as_it_is(cli: Cli, arguments: list[str]) -> None:
    cli.data.mkdir()
    assert "there is no log database" in cli.refused(*arguments)
    assert list(cli.data.iterdir()) == []


@pytest.mark.parametrize("arguments", [["logs"], ["stats"], ["archive"]], ids=" ".join)
def test_a_file_that_is_no_database_is_one_line(cli: Cli, arguments: list[str]) -> None:
    cli.data.mkdir()
    (cli.data / "logs.db").write_text("this is not a database " * 400)
    assert "logs.db" in cli.refused(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [["logs"], ["runs"], ["runs", "show", "run-1"], ["stats"], ["archive", "list"], ["blob", "ls"], ["verify"]],
    ids=" ".join,
)
def test_reading_changes_no_file(filled: Cli, arguments: list[str]) -> None:
    before = support.without_sidecars(support.tree(filled.data))
    assert filled(*arguments).exit_code == 0
    assert support.without_sidecars(support.tree(filled.data)) == before


# --- logs --------------------------------------------------------------------------------------------------------


def test_logs_as_json_lines(filled: Cli) -> None:
    entries = filled("logs", "--json").json_lines
    assert [list(entry) for entry in entries] == [["id", "source", "type", "ref_id", "payload", "timestamp"]] * 8
    with ns.LogStore(filled.data / "logs.db", read_only=True) as store:
        assert [ns.LogEntry(**entry) for entry in entries] == store.query()


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["--source", "system"], [8]),
        (["--type", "thread_workflow_message"], [3, 5]),
        (["--ref-id", "run-2"], [7]),
        (["--since", str(T0 + 2 * DAY)], [7, 8]),
        (["--since", "2024-03-13"], [7, 8]),
        (["--since", "2024-03-13T00:00:00.001"], [8]),
        (["--since", "2024-03-13T00:00:00.0005"], [8]),
        (["--since", "2024-03-13T01:00:00+01:00"], [7, 8]),
        (["--until", "2024-03-11"], [1, 2, 3, 4, 5]),
        (["--until", "2024-03-11T00:00:00Z"], [1]),
        (["--until", "2024-03-11T00:00:00.0009Z"], [1]),
        (["--until", str(T0 + DAY)], [1, 2, 3, 4, 5, 6]),
        (["--after-id", "6"], [7, 8]),
        (["--before-id", "3"], [1, 2]),
        (["--limit", "2"], [1, 2]),
        (["--limit", "0"], []),
        (["--descending", "--limit", "3"], [8, 7, 6]),
        (["--source", "workflow", "--after-id", "1", "--before-id", "7", "--descending"], [6, 5, 4, 3, 2]),
    ],
)
def test_logs_filters(filled: Cli, arguments: list[str], ids: list[int]) -> None:
    assert [entry["id"] for entry in filled("logs", "--json", *arguments).json_lines] == ids


def test_logs_are_followed_from_an_id(filled: Cli) -> None:
    followed = filled("logs", "--follow", "--after-id", "5", "--limit", "3", "--json").json_lines
    assert followed == filled("logs", "--after-id", "5", "--limit", "3", "--json").json_lines
    lines = filled("logs", "--follow", "--after-id", "0", "--source", "system", "--limit", "1").out.splitlines()
    assert [line.split()[0] for line in lines] == ["8"]
    with pytest.raises(SystemExit) as refused:
        filled("logs", "--follow", "--descending")
    assert refused.value.code == 2


def test_logs_as_a_table(filled: Cli) -> None:
    lines = filled("logs", "--after-id", "5").lines
    assert lines[0].split() == ["id", "timestamp", "source", "type", "ref_id", "payload"]
    assert lines[1].split() == ["6", "2024-03-12T00:00:00.000Z", "workflow", "failed", "run-1", "-"]
    assert {line.index("2024-") for line in lines[1:]} == {lines[0].index("timestamp")}


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_no_payload_steers_a_terminal(filled: Cli, flags: list[str]) -> None:
    for command in (["logs"], ["runs", "messages", "run-1"], ["runs", "rounds", "run-1"]):
        out = filled(*command, *flags).out
        assert all(character == "\n" or character.isprintable() for character in out)
        assert "\x1b" not in out
    assert "clear\\" in filled("logs", *flags).out


# --- runs --------------------------------------------------------------------------------------------------------


def test_runs_as_text(filled: Cli) -> None:
    lines = [line.split() for line in filled("runs").lines]
    assert lines == [
        ["run", "workflow", "status", "exit", "since"],
        ["run-2", "report", "queued", "-", "2024-03-13T00:00:00.000Z"],
        ["run-1", "deploy", "failed", "1", "2024-03-12T00:00:00.000Z"],
    ]


@pytest.mark.parametrize(
    ("arguments", "run_ids"),
    [
        ([], ["run-2", "run-1"]),
        (["--active"], ["run-2"]),
        (["--workflow", "deploy"], ["run-1"]),
        (["--active", "--workflow", "deploy"], []),
    ],
)
def test_runs_as_json(filled: Cli, arguments: list[str], run_ids: list[str]) -> None:
    runs = filled("runs", "--json", *arguments).json
    assert [run["run_id"] for run in runs] == run_ids
    assert all(list(run) == ["run_id", "workflow", "status", "timestamp", "exit_code"] for run in runs)


def test_runs_show(filled: Cli) -> None:
    assert filled("runs", "show", "run-1", "--json").json == {
        "run": {"run_id": "run-1", "workflow": "deploy", "status": "failed", "timestamp": T0 + DAY, "exit_code": 1},
        "claim": None,
        "trigger_payload": {"prompt": "go", "maxRounds": 3, "dryRun": False},
        "round_count": 3,
        "message_count": 2,
        "event_count": 2,
    }
    text = filled("runs", "show", "run-1").out
    assert "failed" in text
    assert '"prompt": "go"' in text


def test_runs_rounds_newest_first(filled: Cli) -> None:
    rounds = filled("runs", "rounds", "run-1", "--json").json
    assert [item["round"] for item in rounds] == [3, 2, 1]
    assert rounds[2] == {
        "round": 1,
        "log_id": 3,
        "timestamp": T0 + 1,
        "message": {"role": "planner", "content": "plan", "meta": {"k": [1.5]}, "timestamp": 7},
    }
    assert [item["round"] for item in filled("runs", "rounds", "run-1", "--json", "--limit", "1").json] == [3]
    assert [item["round"] for item in filled("runs", "rounds", "run-1", "--json", "--before", "3").json] == [2, 1]
    assert filled("runs", "rounds", "run-1").lines[1].split()[:4] == ["3", "5", "2024-03-11T00:00:00.001Z", "coder"]


def test_runs_messages_in_order(filled: Cli) -> None:
    messages = filled("runs", "messages", "run-1", "--json").json
    assert [(message["role"], message["content"]) for message in messages] == [
        ("planner", "plan"),
        ("coder", "two\nlines \x1b[31mred"),
    ]
    assert "two\\nlines \\x1b[31mred" in filled("runs", "messages", "run-1").out


def test_a_run_without_thread_has_an_empty_list(filled: Cli) -> None:
    assert filled("runs", "rounds", "run-2", "--json").json == []
    assert filled("runs", "messages", "run-2", "--json").json == []


@pytest.mark.parametrize("command", ["show", "rounds", "messages"])
def test_a_missing_run_is_a_problem(filled: Cli, command: str) -> None:
    assert "there is no run 'run-9'" in filled.refused("runs", command, "run-9")


def test_a_run_with_an_unknown_status_is_reported_and_the_others_are_listed(filled: Cli) -> None:
    support.foreign_sql(filled.data / "logs.db", "UPDATE workflow_runs SET status = 'lost' WHERE run_id = 'run-1'")
    outcome = filled("runs", "--json")
    assert outcome.exit_code == 1
    assert [run["run_id"] for run in outcome.json] == ["run-2"]
    assert "run-1" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert "run-1" in filled.refused("runs", "show", "run-1")
