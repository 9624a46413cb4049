"""Damaged, foreign, missing and doubled files are found and named, and nothing is deleted because of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from archive_support import NOW, append, at, day, fill, gained
from support import (
    INSERT_ROW_WITH_ID,
    as_row,
    as_rows,
    database_rows,
    day_files,
    foreign_sql,
    is_one_line,
    read_union,
    tree,
)

Damage = Callable[[bytes], bytes]


def changed(old: bytes, new: bytes) -> Damage:
    def damage(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return damage


def swap_lines(content: bytes) -> bytes:
    first, second, rest = content.split(b"\n", 2)
    return b"\n".join([second, first, rest])


DAMAGES: dict[str, Damage] = {
    "last line cut off": lambda content: content[:-20],
    "last newline cut off": lambda content: content[:-1],
    "not json": lambda content: b"not json\n" + content,
    "a line of zeros": lambda content: content + b"\0" * 512 + b"\n",
    "an empty line": lambda content: content.replace(b"\n", b"\n\n", 1),
    "no utf-8": changed(b'"tick"', b'"\xff\xfek"'),
    "other json": lambda content: b"[1,2]\n" + content,
    "key missing": changed(b',"refId":"ref-0"', b""),
    "key unknown": changed(b'"source"', b'"origin"'),
    "key too many": changed(b"}\n", b',"more":1}\n'),
    "id is text": changed(b'"id":1', b'"id":"1"'),
    "timestamp of another day": changed(f'"timestamp":{at(0)}'.encode(), f'"timestamp":{at(1)}'.encode()),
    "timestamp is a fraction": changed(f'"timestamp":{at(0)}'.encode(), f'"timestamp":{at(0)}.5'.encode()),
    "line twice": lambda content: content.split(b"\n", 1)[0] + b"\n" + content,
    "lines out of order": swap_lines,
    "bytes before": lambda content: b"\xef\xbb\xbf" + content,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_day_file_stops_the_run_and_nothing_is_deleted(log_store: ns.LogStore, damage: Damage) -> None:
    fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    path = day_files(log_store.archive_dir)[day(0)]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    late = [append(log_store, at(n)) for n in range(3)]
    before = tree(Path(log_store.archive_dir))
    with pytest.raises(ns.ArchiveCorruptError) as refused:
        log_store.archive_logs(now=NOW)
    assert refused.value.path is not None
    assert Path(refused.value.path) == path
    assert path.name in str(refused.value)
    assert is_one_line(refused.value)
    assert isinstance(refused.value, ns.CorruptStoreError)
    assert database_rows(log_store) == late
    assert tree(Path(log_store.archive_dir)) == before

    with pytest.raises(ns.ArchiveCorruptError) as unread:
        list(log_store.read_archive(day(0)))
    assert path.name in str(unread.value)

    path.write_bytes(whole)
    assert gained(log_store.archive_logs(now=NOW)) == {day(n): 1 for n in range(3)}
    assert database_rows(log_store) == []
    assert {row.id for row in late} <= read_union(log_store).archived.keys()


def test_rows_before_the_damage_are_still_read(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=1)
    log_store.archive_logs(now=NOW)
    path = day_files(log_store.archive_dir)[day(0)]
    path.write_bytes(path.read_bytes()[:-20])
    reader = log_store.read_archive(day(0))
    assert [as_row(next(reader)) for _ in range(6)] == rows[:6]
    with pytest.raises(ns.ArchiveCorruptError, match="7"):
        next(reader)


def test_damaged_file_does_not_spoil_the_other_days(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    day_files(log_store.archive_dir)[day(1)].write_bytes(b"not json\n")
    assert as_rows(log_store.read_archive(day(0))) == [row for row in rows if row.timestamp < at(1)]
    append(log_store, at(0))
    assert gained(log_store.archive_logs(now=NOW)) == {day(0): 1}


@pytest.mark.parametrize("column", ["source", "type", "ref_id", "payload", "timestamp"])
def test_other_row_under_the_same_id_stops_the_run(log_store: ns.LogStore, column: str) -> None:
    """A database that was replaced, so that its ids begin anew."""
    rows = fill(log_store, days=2)
    log_store.archive_logs(now=NOW)
    before = tree(Path(log_store.archive_dir))
    value: Any = at(0, 1234) if column == "timestamp" else "other"
    other = rows[0]._replace(**{column: value})
    foreign_sql(log_store.path, INSERT_ROW_WITH_ID, other)
    with pytest.raises(ns.ArchiveError) as refused:
        log_store.archive_logs(now=NOW)
    assert not isinstance(refused.value, ns.ArchiveCorruptError)
    assert f"{day(0)}.jsonl" in str(refused.value)
    assert str(other.id) in str(refused.value)
    assert database_rows(log_store) == [other]
    assert tree(Path(log_store.archive_dir)) == before


@pytest.mark.parametrize("kind", ["directory", "symlink", "dangling symlink", "fifo"])
def test_day_file_that_is_no_file_is_refused(log_store: ns.LogStore, tmp_path: Path, kind: str) -> None:
    path = Path(log_store.archive_dir) / f"{day(0)}.jsonl"
    path.parent.mkdir(parents=True)
    target = tmp_path / "target"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        subprocess.run(["mkfifo", str(path)], check=True)
    else:
        path.symlink_to(target)
        if kind == "symlink":
            target.write_text("precious")
    rows = fill(log_store, days=1)
    with pytest.raises(ns.NerveStoreError):
        log_store.archive_logs(now=NOW)
    assert database_rows(log_store) == rows
    assert (target.read_text() if target.exists() else None) == ("precious" if kind == "symlink" else None)


def test_archive_directory_that_is_a_file_is_refused(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "cold").write_text("not a directory")
    with ns.LogStore(data_dir / "logs.db", archive_dir=tmp_path / "cold") as store:
        rows = fill(store, days=1)
        with pytest.raises(ns.StoreIOError):
            store.archive_logs(now=NOW)
        assert database_rows(store) == rows
