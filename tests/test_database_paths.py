"""How long the path of a database may be, and that a refusal leaves nothing behind."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import nerve_store as ns

LONGEST = 504
"""SQLite's limit of 512 bytes, less the suffix `-journal`."""


def path_of_length(directory: Path, length: int, *, name: str = "logs.db", letter: str = "d") -> Path:
    """A path below `directory` of so many bytes, through directories that are not there."""
    path = directory.resolve()
    while (missing := length - len(bytes(path)) - 1 - len(name) - 1) >= 0:
        part = min(missing, 200)
        if 0 < missing - part < 2:
            part -= 2
        if part == 0:
            break
        path /= (letter * (part // len(letter.encode()))).ljust(1, "d")
        if len(letter.encode()) > 1 and length - len(bytes(path)) - 1 - len(name) - 1 < 2:
            break
    path /= "x" * (length - len(bytes(path)) - 1 - len(name)) + name
    assert len(bytes(path)) == length
    return path


def everything(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@pytest.mark.parametrize("length", [LONGEST - 9, *range(LONGEST - 3, LONGEST + 1)])
def test_the_longest_path_works_in_every_respect(tmp_path: Path, length: int) -> None:
    path = path_of_length(tmp_path, length)
    with ns.LogStore(path) as store:
        store.append("s", "t", timestamp=5)
        store.append("s", "t")
        assert store.archive_logs(vacuum=True).vacuumed
        assert store.count(archived=True) == 2
        assert store.verify().ok
    with ns.LogStore(path, read_only=True) as store:
        assert store.count(archived=True) == 2


@pytest.mark.parametrize("length", [*range(LONGEST + 1, LONGEST + 10), 1_000, 3_000])
@pytest.mark.parametrize("letter", ["d", "ü"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_longer_path_is_refused_and_nothing_is_made(
    tmp_path: Path, length: int, letter: str, read_only: bool
) -> None:
    path = path_of_length(tmp_path, length, letter=letter)
    with pytest.raises(ns.StoreIOError) as raised:
        ns.LogStore(path, read_only=read_only)
    if not read_only:
        assert raised.value.errno == errno.ENAMETOOLONG
        assert str(LONGEST) in str(raised.value)
        assert str(length) in str(raised.value)
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST, LONGEST + 1, LONGEST + 9])
def test_the_length_is_that_of_the_path_behind_symbolic_links(
    tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_of_length(tmp_path, length)
    path.parent.mkdir(parents=True)
    (tmp_path / "link").symlink_to(path.parent)
    before = everything(tmp_path)
    monkeypatch.chdir(tmp_path)
    for way in (tmp_path / "link" / path.name, Path("link") / path.name):
        if length <= LONGEST:
            with ns.LogStore(way) as store:
                store.append("s", "t")
            continue
        for read_only in (False, True):
            with pytest.raises(ns.StoreIOError) as raised:
                ns.LogStore(way, read_only=read_only)
            assert raised.value.errno == errno.ENAMETOOLONG
        assert everything(tmp_path) == before


def test_a_link_to_a_short_path_makes_a_long_one_possible(tmp_path: Path) -> None:
    path = path_of_length(tmp_path, LONGEST + 60)
    path.parent.parent.mkdir(parents=True)
    short = tmp_path / "short"
    short.mkdir()
    path.parent.symlink_to(short)
    with ns.LogStore(path) as store:
        assert len(str(store.path)) <= LONGEST
        store.append("s", "t")


def test_a_short_path_through_missing_directories_and_back_is_taken(tmp_path: Path) -> None:
    with ns.LogStore(tmp_path / "a" / ".." / "b" / "logs.db") as store:
        store.append("s", "t")
        assert Path(store.path) == tmp_path.resolve() / "b" / "logs.db"
