"""A copy of the database alone, whose days lie in an object store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from support import as_rows
from support.archive import NOW, fill
from support.cli import Cli

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

DAYS = 3


def by_method(store: ns.Store, target: Path, place: Place) -> None:
    del place
    store.logs.backup(target)


def by_async_method(store: ns.Store, target: Path, place: Place) -> None:
    async def back_up() -> None:
        async with ns.AsyncStore(Path(store.logs.path).parent, remote=place.url, remote_options=place.options) as other:
            await other.logs.backup(target)

    asyncio.run(back_up())


CALLS: dict[str, Callable[[ns.Store, Path, Place], None]] = {"method": by_method, "async method": by_async_method}


def prepared(data: Path, place: Place, *, live: int) -> list[Any]:
    """A log of which one segment is archived, wholly or but for `live` rows."""
    with ns.Store(data, durability="normal", remote=place.url, remote_options=place.options) as store:
        fill(store.logs, days=DAYS)
        for _ in range(live):
            store.logs.append("system", "live", timestamp=NOW)
        store.logs.archive_logs(now=NOW)
        return as_rows(store.logs.query(archived=True))


@pytest.mark.parametrize("live", [0, 1, 5_000])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["memory", "file", "s3-versitygw", "s3-moto"])
def test_database_alone_is_copied_while_its_days_are_elsewhere(tmp_path: Path, kind: str, call: str, live: int) -> None:
    place = made(kind, tmp_path)
    data, target = tmp_path / "data", tmp_path / "copy" / "logs.db"
    rows = prepared(data, place, live=live)
    with ns.Store(data, durability="normal", remote=place.url, remote_options=place.options) as store:
        CALLS[call](store, target, place)
    with ns.Store(target.parent, read_only=True, remote=place.url, remote_options=place.options) as copy:
        assert as_rows(copy.logs.query(archived=True)) == rows
        assert copy.logs.verify().ok


@pytest.mark.parametrize("live", [0, 1, 5_000])
def test_command_copies_the_database_alone(
    directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], live: int
) -> None:
    data, target = tmp_path / "data", tmp_path / "copy" / "logs.db"
    rows = prepared(data, directory, live=live)
    done = Cli(data, capsys)("backup", "--database-only", str(target), "--remote", directory.url)
    assert done.exit_code == 0, done
    with ns.Store(target.parent, read_only=True, remote=directory.url) as copy:
        assert as_rows(copy.logs.query(archived=True)) == rows
