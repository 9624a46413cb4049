"""The command line for a person at a terminal: the newest first, what fits, what was meant, completion."""

from __future__ import annotations

import argparse
import csv
import io
import json
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
from nerve_store.cli.text import display_width, wrap
from support import child_environment
from support.cli import COMMAND, DAY, T0, Cli, on_a_terminal


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


def test_a_message_without_a_time_is_not_of_1970(wide: Cli) -> None:
    assert wide("runs", "messages", "run-01").lines[1].split() == ["-", "coder", "words"]


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
    ["doctor", "--quick"],
]


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_tables_fit_80_columns(wide: Cli, arguments: list[str]) -> None:
    code, shown = on_a_terminal("--data", str(wide.data), *arguments, columns=80)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).splitlines()
    assert code == 0
    assert len(lines) >= 2 or arguments == ["blob", "ls"]
    assert max(map(len, lines)) <= 80


def test_wide_characters_fit_80_columns(wide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gives two columns to each, and none to a mark."""
    run_id = "\u4e2d\u6587" * 40
    with ns.Store(wide.data) as store:
        store.logs.create_workflow_run(run_id, "\u0915\u093f\u0941" * 30, json={"prompt": f"{run_id} " * 4})
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["runs"], ["logs"], ["runs", "show", run_id]):
        lines = wide(*arguments).lines
        assert max(map(display_width, lines)) <= 80
        assert any("\u4e2d" in line for line in lines)


@pytest.mark.parametrize("width", [2, 3, 20])
def test_wrapped_text_is_the_text(width: int) -> None:
    for text in (
        "",
        "a",
        "one two  three",
        "\u4e2d\u6587 \u4e2d" * 9,
        "x" * 50,
        "e\u0301 " * 30,
        " leading and trailing ",
    ):
        lines = wrap(text, width)
        assert max(map(display_width, lines)) <= width
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("one two  three", 20) == ["one two  three"]
    assert wrap("one two three", 8) == ["one two", "three"]
    assert display_width("\u0915\u0941\ufe0f") == 1


ANSWERS = [
    ["runs", "show", "run-01"],
    ["runs", "messages", "run-01"],
    ["runs", "kill", "run-01"],
    ["archive", "--dry-run"],
    ["archive"],
    ["archive", "verify"],
    ["archive", "expire", "--before", "2024-01-01"],
    ["archive", "restore", "2024-03-11"],
    ["verify"],
    ["stats"],
    ["doctor"],
    ["blob", "verify"],
    ["blob", "collect", "--keep", "/dev/null"],
    ["reindex"],
    ["backup", "{beside}/backup-of-a-directory-with-a-long-name"],
    ["backup", "--database-only", "{beside}/backup-of-a-database-with-a-long-name.db"],
    ["salvage", "{data}", "{beside}/what-could-be-saved-of-a-database-with-a-long-name.db"],
    ["export", "{beside}/rows-that-were-exported-to-a-file-with-a-long-name.jsonl"],
    ["--data", "{beside}/day-of-a-daemon-in-a-directory-with-a-long-name", "demo", "--rows", "1000"],
]


@pytest.mark.parametrize("arguments", ANSWERS, ids=" ".join)
def test_answers_fit_80_columns(long_log: Cli, tmp_path: Path, arguments: list[str]) -> None:
    """Also with long paths and payloads, many rows and many days."""
    beside = tmp_path / "directory-of-a-user-whose-name-is-long"
    beside.mkdir()
    with ns.Store(long_log.data) as store:
        store.logs.append("workflow", "queued", "run-01", json.dumps({"prompt": "words " * 40, "maxRounds": 3}), T0)
        message = {"role": "coder", "content": "words " * 40}
        store.logs.append("workflow", "thread_workflow_message", "run-01", json.dumps(message), T0)
        store.logs.append_many(("system", "tick", None, "x" * 99, T0 + DAY * (n % 20)) for n in range(3000))
        store.logs.archive_logs(now=T0 + 60 * DAY, max_days=15)
        store.blobs.write_many(str(number) for number in range(300))
    words = [word.format(beside=beside, data=long_log.data) for word in arguments]
    code, shown = on_a_terminal("--data", str(long_log.data), *words, columns=80)
    lines = re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))
    assert code == 0, shown
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


RUN_BASH = """
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_nerve_store
printf '%s\\n' "${COMPREPLY[@]}"
"""
# Its builtins work in a terminal alone.
RUN_ZSH = """
compdef() { :; }
compset() { words[CURRENT]="${words[CURRENT]#*=}"; }
compadd() { shift; print -l -- "${(@M)@:#${words[CURRENT]}*}"; }
_files() { :; }
source "$SCRIPT"
words=("$@")
CURRENT=$#
_nerve-store
"""
OPTIONS = [[], ["--json"], ["--data", "data"], ["--data=data"], ["--data", "runs"], ["--remote", "s3://b", "--json"]]


def completed(cli: Cli, shell: str, tmp_path: Path, words: list[str]) -> set[str]:
    """What the shell completes the last word to."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "script"
    script.write_text(cli("completion", shell).out)
    if shell == "bash":
        # Which takes equals signs for words.
        words = [part for word in words for part in re.split("(?<=[^=])(=)", word) if part or not word]
        command = [program, "-c", script.read_text() + RUN_BASH, "bash"]
    else:
        command = [program, "-f", "-c", RUN_ZSH, "zsh"]
    found = subprocess.run(
        [*command, "nerve-store", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**child_environment(), "SCRIPT": str(script)},
    )
    assert (found.stderr, found.returncode) == ("", 0)
    return set(found.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("before", OPTIONS, ids=" ".join)
def test_commands_are_completed_whatever_options_stand_before_them(
    cli: Cli, tmp_path: Path, shell: str, before: list[str]
) -> None:
    assert completed(cli, shell, tmp_path, [*before, "ver"]) == {"verify"}
    for between in OPTIONS:
        for after in OPTIONS[:: len(OPTIONS) - 1]:
            words = [*before, "runs", *between, "show", *after]
            assert completed(cli, shell, tmp_path, [*words, "--js"]) == {"--json"}, words
        assert completed(cli, shell, tmp_path, [*before, "runs", *between, "ki"]) == {"kill"}, between


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sal"], "salvage"),
        (["logs", "--gr"], "--grep"),
        (["logs", "--format", ""], "csv jsonl text"),
        (["logs", "--format=c"], "csv"),
        (["completion", "f"], "fish"),
        (["--data", "run"], ""),
        (["--data=run"], ""),
        (["backup", "ver"], ""),
        (["--data", "d", "nonsense", "ver"], "verify"),
    ],
    ids=str,
)
def test_words_are_completed(cli: Cli, tmp_path: Path, shell: str, words: list[str], expected: str) -> None:
    assert completed(cli, shell, tmp_path, words) == set(expected.split())


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
