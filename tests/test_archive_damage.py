"""Damaged, foreign, missing and doubled files are found and named, and nothing is deleted because of them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import Row
from support import (
    INSERT_ROW_WITH_ID,
    as_row,
    as_rows,
    assert_union,
    database_rows,
    day_files,
    foreign_sql,
    is_one_line,
    read_union,
    tree,
)
from support.archive import NOW, append, archived_elsewhere, at, day, fill, gained

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


def test_no_row_of_a_damaged_block_is_returned(log_store: ns.LogStore) -> None:
    """A block is compared with its checksum before its rows are given out; the blocks before it are read."""
    log_store.append_many([("system", "tick", None, "x" * 1000, at(0, n)) for n in range(200)])
    rows = database_rows(log_store)
    log_store.archive_logs(now=NOW)
    path = day_files(log_store.archive_dir)[day(0)]
    content = path.read_bytes()
    path.write_bytes(content[:-20] + b"y" + content[-19:])
    seen: list[Row] = []
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        seen.extend(as_row(entry) for entry in log_store.read_archive(day(0)))
    assert seen == rows[: len(seen)]
    assert 0 < len(seen) < 199


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


# --- every damage, found by reading and by verification ----------------------------------------------------------


def flip_a_digit(content: bytes) -> bytes:
    """Still a row of the same size, and JSON."""
    at_digit = content.index(b'"timestamp":') + 20
    digit = content[at_digit : at_digit + 1]
    assert digit.isdigit()
    return content[:at_digit] + (b"7" if digit != b"7" else b"3") + content[at_digit + 1 :]


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


BOTH_FORMATS: dict[str, Damage] = {
    "cut off": lambda content: content[:-20],
    "emptied": lambda _: b"",
    "one bit flipped": flip_a_bit,
    "twice": lambda content: content * 2,
    "zeros": lambda content: bytes(len(content)),
    "a byte more": lambda content: content + b"\n",
}
PLAIN_ONLY: dict[str, Damage] = {
    "last byte flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "digit flipped": flip_a_digit,
    "letters changed": changed(b'"tick"', b'"tock"'),
    "every line twice": lambda content: b"".join(line * 2 for line in content.splitlines(keepends=True)),
    "first line gone": lambda content: content.split(b"\n", 1)[1],
}
SILENT_DAMAGES = [(None, name, damage) for name, damage in (BOTH_FORMATS | PLAIN_ONLY).items()] + [
    ("zstd", name, damage) for name, damage in BOTH_FORMATS.items()
]


def assert_found(store: ns.LogStore, path: Path, damaged: date) -> None:
    """Verification and every read name the file; a run that touches the day deletes nothing, and changes nothing."""
    problems = [item for item in store.verify().problems if item.day == damaged]
    assert problems
    assert {Path(item.path).name.split(".")[0] for item in problems} == {str(damaged)}
    for read in (
        lambda: list(store.read_archive(damaged)),
        lambda: store.query(archived=True),
        lambda: list(store.iter(archived=True)),
        lambda: store.restore_archive(damaged),
    ):
        with pytest.raises(ns.ArchiveError) as unread:
            read()
        assert str(damaged) in str(unread.value)
        assert unread.value.path is not None
        assert Path(unread.value.path).parent == path.parent
    late = append(store, at((damaged - day(0)).days))
    before, live = tree(path.parent), database_rows(store)
    with pytest.raises(ns.ArchiveError) as refused:
        store.archive_logs(now=NOW)
    assert str(damaged) in str(refused.value)
    assert late in database_rows(store)
    assert database_rows(store) == live
    assert tree(path.parent) == before


@pytest.mark.parametrize(
    ("compression", "name", "damage"),
    SILENT_DAMAGES,
    ids=[f"{item[0] or 'plain'}, {item[1]}" for item in SILENT_DAMAGES],
)
def test_damage_is_found_by_verification_and_by_every_read(
    log_store: ns.LogStore, compression: Any, name: str, damage: Damage
) -> None:
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW, compression=compression)
    assert log_store.verify().ok
    path = day_files(log_store.archive_dir)[day(1)]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole, name
    assert_found(log_store, path, day(1))

    path.write_bytes(whole)
    assert log_store.verify().ok
    log_store.archive_logs(now=NOW, compression=compression)
    assert as_rows(log_store.query(archived=True))[: len(rows)] == rows


def test_damaged_table_of_frames_is_found_and_made_anew(log_store: ns.LogStore) -> None:
    """The manifest has the table as well, so that the rows are still read."""
    rows = fill(log_store, days=2)
    log_store.archive_logs(now=NOW, compression="zstd")
    path = day_files(log_store.archive_dir)[day(0)]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    assert [item.day for item in log_store.verify().problems] == [day(0)]
    assert as_rows(log_store.query(archived=True)) == rows
    assert_nothing_lost(log_store, [*rows, append(log_store, at(0))])


@pytest.mark.parametrize("column", ["ids", "blocks", "sha256"])
def test_damaged_manifest_is_found_and_rebuilt(log_store: ns.LogStore, column: str) -> None:
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    table, value = ("archive_days", "'?'") if column == "sha256" else ("archive_contents", "x'0102'")
    foreign_sql(log_store.path, f"UPDATE {table} SET {column} = {value} WHERE day = ?", (str(day(1)),))
    with pytest.raises(ns.CorruptStoreError, match="reindex"):
        log_store.query(archived=True)
    assert not log_store.verify().ok
    log_store.reindex()
    assert_nothing_lost(log_store, rows)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_missing_file_is_found(log_store: ns.LogStore, compression: Any) -> None:
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW, compression=compression)
    path = day_files(log_store.archive_dir)[day(1)]
    moved = path.rename(path.with_name("moved"))
    assert_found(log_store, path, day(1))
    moved.rename(path)
    log_store.archive_logs(now=NOW)
    assert log_store.verify().ok
    assert as_rows(log_store.query(archived=True))[: len(rows)] == rows


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_file_under_another_days_name_is_found(log_store: ns.LogStore, compression: Any) -> None:
    """A copy under the name of a day that has a file, and under one that has none."""
    fill(log_store, days=2)
    log_store.archive_logs(now=NOW, compression=compression)
    files = day_files(log_store.archive_dir)
    whole = files[day(1)].read_bytes()
    shutil.copy(files[day(0)], files[day(1)])
    assert_found(log_store, files[day(1)], day(1))
    files[day(1)].write_bytes(whole)
    log_store.archive_logs(now=NOW)  # the late row of a day that is whole again
    stranger = files[day(0)].with_name(files[day(0)].name.replace(str(day(0)), str(day(5))))
    shutil.copy(files[day(0)], stranger)
    assert_found(log_store, stranger, day(5))
    stranger.unlink()
    assert log_store.verify().ok


def test_second_file_of_a_day_is_found_and_merged_if_it_agrees(data_dir: Path, tmp_path: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = fill(store, days=2)
    compressed = archived_elsewhere(data_dir, tmp_path / "compressed", compression="zstd")
    with ns.LogStore(data_dir / "logs.db") as store:
        store.archive_logs(now=NOW)
        copy = Path(shutil.copy(compressed / f"{day(0)}.jsonl.zst", store.archive_dir))
        (problem,) = store.verify().problems
        assert (Path(problem.path), problem.day) == (copy, day(0))
        assert as_rows(store.query(archived=True)) == rows
        assert_nothing_lost(store, rows)


def test_second_file_of_a_day_that_disagrees_stops_the_run(data_dir: Path, tmp_path: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = fill(store, days=2)
    with ns.LogStore(tmp_path / "other" / "logs.db") as other:
        append(other, at(0), None, "another row under the same id")
        other.archive_logs(now=NOW, compression="zstd")
        foreign = Path(other.archive_dir) / f"{day(0)}.jsonl.zst"
    with ns.LogStore(data_dir / "logs.db") as store:
        store.archive_logs(now=NOW)
        shutil.copy(foreign, store.archive_dir)
        late = append(store, at(0))
        before = tree(Path(store.archive_dir))
        with pytest.raises(ns.ArchiveError, match=str(day(0))):
            store.archive_logs(now=NOW)
        assert tree(Path(store.archive_dir)) == before
        assert database_rows(store) == [late]
        (Path(store.archive_dir) / foreign.name).unlink()
        assert_nothing_lost(store, [*rows, late])


def assert_nothing_lost(store: ns.LogStore, rows: list[Row]) -> None:
    store.archive_logs(now=NOW)
    assert_union(store, rows)
    assert as_rows(store.query(archived=True)) == rows
    assert store.verify().ok


@pytest.mark.parametrize("damage", ["emptied", "cut off"])
def test_manifest_is_rebuilt_around_a_damaged_file(log_store: ns.LogStore, damage: str) -> None:
    """Nothing is forgotten of a file that cannot be read, and the others are taken in."""
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    path = day_files(log_store.archive_dir)[day(0)]
    whole = path.read_bytes()
    path.write_bytes(BOTH_FORMATS[damage](whole))
    with contextlib.suppress(ns.ArchiveError):
        log_store.reindex()
    assert [item.day for item in log_store.verify().problems] == [day(0)]
    path.write_bytes(whole)
    log_store.reindex()
    assert as_rows(log_store.query(archived=True)) == rows
    assert log_store.verify().ok
