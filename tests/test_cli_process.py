"""The command line as a process of its own: the demo, pipes, signals, start-up; and the examples."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.cli import main
from nerve_store.cli.progress import progress_bar
from support.cli import COMMAND, on_a_terminal

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
ON_ONE_MACHINE = [path for path in EXAMPLES if path.stem != "fleet"]


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False, **options)


@pytest.fixture
def many_rows(data_dir: Path) -> Path:
    """More rows than a pipe holds."""
    with ns.LogStore(data_dir / "logs.db") as store:
        store.append_many([("system", "tick", None, "x" * 100, number) for number in range(5_000)])
    return data_dir


# --- demo --------------------------------------------------------------------------------------------------------


def figures_without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        timed = re.compile("seconds|per_second|path|data|root|_bytes")
        return {key: figures_without_timings(item) for key, item in value.items() if not timed.search(key)}
    return [figures_without_timings(item) for item in value] if isinstance(value, list) else value


def test_the_demo_checks_itself_and_is_the_same_each_time(tmp_path: Path) -> None:
    results = [run("demo", "--rows", "2000", "--json", "--data", tmp_path / name) for name in ("first", "second")]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    first, second = (json.loads(result.stdout) for result in results)
    assert figures_without_timings(first) == figures_without_timings(second)
    steps = {step["step"]: step for step in first["steps"]}
    assert list(steps) == ["store outputs", "work", "crash", "recover", "archive", "archive again", "verify"]
    assert steps["archive"]["days"] == 4
    assert steps["archive"]["pinned_rows"] > 0
    assert steps["archive again"]["pinned_rows"] == 0
    assert first["summary"]["archive"]["row_count"] == steps["verify"]["archived_rows"]
    assert run("stats", "--json", "--data", tmp_path / "first").stdout == json.dumps(first["summary"], indent=2) + "\n"


def test_the_demo_says_what_it_does_and_ends_with_the_summary(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    result = run("demo", "--rows", "1000", "--data", data)
    assert (result.returncode, result.stderr) == (0, "")
    assert "killed the daemon (SIGKILL)" in result.stdout
    assert result.stdout.split("\n\n")[1] == run("stats", "--data", data).stdout
    runs = json.loads(run("runs", "--json", "--data", data).stdout)
    assert {item["status"] for item in runs} == {"completed", "failed", "killed", "dropped"}


@pytest.mark.parametrize("is_directory", [True, False])
def test_the_demo_touches_nothing_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_directory: bool
) -> None:
    data = tmp_path / "data"
    if is_directory:
        data.mkdir()
        (data / "mine").write_text("mine")
    else:
        data.write_text("mine")
    assert main(["demo", "--data", str(data)]) == 1
    assert "name a fresh" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == (["data", "mine"] if is_directory else ["data"])


# --- pipes, signals, start-up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_problem(many_rows: Path, flags: list[str]) -> None:
    command = [*COMMAND, "logs", "--all", "--data", str(many_rows), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("arguments", [["blob", "put", "-"], ["blob", "collect", "--keep", "-"]], ids=" ".join)
def test_standard_input_that_is_closed_is_a_problem(tmp_path: Path, arguments: list[str]) -> None:
    with ns.Store(tmp_path / "data") as store:
        store.blobs.write("text")
    command = ["sh", "-c", '"$@" <&-', "sh", *COMMAND, *arguments, "--data", str(tmp_path / "data")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "nerve-store: error: standard input: it is closed\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["stats"], ["logs", "--all"]], ids=" ".join)
def test_output_that_cannot_be_written_is_a_problem(many_rows: Path, arguments: list[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run(
            [*COMMAND, *arguments, "--data", str(many_rows)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, "nerve-store: error: No space left on device\n")


def test_ctrl_c_ends_quietly(many_rows: Path) -> None:
    command = [*COMMAND, "logs", "--all", "--data", str(many_rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 130


INTERRUPTED_PARSER = """
import os, signal, sys
from nerve_store.cli import main, parser

parser.place_of = lambda *_: os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(["--data", "data", "stats"]))
"""


def test_ctrl_c_ends_quietly_while_arguments_are_parsed() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_PARSER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


KILLED_EXPORT = """
import sys
from nerve_store.cli import export, main

def write(store, filters, stream):
    stream.write(b"x" * 100_000)
    stream.flush()
    print("writing", flush=True)
    sys.stdin.read()

export._WRITERS[".jsonl"] = write
main(sys.argv[1:])
"""


@pytest.mark.parametrize("with_what", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_is_ended_leaves_nothing(many_rows: Path, tmp_path: Path, with_what: signal.Signals) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    try:
        os.close(os.open(beside, os.O_TMPFILE | os.O_RDWR))
    except (AttributeError, OSError):
        if with_what != signal.SIGINT:
            pytest.skip("this system has no files without names")
    command = [sys.executable, "-c", KILLED_EXPORT, "--data", str(many_rows), "export", str(beside / "rows.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(with_what)
        process.wait(timeout=60)
    assert list(beside.iterdir()) == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_output_encoding_will_do(upstream_data: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    rows = ["logs", "--all"]
    statement = ["sql", "SELECT * FROM logs"]
    for arguments in (
        rows,
        [*rows, "--json"],
        [*rows, "--format", "csv"],
        statement,
        [*statement, "--format", "csv"],
        ["runs", "--all"],
    ):
        command = [*COMMAND, *arguments, "--data", str(upstream_data)]
        result = subprocess.run(command, capture_output=True, check=False, env=environment)
        assert (result.returncode, result.stderr) == (0, b"")
        result.stdout.decode(encoding)


def test_a_pipe_shows_no_progress_bar(many_rows: Path) -> None:
    for arguments in (["archive"], ["verify"], ["archive", "restore", "1970-01-01"]):
        result = run(*arguments, "--data", many_rows)
        assert (result.returncode, result.stderr) == (0, "")
    with progress_bar("label") as progress:
        assert progress is None


def test_a_terminal_shows_a_progress_bar_and_cuts_long_payloads(many_rows: Path) -> None:
    pytest.importorskip("rich")
    shown = b""
    for arguments in (["logs", "--limit", "1"], ["archive"], ["verify"], ["archive", "restore", "1970-01-01"]):
        code, said = on_a_terminal(*arguments, "--data", str(many_rows), columns=80)
        assert code == 0
        shown += said
    heading, row = shown.decode().splitlines()[:2]
    assert heading.endswith("payload")
    assert row.endswith("xxx…")
    assert len(row) == 80
    for label in (b"archiving rows", b"verifying rows", b"verifying bytes", b"restoring rows"):
        assert label in shown
    assert b"moved 5,000 rows of 1 day" in shown
    assert b"restored 5,000 rows of 1970-01-01" in shown


def test_version() -> None:
    result = run("--version")
    build = f"(SQLite {ns.SQLITE_VERSION}, {ns.BUILD_PROFILE} build)"
    assert (result.returncode, result.stdout) == (0, f"nerve-store {ns.__version__} {build}\n")


def test_nothing_heavy_is_imported_at_the_start() -> None:
    program = (
        "import sys; before = set(sys.modules);"
        "from nerve_store.cli.parser import build_parser; build_parser(['logs']);"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"rich", "asyncio", "sqlite3", "subprocess", "tempfile", "logging", "random"} & set(imported)


@pytest.mark.thread_unsafe(reason="times processes")
def test_start_up_takes_less_than_60_ms_more_than_the_interpreter() -> None:
    def processor_seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def fastest(*command: str) -> float:
        # Processor time, because other tests share the machine with this one.
        seconds = []
        for _ in range(7):
            started = processor_seconds()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            seconds.append(processor_seconds() - started)
        return min(seconds)

    if ns.BUILD_PROFILE == "debug":
        pytest.skip("a debug build is not what anybody waits for")
    assert fastest("-m", "nerve_store", "--version") - fastest("-c", "pass") < 0.060


# --- examples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ON_ONE_MACHINE, ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path / "data")]):
        command = [sys.executable, str(example), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert len(result.stdout.splitlines()) >= 4
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_daemon_example_recovers(tmp_path: Path) -> None:
    (example,) = (path for path in EXAMPLES if path.stem == "daemon")
    out = subprocess.run(
        [sys.executable, str(example), str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert "run-1 was started" in out
    assert "2 messages" in out
    assert "crashed, started, completed; exit code 0" in out
