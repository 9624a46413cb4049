"""The command line with `--remote`: the answers of a directory whose days and blobs are at home."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from postgres.moved import fill
from support import day_files, objects
from support.archive import at, day
from support.cli import Cli

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")


def words_of(place: Place) -> list[str]:
    """The options that name a place."""
    return ["--remote", place.url, *(word for item in place.options.items() for word in option(*item))]


def option(name: str, value: object) -> tuple[str, str]:
    return "--remote-option", f"{name}={str(value).lower() if isinstance(value, bool) else value}"


class RemoteCli(Cli):
    """Runs commands on a data directory whose days and blobs lie in a place."""

    def __init__(self, data: Path, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(data, capsys)
        self.place = place

    def __call__(self, *arguments: str) -> Any:
        return super().__call__(*words_of(self.place), *arguments)


@pytest.fixture(params=["memory", "file", "s3-versitygw"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    return made(request.param, tmp_path / "place")


@pytest.fixture
def cli(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> RemoteCli:
    """On a directory with something of everything, days at home."""
    with ns.LogStore(tmp_path / "data" / "logs.db") as log:
        fill(log)
    return RemoteCli(tmp_path / "data", place, capsys)


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The same at home."""
    with ns.LogStore(tmp_path / "home" / "logs.db") as log:
        fill(log)
    return Cli(tmp_path / "home", capsys)


def same(cli: Cli, home: Cli, *words: str) -> None:
    """What both print is the same, but for where it is."""
    outcomes = [run(*words) for run in (cli, home)]
    hide = re.compile(r'"(archived_at|path|root|data|database_bytes|free_bytes|wal_bytes)": .*')
    ours, theirs = [(found.exit_code, hide.sub(r"\1", found.out), found.err) for found in outcomes]
    assert ours == theirs, words


def test_every_command_answers_as_at_home(cli: RemoteCli, home: Cli, place: Place, tmp_path: Path) -> None:
    assert cli("archive", "--max-days", "3", "--zstd").out.count(f"in {place.url}/logs") == 1
    home("archive", "--max-days", "3", "--zstd")
    assert not day_files(cli.data / "archive" / "logs")
    for words in (
        ["logs", "--all", "--archived", "--json"],
        ["logs", "-n", "30", "--archived", "--ref-id", "run-1"],
        ["logs", "-f", "--after-id", "0", "--limit", "9"],
        ["runs", "--all", "--json"],
        ["runs", "show", "run-1", "--json"],
        ["runs", "messages", "run-2"],
        ["runs", "rounds", "run-2"],
        ["archive", "list", "--json"],
        ["archive", "cat", str(day(1)), "--json"],
        ["archive", "verify", "--json"],
        ["meta", "ls"],
        ["sql", "SELECT count(*) FROM logs"],
        ["verify", "--json"],
        ["stats", "--json"],
        ["runs", "kill", "queued-first"],
        ["archive", "restore", str(day(2))],
        ["archive"],
        ["archive", "expire", "--before", str(day(1))],
        ["reindex", "--json"],
        ["archive", "list", "--json"],
        ["verify"],
        ["logs", "--all", "--archived", "--source", "system"],
    ):
        if words == ["archive"]:
            assert [run(*words).exit_code for run in (cli, home)] == [0, 0]
        else:
            same(cli, home, *words)
    for run, name in ((cli, "ours"), (home, "theirs")):
        assert run("export", str(tmp_path / f"{name}.jsonl")).exit_code == 0
    ours, theirs = (
        [line for line in (tmp_path / f"{name}.jsonl").read_bytes().split(b"\n") if b"killed" not in line]
        for name in ("ours", "theirs")
    )
    assert ours == theirs
    assert "blobs in the object store are not copied" in cli("backup", str(tmp_path / "backup")).out
    same(Cli(tmp_path / "backup", cli.capsys), home, "logs", "--all", "--archived", "--source", "system")
    assert cli("backup", "--database-only", str(tmp_path / "alone.db")).exit_code == 0


def test_blobs_lie_in_the_place(cli: RemoteCli, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0" * 100_000)
    (stored,) = cli("blob", "put", str(file), "--json").json
    (listed,) = cli("blob", "ls", "--long", "--json").json
    assert (listed["hash"], listed["size"]) == (stored["hash"], 100_000)
    assert listed["path"] == f"{place.url}/blobs/{stored['hash'][:2]}/{stored['hash'][2:]}"
    assert listed["written"] > 1_700_000_000_000
    assert cli("blob", "ls").out.split() == [stored["hash"], "100000"]
    assert not (cli.data / "blobs").exists()
    assert cli("blob", "get", stored["hash"][:7], "--output", str(tmp_path / "got")).exit_code == 0
    assert (tmp_path / "got").read_bytes() == file.read_bytes()
    assert cli("stats", "--json").json["blobs"] == {"root": f"{place.url}/blobs", "blob_count": 1, "size": 100_000}
    assert cli("blob", "verify", "--json").json["blob_count"] == 1
    (tmp_path / "keep").write_text("")
    keep = ["blob", "collect", "--keep", str(tmp_path / "keep"), "--json"]
    assert cli(*keep, "--dry-run", "--grace", "0").json["deleted_count"] == 1
    assert cli(*keep).json["young_count"] == 1
    assert cli("blob", "rm", stored["hash"][:6]).out == f"removed {stored['hash']}\n"
    assert "no blob whose hash begins" in cli.refused("blob", "get", stored["hash"][:6])
    assert "there is no blob" in cli.refused("blob", "get", stored["hash"])


def test_blobs_of_a_remote_need_no_directory(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    for data in (tmp_path / "none", "postgresql://127.0.0.1:1/nothing"):
        cli = RemoteCli(data, place, capsys)  # type: ignore[arg-type]
        assert cli("blob", "put", str(file)).exit_code == 0
        assert len(cli("blob", "ls").lines) == 1
    assert not (tmp_path / "none").exists()


NEEDING_DAYS = {
    "logs": ["logs", "--archived", "--all"],
    "follow": ["logs", "--follow", "--after-id", "0", "--limit", "1"],
    "messages": ["runs", "messages", "run-2"],
    "rounds": ["runs", "rounds", "run-2"],
    "show": ["runs", "show", "run-2"],
    "cat": ["archive", "cat", "2026-01-02"],
    "restore": ["archive", "restore", "2026-01-02"],
    "verify": ["verify"],
    "archive verify": ["archive", "verify"],
    "reindex": ["reindex"],
    "export": ["export", "rows.jsonl"],
    "backup": ["backup", "copy"],
}
NEEDING_NONE = (["logs"], ["runs", "--all"], ["archive", "list"], ["meta", "ls"], ["stats"], ["sql", "SELECT 1"])


def test_remote_that_is_not_named_is_named_by_the_message(
    cli: RemoteCli, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("archive", "--retention-days", "0")
    without = Cli(cli.data, cli.capsys)
    monkeypatch.chdir(tmp_path)
    for name, words in NEEDING_DAYS.items():
        told = without.refused(*words)
        assert f"--remote {place.url}, or NERVE_STORE_REMOTE" in told, name
        assert f"{place.url}/logs/" in told, name
    for words in NEEDING_NONE:
        assert without(*words).exit_code == 0, words
    monkeypatch.setenv("NERVE_STORE_REMOTE", place.url)
    for name, value in place.options.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", str(value).lower() if isinstance(value, bool) else str(value))
    for name, words in NEEDING_DAYS.items():
        outcome = without(*words)
        assert outcome.exit_code == 0, (name, outcome)


@pytest.mark.parametrize("name", ["allow_http", "AWS_ALLOW_HTTP"])
def test_http_options_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Those that the store sets itself leave the others as they are."""
    place = made("s3-versitygw", tmp_path)
    options = {key: value for key, value in place.options.items() if key != "allow_http"}
    if name == "allow_http":
        options[name] = "true"
    else:
        monkeypatch.setenv(name, "true")
        monkeypatch.setenv("AWS_USER_AGENT", "tests")
    with ns.ObjectBlobStore(place.url, options=options) as blobs:
        assert blobs.read(blobs.write("x")) == b"x"


WRONG: dict[str, tuple[list[str], str]] = {
    "no place": (["--remote", "/directory"], "begin with s3://"),
    "nothing": (["--remote", ""], "begin with s3://"),
    "no value": (["--remote", "memory://a", "--remote-option", "region"], "KEY=VALUE"),
    "no name": (["--remote", "memory://a", "--remote-option", "=x"], "KEY=VALUE"),
    "no remote": (["--remote-option", "region=x"], "there is none"),
    "no size": (["--remote", "memory://a", "--max-cache-bytes", "-1"], "out of range"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_wrong_usage(data_dir: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    words, expected = WRONG[name]
    assert expected in Cli(data_dir, capsys).misused("logs", *words)


def test_wrong_variable_is_wrong_usage(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERVE_STORE_REMOTE", "nowhere")
    assert "NERVE_STORE_REMOTE of the environment" in Cli(data_dir, capsys).misused("logs")


@pytest.mark.parametrize("words", [["demo"], ["salvage", "a", "b"], ["completion", "bash"]], ids=lambda words: words[0])
def test_commands_without_a_remote_say_so(
    data_dir: Path, capsys: pytest.CaptureFixture[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(data_dir, capsys)
    assert f"'{words[0]}' takes no --remote:" in cli.misused(*words, "--remote", "memory://a")
    assert f"'{words[0]}' takes no --remote-option:" in cli.misused(*words, "--remote-option", "a=b")
    assert f"'{words[0]}' takes no --max-cache-bytes:" in cli.misused(*words, "--max-cache-bytes", "1")
    # What stands in the environment is for the others.
    monkeypatch.setenv("NERVE_STORE_REMOTE", "nowhere")
    assert cli(*words).exit_code == (1 if words[0] == "salvage" else 0)
    assert words[0] == "completion" or not (data_dir / "cache").exists()


BAD = {
    "foo": "1",
    "timeout": "soon",
    "allow_http": "maybe",
    "skip_signature": "maybe",
    "endpoint": "127.0.0.1:1",
    "AWS_ENDPOINT_URL": "127.0.0.1:1",
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_the_client_refuses_are_told_on_a_line(tmp_path: Path, cli_at_home: Cli, name: str) -> None:
    del tmp_path
    told = cli_at_home.refused("--remote", "s3://bucket/prefix", "--remote-option", f"{name}={BAD[name]}", "logs")
    assert name in told or BAD[name] in told
    with pytest.raises(ValueError, match=r"URL|option"):
        ns.ObjectBlobStore("s3://bucket/prefix", options={name: BAD[name]})


@pytest.fixture
def cli_at_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    with ns.LogStore(tmp_path / "data" / "logs.db") as log:
        log.append("system", "tick", None, None, at(0))
    return Cli(tmp_path / "data", capsys)


def test_options_before_and_after_the_command_count(cli_at_home: Cli, tmp_path: Path) -> None:
    place = made("s3-versitygw", tmp_path)
    items = [option(*item) for item in place.options.items()]
    before, after = items[:2], items[2:]
    words = [word for pair in before for word in pair]
    rest = [word for pair in after for word in pair]
    assert cli_at_home(*words, "archive", *rest[:2], "list", *rest[2:], "--remote", place.url).exit_code == 0
    assert cli_at_home(*words, "--remote", place.url, "archive", *rest, "--retention-days", "0").exit_code == 0
    assert (
        cli_at_home("archive", "--remote", place.url, "list", *words, *rest, "--json")
        .json[0]["path"]
        .startswith(place.url)
    )


def test_cache_is_bounded(cli: RemoteCli) -> None:
    cli("archive", "--retention-days", "0")
    assert cli("--max-cache-bytes", "0", "logs", "--archived", "--all").exit_code == 0
    assert len(os.listdir(cli.data / "cache")) <= 1
    assert cli("logs", "--archived", "--all").exit_code == 0
    assert len(os.listdir(cli.data / "cache")) > 1


@pytest.mark.parametrize("wrong", ["bucket", "key", "secret"])
def test_refused_listing_is_an_answer(tmp_path: Path, wrong: str) -> None:
    """Of a listing the client tells no class of errors."""
    from nerve_store.remote.bucket import Bucket

    place = made("s3-versitygw", tmp_path)
    options = objects.S3Server.options(int(place.options["endpoint"].rpartition(":")[2]))
    url = place.url
    if wrong == "bucket":
        url = "s3://there-is-none/prefix"
    else:
        options["access_key_id" if wrong == "key" else "secret_access_key"] = "wrong"
    with pytest.raises(ns.StoreIOError):
        list(Bucket(url, options).list())
