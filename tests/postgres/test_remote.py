"""A log on a server whose days and blobs lie in an object store: `copy` to it and from it, and the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place, made
from nerve_store.cli import main
from nerve_store.moving import copy
from postgres.moved import check_that_it_works, claims, content, fill
from support import child_environment
from support.archive import NOW, at
from support.cli import Cli

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote.bucket import Bucket


@pytest.fixture(params=["file", "s3-versitygw"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    (tmp_path / "bucket").mkdir()
    return made(request.param, tmp_path / "bucket")


@pytest.fixture
def other(bucket: Place, tmp_path: Path) -> Place:
    """Another one of the same kind."""
    (tmp_path / "other").mkdir()
    return made(bucket.name, tmp_path / "other")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with something of everything."""
    with ns.Store(tmp_path / "data") as store:
        fill(store.logs)
        for number in range(20):
            store.blobs.write(f"blob {number}")
    return tmp_path / "data"


def url(place: Backend, suffix: str = "") -> str:
    return f"{place.direct_url}?schema={place.schema}{suffix}"


def opened(place: Backend, bucket: Place, suffix: str = "") -> ns.Store:
    options = bucket.options or None
    return ns.Store(place.direct_url, schema=place.schema + suffix, remote=bucket.url, remote_options=options)


def target(bucket: Place) -> dict[str, Any]:
    return {"remote": bucket.url, "remote_options": bucket.options or None}


def source(bucket: Place) -> dict[str, Any]:
    return {f"source_{name}": value for name, value in target(bucket).items()}


def objects(bucket: Place) -> dict[str, Any]:
    found = Bucket(f"{bucket.url}/logs", bucket.options)
    names = [one.key for page in found.list() for one in page]
    return {key: found.get(key, longest=1 << 30) for key in names if key[0] != "."}


def blobs(store: Any) -> dict[str, bytes | None]:
    return {hash: store.blobs.read(hash) for hash in store.blobs}


def without_files(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "files"}


def test_log_moves_to_a_server_with_a_bucket_and_back(
    place: Backend, data: Path, bucket: Place, other: Place, tmp_path: Path
) -> None:
    with ns.Store(data) as store:
        held, lost = claims(store.logs)
        before, stored = content(store.logs), blobs(store)
    there = copy(str(data), url(place), finish=True, **target(bucket))
    assert (there.is_finished, there.copied_blobs, there.blob_count) == (True, 20, 20)
    assert sorted(objects(bucket).values()) == sorted(before["files"].values())
    with opened(place, bucket) as store:
        assert without_files(content(store.logs)) == without_files(before)
        assert blobs(store) == stored
        assert store.logs.verify().ok
    # From one server and bucket to others, and home to a directory with a bucket of its own, and to one without.
    copy(url(place), url(place, "_second"), finish=True, **source(bucket), **target(other))
    assert objects(other) == objects(bucket)
    back = copy(url(place, "_second"), str(tmp_path / "back"), finish=True, **source(other))
    assert back.copied_blobs == 20
    with ns.Store(tmp_path / "back") as store:
        assert content(store.logs) == before
        assert blobs(store) == stored
        check_that_it_works(store.logs, held, lost)
    third = Place(bucket.name, bucket.path, f"{bucket.url}-third", bucket.options)
    copy(url(place), str(tmp_path / "third"), finish=True, **source(bucket), **target(third))
    with ns.Store(tmp_path / "third", remote=third.url, remote_options=third.options or None) as store:
        assert without_files(content(store.logs)) == without_files(before)
        assert store.logs.verify().ok
    with opened(place, bucket) as store:
        check_that_it_works(store.logs, held, lost)
        store.logs.append("system", "late", None, "x", at(1))
        store.logs.archive_logs(now=NOW)
        assert store.logs.verify().ok
    place.execute(f"DROP SCHEMA {place.schema}_second CASCADE")


KILLED = """
import sys
from nerve_store.moving import copy, objects, server, work
from support.killing import killing
point, number, source, target, remote = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
where, name, when = point.split(".")
owner = {"target": server.ServerTarget, "objects": objects.Objects, "work": work}[where]
setattr(owner, name, killing(getattr(owner, name), when, number))
copy(source, target, remote=remote, finish=True)
"""
POINTS = [
    ("objects.claim.after", 1),
    ("objects.put.after", 2),
    ("target.note_day.after", 3),
    ("work.bring_blobs.after", 1),
    ("target.replace_state.after", 1),
    ("target.index.after", 1),
    ("target.publish.before", 1),
    ("target.publish.after", 1),
]


def test_killed_copy_goes_on(place: Backend, data: Path, tmp_path: Path) -> None:
    """Killed at one point after the other; days gain rows, change their form and are expired meanwhile."""
    bucket = made("file", tmp_path / "bucket")
    expected: dict[str, Any] = {}
    for number, (point, count) in enumerate(POINTS):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, point, str(count), str(data), url(place), bucket.url],
            env=child_environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, (point, done.stderr)
        if point == "target.publish.after":
            break
        with ns.LogStore(data / "logs.db") as log:
            log.append("system", "late", None, point, at(1 + number % 7))
            log.archive_logs(now=at(9), retention=timedelta(0), compression="zstd" if number % 2 else None)
            log.expire_archive(before=ns.utc_day(at(1 if number == 5 else 0)))
            expected = content(log)
    with opened(place, bucket) as store:
        assert without_files(content(store.logs)) == without_files(expected)
        assert len(list(store.blobs)) == 20
        assert store.logs.verify().ok
    assert sorted(objects(bucket).values()) == sorted(expected["files"].values())


def test_two_archives_are_refused(place: Backend, data: Path, tmp_path: Path) -> None:
    bucket = made("file", tmp_path / "bucket")
    with pytest.raises(ns.NerveStoreError, match="two archives"):
        copy(str(data), f"{url(place)}&archive={tmp_path}/days", **target(bucket))
    with pytest.raises(ns.NerveStoreError, match="two object stores"):
        copy(str(data), f"{url(place)}&archive=memory://a", **target(bucket))
    # The URL alone says the same as `remote`.
    assert copy(str(data), f"{url(place)}&archive={bucket.url}", finish=True).blob_count == 20
    with opened(place, bucket) as store:
        assert store.logs.verify().ok


# --- the command line --------------------------------------------------------------------------------------------


class RemoteCli(Cli):
    """Names a server and a bucket."""

    def __init__(self, url: str, bucket: Place, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(url, capsys)  # type: ignore[arg-type]
        self.words = ["--remote", bucket.url]
        for name, value in bucket.options.items():
            self.words += ["--remote-option", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]

    def __call__(self, *arguments: str) -> Any:
        return super().__call__(*self.words, *arguments)


@pytest.fixture
def cli(place: Backend, data: Path, bucket: Place, capsys: pytest.CaptureFixture[str]) -> RemoteCli:
    copy(str(data), url(place), finish=True, **target(bucket))
    return RemoteCli(url(place), bucket, capsys)


def test_commands_answer_as_of_a_directory(cli: RemoteCli, data: Path, bucket: Place, tmp_path: Path) -> None:
    home = Cli(data, cli.capsys)
    for words in (
        ["logs", "--all", "--archived", "--json"],
        ["runs", "show", "run-1", "--json"],
        ["runs", "messages", "run-2", "--json"],
        ["archive", "cat", "2026-01-02", "--json"],
        ["blob", "ls"],
    ):
        ours, theirs = cli(*words), home(*words)
        assert (ours.exit_code, ours.out, ours.err) == (theirs.exit_code, theirs.out, theirs.err), words
    stats = cli("stats", "--json").json
    assert stats["blobs"] == {"root": f"{bucket.url}/blobs", "blob_count": 20, "size": stats["blobs"]["size"]}
    assert cli("stats").out.startswith("server")
    verified = cli("verify", "--json").json
    assert (verified["ok"], verified["blobs"]["blob_count"]) == (True, 20)
    assert "20 blobs" in cli("verify").out
    assert cli("archive", "--retention-days", "0", "--zstd").exit_code == 0
    assert {day["path"].rpartition("/")[0] for day in cli("archive", "list", "--json").json} == {f"{bucket.url}/logs"}
    assert cli("reindex").exit_code == 0
    assert cli("export", str(tmp_path / "rows.csv")).exit_code == 0


def test_doctor(cli: RemoteCli, bucket: Place) -> None:
    def told() -> list[tuple[str, str, str]]:
        findings = cli("doctor", "--json").json["findings"]
        return [
            (found["level"], found["check"], f"{found['message']} -> {found['action']}")
            for found in findings
            if found["level"] != "ok" and found["check"] not in ("fsync", "full_page_writes")
        ]

    assert told() == []
    days = Bucket(f"{bucket.url}/logs", bucket.options)
    days.put("2026-01-02.9.txt", b"x")
    key = min(objects(bucket))
    whole = days.get(key, longest=1 << 30)
    assert isinstance(whole, bytes)
    days.delete([key])
    assert sorted(found[:2] for found in told()) == [("error", "days"), ("warning", "leftovers")]
    days.put(key, whole)
    days.delete(["2026-01-02.9.txt"])
    assert told() == []


def test_bucket_that_is_not_named_is_named_by_the_message(cli: RemoteCli, bucket: Place) -> None:
    without = Cli(cli.data, cli.capsys)
    for words in (["logs", "--archived", "--all"], ["archive", "cat", "2026-01-02"], ["verify"]):
        assert f"--remote {bucket.url}, or NERVE_STORE_REMOTE" in without.refused(*words), words
    findings = without("doctor", "--json").json["findings"]
    assert f"--remote {bucket.url}" in str(findings)
    # The servers of the tests write nothing to the disk for good.
    assert {found["check"] for found in findings if found["level"] == "error"} <= {"fsync"}


def test_url_may_name_the_bucket(
    place: Backend, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = made("file", tmp_path / "bucket")
    copy(str(data), url(place), finish=True, **target(bucket))
    cli = Cli(f"{url(place)}&archive={bucket.url}", capsys)  # type: ignore[arg-type]
    assert cli("verify", "--json").json["blobs"]["blob_count"] == 20
    assert "two object stores" in cli.misused("logs", "--remote", "memory://a")
    directory = Cli(f"{url(place)}&archive={tmp_path}", capsys)  # type: ignore[arg-type]
    assert main(["--data", str(directory.data), "--remote", bucket.url, "logs"]) == 1
    assert "names an archive" in capsys.readouterr().err
