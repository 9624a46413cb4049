"""`doctor --remote`: each thing that it looks for in an object store, where it is so."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from support import objects
from support.archive import NOW, at, day, fill
from support.cli import Cli
from support.flaky import Flaky, Request, flaky

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote import bucket as bucket_module
from nerve_store.remote.bucket import Bucket, Found

DAYS = 3
Told = list[tuple[str, str, str]]
"""Level, what was looked at, and message and action in one."""


class Doctor:
    """Looks at a data directory whose days and blobs lie in a place."""

    def __init__(self, cli: Cli, place: Place) -> None:
        self.cli, self.place = cli, place
        self.remote: str = place.url

    def __call__(self, *words: str) -> Told:
        named = [f"--remote-option={name}={str(value).lower()}" for name, value in self.place.options.items()]
        if self.remote:
            words = ("--remote", self.remote, *named, *words)
        outcome = self.cli("doctor", "--json", *words)
        told = [
            (found["level"], found["check"], f"{found['message']} -> {found['action']}")
            for found in outcome.json["findings"]
        ]
        assert outcome.exit_code == int(any(level == "error" for level, _, _ in told)), outcome
        assert all(level == "ok" or not text.endswith("None") for level, _, text in told), told
        # Nothing that it stored is left.
        if words and not self.place.options:
            assert not [key for key in self.keys("logs") + self.keys("blobs") if ".probe-" in key and "old" not in key]
        return told

    def bucket(self, folder: str) -> Bucket:
        return Bucket(f"{self.place.url}/{folder}", self.place.options)

    def keys(self, folder: str) -> list[str]:
        return [one.key for page in self.bucket(folder).list() for one in page]


def only(told: Told, check: str, level: str) -> str:
    (text,) = [text for its_level, its_check, text in told if (its_level, its_check) == (level, check)]
    return text


def bad(told: Told) -> Told:
    """What is not as it should be, but for the disk of the tests."""
    return [found for found in told if found[0] != "ok" and found[1] != "file system"]


def filled(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    with ns.Store(tmp_path / "data", durability="normal", remote=place.url, remote_options=place.options or None) as s:
        fill(s.logs, days=DAYS)
        s.logs.archive_logs(now=NOW)
        s.blobs.write("content")
    return Doctor(Cli(tmp_path / "data", capsys), place)


@pytest.fixture(params=["memory", "file", "s3-versitygw", "s3-moto"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    (tmp_path / "place").mkdir()
    return filled(made(request.param, tmp_path / "place"), tmp_path, capsys)


@pytest.fixture
def doctor(directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Objects are files."""
    return filled(directory, tmp_path, capsys)


def test_what_is_as_it_should_be(anywhere: Doctor) -> None:
    told = anywhere()
    assert not bad(told)
    assert f"{DAYS} days in {anywhere.place.url}/logs" in only(told, "days", "ok")
    assert only(told, "creation", "ok")
    assert only(told, "clock of the object store", "ok")
    assert [text.count("store, read, list and delete") for _, check, text in told if check == "credentials"] == [1, 1]
    assert ("lifecycle" in {check for _, check, _ in told}) is bool(anywhere.place.options)
    assert not bad(anywhere("--quick"))


def lose_a_day(doctor: Doctor) -> str:
    doctor.bucket("logs").delete([f"{day(1)}.jsonl"])
    return f"{doctor.place.url}/logs/{day(1)}.jsonl is missing -> put it back"


def cut_a_day(doctor: Doctor) -> str:
    doctor.bucket("logs").put(f"{day(1)}.jsonl", b"x")
    return f"{doctor.place.url}/logs/{day(1)}.jsonl has 1 bytes and should have"


def name_another_prefix(doctor: Doctor) -> str:
    doctor.remote += "/other"
    return f"name it: --remote {doctor.place.url}"


def name_none(doctor: Doctor) -> str:
    doctor.remote = ""
    return f"{DAYS} days lie at {doctor.place.url}, which was not named: nothing was verified -> name it: --remote"


def leave_an_older_object(doctor: Doctor) -> str:
    with ns.Store(doctor.cli.data, durability="normal", remote=doctor.place.url) as store:
        store.logs.append("system", "late", None, None, at(1))
        store.logs.archive_logs(now=NOW)
    doctor.bucket("logs").put(f"{day(1)}.jsonl", b"x")
    return f"{doctor.place.url}/logs/{day(1)}.jsonl -> look what they hold, and move them away"


def restore_an_older_database(doctor: Doctor) -> str:
    """A day that it knows has gained a row since."""
    data = doctor.cli.data
    with ns.Store(data, durability="normal", remote=doctor.place.url) as store:
        store.backup(data.parent / "backup")
        store.logs.append("system", "late", None, None, at(1))
        store.logs.archive_logs(now=NOW)
    data.rename(data.parent / "lost")
    (data.parent / "backup").rename(data)
    return f"{doctor.place.url}/logs/{day(1)}.1.jsonl: the database does not know this day, or not all of its rows"


def lose_the_mark_and_the_database(doctor: Doctor) -> str:
    data = doctor.cli.data
    doctor.bucket("logs").delete([".nerve-store"])
    data.rename(data.parent / "lost")
    ns.Store(data).close()
    return f"{doctor.place.url}/logs/{day(0)}.jsonl: the database does not know this day, or not all of its rows"


def leave_something_else(doctor: Doctor) -> str:
    for name in ("notes.txt", "b", "c", "d"):
        doctor.bucket("logs").put(name, b"x")
    return "/logs has what is no day: b, c, d, and 1 more -> "


def leave_something_beside_blobs(doctor: Doctor) -> str:
    doctor.bucket("blobs").put("ab/cd", b"x")
    return "/blobs has what is no blob: ab/cd -> "


def die_while_testing(doctor: Doctor) -> str:
    doctor.bucket("blobs").put(".probe-old", b"x")
    return "1 object of programs that tested it, and were killed -> delete"


def have_an_old_lease(doctor: Doctor) -> str:
    doctor.bucket("blobs").put(".collecting", b"x")
    old = time.time() - 7200
    os.utime(doctor.place.path / "blobs" / ".collecting", (old, old))
    return "a collect or verify was killed -> nothing"


def set_a_blob_aside(doctor: Doctor) -> str:
    with ns.ObjectBlobStore(f"{doctor.place.url}/blobs") as blobs:
        hash = blobs.write("whole")
        doctor.bucket("blobs").put(f"{hash[:2]}/{hash[2:]}", b"damaged")
        assert not blobs.verify().ok
    return f"1 damaged blob, 7 B, set aside under {doctor.place.url}/blobs/quarantine -> write"


def have_blobs_at_home(doctor: Doctor) -> str:
    with ns.Store(doctor.cli.data) as store:
        store.blobs.write("at home")
    return f"nerve-store --remote {doctor.place.url} blob put {doctor.cli.data}/blobs/??/*"


def be_of_another_database(doctor: Doctor) -> str:
    doctor.bucket("logs").put(".nerve-store", b'{"id": "another"}')
    return "those of another database"


def have_a_day_that_the_database_does_not_know(doctor: Doctor) -> str:
    doctor.bucket("logs").put("2020-01-01.jsonl", b"x")
    return "the database does not know this day"


def leave_the_mark_of_a_copy(doctor: Doctor) -> str:
    doctor.bucket("logs").put(".copying", b"{}")
    return "nerve-store copy once more"


def have_a_newer_format(doctor: Doctor) -> str:
    doctor.bucket("blobs").put(".nerve-store", b'{"format": 99}')
    return "newer nerve_store"


@pytest.mark.parametrize(
    ("make", "level", "check"),
    [
        (lose_a_day, "error", "days"),
        (cut_a_day, "error", "days"),
        (name_another_prefix, "error", "days"),
        (name_none, "warning", "object store"),
        (leave_an_older_object, "warning", "leftovers"),
        (restore_an_older_database, "error", "archive"),
        (lose_the_mark_and_the_database, "error", "archive"),
        (leave_something_else, "warning", "leftovers"),
        (leave_something_beside_blobs, "warning", "leftovers"),
        (leave_the_mark_of_a_copy, "warning", "leftovers"),
        (die_while_testing, "warning", "leftovers"),
        (have_an_old_lease, "warning", "lease"),
        (set_a_blob_aside, "warning", "quarantine"),
        (have_blobs_at_home, "warning", "blobs"),
        (be_of_another_database, "error", "archive"),
        (have_a_day_that_the_database_does_not_know, "error", "archive"),
        (have_a_newer_format, "error", "object store"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_so_is_found_once(doctor: Doctor, make: Callable[[Doctor], str], level: str, check: str) -> None:
    expected = make(doctor)
    told = doctor()
    assert expected in only(told, check, level)
    assert len(bad(told)) == 1, told
    assert check != "archive" or "delete" not in only(told, check, level)


def test_lease_of_one_at_work_is_no_problem(doctor: Doctor) -> None:
    doctor.bucket("blobs").put(".collecting", b"x")
    assert "at work" in only(doctor(), "lease", "ok")


def test_interrupted_job_is_no_problem(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    with ns.Store(doctor.cli.data, durability="normal", remote=doctor.place.url) as store:
        fill(store.logs, days=1)
        monkeypatch.setattr(Bucket, "delete", lambda *_: (_ for _ in ()).throw(ns.StoreUnavailableError("gone")))
        with pytest.raises(ns.StoreUnavailableError):
            store.logs.archive_logs(now=NOW)
        monkeypatch.undo()
    told = doctor()
    assert not bad(told)
    assert [text for _, check, text in told if check == "days" and "1 object of jobs that were cut off" in text]


@pytest.mark.parametrize(
    ("skew", "level"),
    [
        (timedelta(minutes=20), "error"),
        (timedelta(minutes=-20), "error"),
        (timedelta(minutes=5), "warning"),
        (timedelta(minutes=-5), "warning"),
        (timedelta(seconds=20), "ok"),
    ],
)
def test_clocks_that_differ(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, skew: timedelta, level: str) -> None:
    head = Bucket.head

    def skewed(bucket: Bucket, key: str) -> Found | None:
        found = head(bucket, key)
        return found and dataclasses.replace(found, modified=found.modified + skew)

    monkeypatch.setattr(Bucket, "head", skewed)
    text = only(doctor("--quick"), "clock of the object store", level)
    assert level == "ok" or ("ahead" if skew > timedelta(0) else "behind") in text


def test_creation_that_is_not_atomic(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(bucket: Bucket, key: str, data: bytes) -> bool:
        bucket.put(key, data)
        return True

    monkeypatch.setattr(Bucket, "create", create)
    told = doctor()
    assert "does not create atomically" in only(told, "creation", "error")
    assert len(bad(told)) == 1


# --- a server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Doctor, Flaky]]:
    """A bucket behind a proxy."""
    monkeypatch.setattr(bucket_module, "_RETRIES", bucket_module._NO_RETRIES)
    place = made("s3-versitygw", tmp_path)
    doctor = filled(place, tmp_path, capsys)
    with flaky(int(place.options["endpoint"].rpartition(":")[2])) as proxy:
        place.options = objects.S3Server.options(proxy.port)
        yield doctor, proxy


def is_listing(request: Request) -> bool:
    return "list-type=2" in request.path


FORBIDDEN: dict[str, tuple[Callable[[Request], bool], str, str]] = {
    "store": (lambda request: request.method == "PUT", "warning", "they may not store objects"),
    "delete": (
        lambda request: request.method in ("DELETE", "POST"),
        "warning",
        "they may not delete objects",
    ),
    "list": (is_listing, "error", "they may not list objects"),
    "read": (
        lambda request: request.method == "GET" and not is_listing(request) and ".probe-" in request.path,
        "error",
        "they may not read objects",
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_credentials_that_may_not_do_everything(proxied: tuple[Doctor, Flaky], what: str) -> None:
    doctor, proxy = proxied
    is_forbidden, level, expected = FORBIDDEN[what]
    proxy.fault = lambda request: "forbid" if is_forbidden(request) else None
    told = doctor("--quick")
    texts = [text for its_level, check, text in told if (its_level, check) == (level, "credentials")]
    assert len(texts) == 2
    assert all(expected in text for text in texts), texts
    proxy.fault = None
    if what == "delete":
        assert "1 object of programs that tested it" in told_of_both(doctor("--quick"))


def told_of_both(told: Told) -> str:
    return " ".join(text for _, check, text in told if check == "leftovers")


def test_credentials_that_may_do_nothing(proxied: tuple[Doctor, Flaky]) -> None:
    doctor, _ = proxied
    doctor.place.options["secret_access_key"] = "wrong"
    assert "the credentials" in only(doctor("--quick"), "object store", "error")


def test_bucket_that_is_not_there(proxied: tuple[Doctor, Flaky]) -> None:
    doctor, _ = proxied
    doctor.remote = "s3://there-is-none/prefix"
    assert "the bucket" in only(doctor("--quick"), "object store", "error")


def test_server_without_an_answer(proxied: tuple[Doctor, Flaky]) -> None:
    doctor, proxy = proxied
    proxy.fault = lambda request: "refuse"
    told = doctor()
    assert "gave no answer" in only(told, "object store", "error")
    # What is here is looked at all the same.
    assert only(told, "ids", "ok")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"x-amz-expiration": 'expiry-date="Fri, 01 Jan 2027 00:00:00 GMT", rule-id="old"'}, 'rule-id="old"'),
        ({"x-amz-storage-class": "GLACIER"}, "the class GLACIER"),
    ],
)
def test_rules_that_would_take_days_away(proxied: tuple[Doctor, Flaky], header: dict[str, str], expected: str) -> None:
    doctor, proxy = proxied
    proxy.added.update(header)
    texts = [text for level, check, text in doctor("--quick") if (level, check) == ("error", "lifecycle")]
    assert len(texts) == 2
    assert all(expected in text for text in texts)


def test_store_whose_rules_cannot_be_asked_for(proxied: tuple[Doctor, Flaky], monkeypatch: pytest.MonkeyPatch) -> None:
    doctor, _ = proxied
    monkeypatch.setattr(Bucket, "signed", lambda *_: None)
    told = doctor("--quick")
    texts = [text for level, check, text in told if (level, check) == ("ok", "lifecycle")]
    assert all("look at them yourself" in text for text in texts)
    assert len(texts) == 2


def test_signed_url_says_what_the_server_knows(s3: Place) -> None:
    from urllib.request import Request as Asked
    from urllib.request import urlopen

    bucket: Any = s3.bucket()
    bucket.put("key", b"four")
    with urlopen(Asked(bucket.signed("key"), method="HEAD"), timeout=30) as answer:
        assert answer.headers["content-length"] == "4"
        assert answer.headers["date"]
