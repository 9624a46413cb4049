"""The directory for days that were fetched: what lies there besides, and where nothing can be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place
from support import as_rows
from support.archive import NOW, fill

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote.days.cache import Cache

DAYS = 4
OLD = (1e9, 1e9)


def opened(place: Place, data: Path, **options: Any) -> ns.Store:
    return ns.Store(data, durability="normal", remote=place.url, **options)


def put_foreign_things(directory: Path) -> set[str]:
    """Things of a user, older than all that the cache has, some with names that resemble its own."""
    names = ["thesis.doc", "logs.db", ".hidden", "0" * 63, "0" * 65, "A" * 64, ".stage-left to me", ".stage-x"]
    for name in names:
        (directory / name).write_bytes(b"x" * 100_000)
    (directory / "lost+found").mkdir()
    (directory / ("1" * 64)).mkdir()
    (directory / ("2" * 64)).symlink_to(directory / "thesis.doc")
    for entry in os.scandir(directory):
        os.utime(entry, OLD, follow_symlinks=False)
    return set(os.listdir(directory))


def test_what_the_cache_has_not_made_is_neither_removed_nor_counted(memory: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    theirs = put_foreign_things(shared)
    abandoned = shared / ".stage-0123456789abcdef"
    abandoned.write_bytes(b"x")
    os.utime(abandoned, OLD)
    with opened(memory, tmp_path / "data", cache=shared, max_cache_bytes=1 << 16) as store:
        rows = fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW)
        for _ in range(2):
            assert as_rows(store.logs.query(archived=True)) == rows
        assert set(os.listdir(shared)) == theirs | {item.sha256 for item in store.logs.archived_days()}
    with opened(memory, tmp_path / "data", cache=shared, max_cache_bytes=0) as store:
        assert as_rows(store.logs.query(archived=True)) == rows
        assert len(os.listdir(shared)) == len(theirs) + 1


PLACES: dict[str, Callable[[Path], tuple[Path, dict[str, Any]]]] = {
    "data": lambda path: (path / "data", {}),
    "above data": lambda path: (path, {}),
    "archive": lambda path: (path / "data" / "archive", {}),
    "days": lambda path: (path / "data" / "archive" / "logs", {}),
    "below the days": lambda path: (path / "data" / "archive" / "logs" / "cache", {}),
    "days elsewhere": lambda path: (path / "days", {"archive_dir": path / "days"}),
    "a link to the days": lambda path: (path / "link", {"archive_dir": path / "days"}),
    "blobs": lambda path: (path / "data" / "blobs", {}),
    "remote": lambda path: (path / "ob jects", {"remote": (path / "ob jects").as_uri()}),
    "remote blobs": lambda path: (path / "ob jects" / "blobs", {"remote": (path / "ob jects").as_uri()}),
}


@pytest.mark.parametrize("kind", [ns.Store, ns.AsyncStore])
@pytest.mark.parametrize("place", PLACES)
def test_cache_that_is_not_apart_is_refused(kind: Any, place: str, tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "days")
    before = set(os.listdir(tmp_path))
    cache, options = PLACES[place](tmp_path)
    with pytest.raises(ValueError, match=r"^cache must be a directory of its own"):
        kind(tmp_path / "data", cache=cache, **{"remote": "memory://apart", **options})
    assert set(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_days_in_a_cache_that_cannot_be_written_are_read(
    memory: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As on a read-only file system, or where another user has made the files."""
    with opened(memory, tmp_path / "data") as store:
        rows = fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW)
        assert as_rows(store.logs.query(archived=True)) == rows

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number), str(arguments[0]))

    with opened(memory, tmp_path / "data", read_only=True, max_cache_bytes=0) as store:
        for name in ("utime", "unlink", "rename", "mkdir"):
            monkeypatch.setattr(os, name, refuse)
        for _ in range(2):
            assert as_rows(store.logs.query(archived=True)) == rows
        assert store.logs.verify().ok
    monkeypatch.undo()
    with opened(memory, tmp_path / "data", cache=tmp_path / "empty", read_only=True) as store:
        monkeypatch.setattr(os, "rename", refuse)
        with pytest.raises(ns.StoreIOError) as caught:
            store.logs.query(archived=True)
        assert caught.value.errno == number


def test_cache_that_is_removed_meanwhile(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"), 100)
    hash = ns.blob_hash(b"content")
    path = cache.path_of(hash, 7, lambda: iter([b"content"]))
    os.unlink(path)
    os.rmdir(tmp_path / "cache")
    cache.unpin(path)
    assert Path(cache.path_of(hash, 7, lambda: iter([b"content"]))).read_bytes() == b"content"
