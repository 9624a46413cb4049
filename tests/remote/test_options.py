"""Options, URLs and temporary directories that an object store cannot be opened or written with."""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place
from support import is_one_line

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.moving import copy
from nerve_store.postgres.archive.scratch import Scratch
from nerve_store.remote import bucket
from nerve_store.remote.bucket import PART_BYTES, Bucket

ENDPOINT = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"region": None}, "region"),
        ({"region": b"x"}, "region"),
        ({"timeout": None}, "timeout"),
        ({"timeout": [30]}, "timeout"),
        ({"default_headers": 5.0j}, "default_headers"),
        ({"region": timedelta(1)}, "region"),
        ({5: "x"}, "name of an option"),
        ({None: "x"}, "name of an option"),
    ],
)
def test_option_of_another_type_is_named(options: dict[Any, Any], named: str) -> None:
    with pytest.raises(TypeError, match=named):
        Bucket("s3://bucket/x", options)


@pytest.mark.parametrize("options", [5, "x", [1], [("endpoint", "x")], True])
def test_options_that_are_no_mapping_are_named(options: Any, tmp_path: Path) -> None:
    calls: dict[str, Callable[[], object]] = {
        "options": lambda: ns.ObjectBlobStore("s3://b/x", options=options),
        "remote_options": lambda: ns.Store(tmp_path / "data", remote="s3://b/x", remote_options=options),
        "archive_options": lambda: ns.PostgresLogStore(
            "postgresql://127.0.0.1:9/x", archive="s3://b/x", archive_options=options
        ),
        "source_remote_options": lambda: copy(
            tmp_path / "data", "there", source_remote="s3://b/x", source_remote_options=options
        ),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"^{name} must be a mapping or None, not {type(options).__name__}$"):
            call()
    with pytest.raises(TypeError, match=r"^remote_options must be a mapping"):
        ns.AsyncStore(tmp_path / "data", remote="s3://b/x", remote_options=options)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "options", [{"timeout": -1}, {"timeout": float("nan")}, {"connect_timeout": float("inf")}, {"timeout": "abc"}]
)
def test_time_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"timeout|Duration"):
        Bucket("s3://bucket/x", options)


@pytest.mark.parametrize(
    "options",
    [{"timeout": 30}, {"timeout": 0.5}, {"timeout": "30s"}, {"read_timeout": timedelta(seconds=3)}, {"region": 5}],
)
def test_numbers_are_taken_for_text_and_seconds(options: dict[str, Any]) -> None:
    Bucket("s3://bucket/x", options)


@pytest.mark.parametrize("name", ["endpoint", "endpoint_url", "aws_endpoint", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("allowed", [{}, {"allow_http": False}, {"allow_http": "false"}])
def test_endpoint_without_encryption_is_refused_unless_allowed(name: str, allowed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allow_http"):
        Bucket("s3://bucket/x", {name: ENDPOINT} | allowed)
    for yes in (True, "true", "1"):
        Bucket("s3://bucket/x", {name: ENDPOINT, "allow_http": yes})


def test_environment_allows_what_options_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", ENDPOINT)
    with pytest.raises(ValueError, match="allow_http"):
        Bucket("s3://bucket/x", {})
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    Bucket("s3://bucket/x", {})


@pytest.mark.parametrize("url", ["file://host/x", "s3://b\0/x", "s3://[::1/x", "s3://B U/x", "s3://key:secret@[::1/x"])
def test_url_that_is_none_is_named(url: str, tmp_path: Path) -> None:
    for call in (lambda: ns.ObjectBlobStore(url), lambda: ns.Store(tmp_path, remote=url)):
        with pytest.raises(ValueError, match=r"URL|directory") as caught:
            call()
        assert is_one_line(caught.value)
        assert repr(url.rpartition("@")[2])[1:-1] in str(caught.value)
        assert "secret" not in str(caught.value)


def write_by_pieces(blobs: Any) -> None:
    """What was lost is not published later."""
    with suppress(ns.StoreIOError), blobs.writer() as writer:
        for _ in range(12):
            writer.write(bytes(1 << 20))
    with pytest.raises(ValueError, match="discarded"):
        writer.hash  # noqa: B018 - it is asked for
    writer = blobs.writer()
    with suppress(ns.StoreIOError):
        for _ in range(12):
            writer.write(bytes(1 << 20))
    writer.close()


WRITES: dict[str, Callable[[Any], Any]] = {
    "writer": write_by_pieces,
    "stream": lambda blobs: blobs.write_file(io.BytesIO(bytes(12 << 20))),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, ns.StoreFullError), (errno.EDQUOT, ns.StoreFullError), (errno.EIO, ns.StoreIOError)],
)
def test_temporary_file_that_takes_no_more_is_told(
    memory: Place,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    write: str,
    number: int,
    error: type[ns.StoreIOError],
) -> None:
    blobs = memory.open()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(self: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
    with pytest.raises(error) as caught:
        WRITES[write](blobs)
    assert (caught.value.errno, caught.value.path) == (number, str(tmp_path))
    assert list(blobs) == []


@pytest.mark.parametrize("write", WRITES)
def test_temporary_directory_that_is_missing_is_told(
    memory: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: str
) -> None:
    blobs = memory.open()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ns.StoreIOError) as caught:
        WRITES[write](blobs)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(ns.StoreIOError, match="TMPDIR") as of_days:
        Scratch()
    assert of_days.value.errno == errno.ENOENT


def test_slow_links_suffice() -> None:
    """A server that is silent ends a call in a minute, and what is under way at once takes less than its bound."""
    sent = PART_BYTES * bucket._PARTS_AT_ONCE
    assert sent / 0.5e6 < bucket._UPLOAD["timeout"].total_seconds() <= 60
    assert sent / 0.5e6 < bucket._UPLOAD["read_timeout"].total_seconds()
    fetched = 4 * PART_BYTES // 2
    assert fetched / 0.25e6 < bucket._CLIENT["timeout"].total_seconds()
    assert bucket._CLIENT["read_timeout"].total_seconds() <= 60
