"""A URL where a path is wanted is refused by name: it would be taken for a directory below the current one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from nerve_store.cli import main
from nerve_store.moving import copy
from support import is_one_line
from support.cli import Cli

URLS = ["s3://b/p", "gs://b/p", "az://b/p", "file:///b/p", "mysql://u:secret@h/x", "S3+x.y-z://h", "x://"]
SERVER = "postgresql://u:secret@h/x"
CALLS: dict[str, Callable[[Any], object]] = {
    "path of Store": ns.Store,
    "path of AsyncStore": ns.AsyncStore,
    "path of LogStore": ns.LogStore,
    "path of AsyncLogStore": ns.AsyncLogStore,
    "root of BlobStore": ns.BlobStore,
    "root of AsyncBlobStore": ns.AsyncBlobStore,
    "archive_dir of Store": lambda url: ns.Store("data", archive_dir=url),
    "archive_dir of AsyncStore": lambda url: ns.AsyncStore("data", archive_dir=url),
    "archive_dir of LogStore": lambda url: ns.LogStore("data/logs.db", archive_dir=url),
    "cache of Store": lambda url: ns.Store("data", remote="memory://x", cache=url),
    "damaged of salvage": lambda url: ns.salvage(url, "saved.db"),
    "target of salvage": lambda url: ns.salvage("damaged.db", url),
    "source of copy": lambda url: copy(url, "data"),
    "target of copy": lambda url: copy("data", url),
}


TAKE_SERVERS = {"path of Store", "path of AsyncStore", "source of copy", "target of copy"}


@pytest.mark.parametrize("url", [*URLS, SERVER])
def test_url_in_the_place_of_a_path(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, call in CALLS.items():
        if url == SERVER and name in TAKE_SERVERS:
            continue
        with pytest.raises(ValueError, match=rf"^{name.split()[0]} .*is a URL") as refused:
            call(url)
        assert "secret" not in str(refused.value)
        assert is_one_line(refused.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("url", URLS)
def test_url_as_the_target_of_a_backup(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ns.Store("data") as store:
        store.logs.append("system", "tick")
        for backup in (store.backup, store.logs.backup):
            with pytest.raises(ValueError, match=r"^target .*is a URL"):
                backup(url)
        with pytest.raises(ValueError, match=r"^file .*is a URL"):
            store.blobs.write_file(url)
    assert os.listdir(tmp_path) == ["data"]


def test_object_store_is_said_to_have_an_argument_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="remote="):
        ns.Store("s3://b/p")
    with pytest.raises(ValueError, match="named by source_remote="):
        copy("s3://b/p", "data")
    with pytest.raises(ValueError, match="begins with postgresql://"):
        copy("data", "mysql://h/x")


def test_empty_path_is_not_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, call in CALLS.items():
        with pytest.raises(ValueError, match=rf"^{name.split()[0]} is an empty path"):
            call("")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["a:/b", "a:b", "://b", "1a://b", "a b://c", "./s3://b", "é://b"])
def test_paths_that_are_no_urls(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ns.Store(path) as store:
        store.logs.append("system", "tick")
        store.backup("backup")
    with ns.LogStore(f"{path}/logs.db", read_only=True) as log:
        assert log.count() == 1


def test_commands_refuse_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["stats"], ["logs"], ["verify"], ["doctor"], ["blob", "verify"], ["backup", "x"]):
        cli = Cli(cast("Path", "s3://bucket/prefix"), capsys)
        told = cli.misused(*words)
        assert "--data 's3://bucket/prefix' is a URL" in told
        assert "named by --remote" in told
    monkeypatch.setenv("NERVE_STORE_DATA", "mysql://u:secret@h/x")
    with pytest.raises(SystemExit):
        main(["stats"])
    told = capsys.readouterr().err
    assert "NERVE_STORE_DATA" in told
    assert "secret" not in told
    assert os.listdir(tmp_path) == []
