"""`AsyncStore` and `Store`: a whole data directory."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

import nerve_store as ns
from support.event_loops import run

MISSING = "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


def test_async_store_is_one_directory(data_dir: Path) -> None:
    async def main() -> None:
        async with ns.AsyncStore(data_dir, durability="normal", segment_rows=7, max_payload_bytes=10) as store:
            entry = await store.logs.append("s", "t")
            assert await store.logs.query() == [entry]
            hash = await store.blobs.write("x")
            assert store.path == str(data_dir)
            assert store.archive_dir == store.logs.archive_dir == str(data_dir / "archive" / "logs")
            assert not store.closed
            with pytest.raises(ValueError, match="max_payload_bytes"):
                await store.logs.append("s", "t", None, "x" * 11)
        assert store.closed
        assert store.logs.closed
        assert store.blobs.closed
        with ns.Store(data_dir) as plain:
            assert plain.logs.query() == [entry]
            assert plain.blobs.read(hash) == b"x"

    run(main())


def test_store_takes_every_option_of_the_log(data_dir: Path, tmp_path: Path) -> None:
    options = list(inspect.signature(ns.LogStore).parameters.values())
    for owner in (ns.Store, ns.AsyncStore, ns.AsyncLogStore):
        found = [(p.name, p.default) for p in inspect.signature(owner).parameters.values() if p.name != "self"]
        own: list[tuple[str, object]] = []
        if owner is not ns.AsyncLogStore:
            own = [("remote", None), ("remote_options", None), ("max_cache_bytes", 1 << 30), ("cache", None)]
            own += [("schema", "nerve"), ("listen_url", None)]
        assert found == [(p.name, p.default) for p in options] + own
    archive = tmp_path / "elsewhere"
    with ns.Store(data_dir, archive_dir=archive, max_payload_bytes=10, busy_timeout=1, segment_rows=5) as store:
        assert store.archive_dir == str(archive)
        assert store.path == str(data_dir)
        assert not store.closed
        with pytest.raises(ValueError, match="max_payload_bytes"):
            store.logs.append("s", "t", None, "x" * 11)
    assert store.closed


def test_a_log_that_cannot_be_opened_leaves_nothing_open(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "logs.db").write_bytes(b"no database" * 100)
    for owner in (ns.Store, ns.AsyncStore):
        with pytest.raises(ns.CorruptStoreError):
            owner(data_dir)
    links = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    assert not [link for link in links if link.is_symlink() and str(data_dir) in os.readlink(link)]
