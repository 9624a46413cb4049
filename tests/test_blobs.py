"""Blobs: content-addressed, verified when read, repaired when written, on a machine where all goes well."""

from __future__ import annotations

import array
import ctypes
import errno
import json
import os
import shutil
import stat
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from support import UPSTREAM, is_one_line, tree
from support.blobs import HASH, place, sha256, staged

CHUNK = 256 * 1024
"""How much the core copies, hashes and writes at a time."""
ABSENT = sha256(b"absent")


@pytest.fixture
def blobs(tmp_path: Path) -> ns.BlobStore:
    return ns.BlobStore(tmp_path / "data" / "blobs")


# --- round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "content"),
    [
        ("", b""),
        ("plan", b"plan"),
        ("emoji 🧠, 漢字 and \0", "emoji 🧠, 漢字 and \0".encode()),
        (b"", b""),
        (bytes(range(256)), bytes(range(256))),
        (bytearray(b"changeable"), b"changeable"),
        (bytearray(), b""),
        (memoryview(b"a part of it")[2:6], b"part"),
        (memoryview(bytearray(b"locked")).toreadonly(), b"locked"),
        (memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
        (array.array("I", [1, 2]), array.array("I", [1, 2]).tobytes()),
        (array.array("d", [0.5]), array.array("d", [0.5]).tobytes()),
        ((ctypes.c_uint8 * 3)(1, 2, 3), b"\1\2\3"),
        (b"x" * (2 * CHUNK + 1), b"x" * (2 * CHUNK + 1)),
        (bytearray(b"x") * (2 * CHUNK + 1), b"x" * (2 * CHUNK + 1)),
        (bytearray(b"x") * (2 * CHUNK), b"x" * (2 * CHUNK)),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_written_is_read_back(tmp_path: Path, durability: str, data: str | bytes, content: bytes) -> None:
    blobs = ns.BlobStore(tmp_path / "blobs", durability=durability)  # type: ignore[arg-type]
    for _ in range(2):
        blob_hash = blobs.write(data)
        assert blob_hash == sha256(content)
        assert blobs.read(blob_hash) == content
        assert blobs.exists(blob_hash)
        assert blobs.exists(blob_hash, verify=False)
        assert blob_hash in blobs
        assert blobs.size(blob_hash) == len(content)
        assert list(blobs) == [blob_hash]
        assert place(blobs, blob_hash).read_bytes() == content
        assert staged(blobs) == []


@given(st.binary(max_size=300), st.sampled_from([0, 1, CHUNK - 150, 3 * CHUNK - 150]))
def test_any_bytes_have_the_same_hash_in_any_wrapping(tmp_path: Path, tail: bytes, padding: int) -> None:
    content = bytes(padding) + tail
    blobs = ns.BlobStore(tmp_path / "blobs", durability="normal")
    blobs.delete(sha256(content))
    assert (
        blobs.write(bytearray(content)) == blobs.write(content) == blobs.write(memoryview(content)) == sha256(content)
    )
    assert blobs.read(sha256(content)) == content


def test_the_layout_is_upstreams(tmp_path: Path) -> None:
    blobs = ns.BlobStore(tmp_path / "blobs")
    for blob in json.loads((UPSTREAM / "expected.json").read_bytes())["blobs"]:
        content = (UPSTREAM / "data" / "blobs" / blob["hash"][:2] / blob["hash"][2:]).read_bytes()
        assert (len(content), content[:2000].hex()) == (blob["bytes"], blob["hex"])
        assert blobs.write(content) == blob["hash"]
    assert tree(tmp_path / "blobs") == tree(UPSTREAM / "data" / "blobs")


def test_the_first_write_creates_private_directories_and_files(blobs: ns.BlobStore, tmp_path: Path) -> None:
    assert blobs.read(ABSENT) is None
    assert not blobs.exists(ABSENT)
    assert not blobs.delete(ABSENT)
    assert list(blobs) == []
    assert blobs.stats() == ns.BlobStats(blobs.root, 0, 0)
    assert list(tmp_path.iterdir()) == []
    umask = os.umask(0)
    try:
        path = place(blobs, blobs.write("x"))
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE(part.stat().st_mode) for part in (path, *path.parents[:3])]
    assert modes == [0o600, 0o700, 0o700, 0o700]


def test_a_relative_root_keeps_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blobs = ns.BlobStore("blobs")
    monkeypatch.chdir("/")
    blobs.write("x")
    assert blobs.root == str(tmp_path / "blobs")
    assert repr(blobs) == f"BlobStore({blobs.root!r})"
    assert list(ns.BlobStore(tmp_path / "blobs")) == [sha256(b"x")]


def test_a_blob_that_is_there_is_not_written_again(blobs: ns.BlobStore) -> None:
    data = bytearray(b"x") * (2 * CHUNK + 1)
    path = place(blobs, blobs.write(data))
    before = path.stat()
    assert blobs.write(data) == blobs.write(bytes(data)) == sha256(data)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_deleted_blob_is_gone_and_can_come_back(blobs: ns.BlobStore) -> None:
    blob_hash = blobs.write("x")
    assert blobs.delete(blob_hash.upper())
    assert not blobs.delete(blob_hash)
    assert blobs.read(blob_hash) is None
    assert blob_hash not in blobs
    assert blobs.write("x") == blob_hash
    assert blobs.read(blob_hash) == b"x"


def test_directories_that_vanish_come_back(blobs: ns.BlobStore) -> None:
    blob_hash = blobs.write("x")
    for vanished in (place(blobs, blob_hash).parent, Path(blobs.root, ".staging"), Path(blobs.root)):
        shutil.rmtree(vanished)
        assert blobs.write("x") == blob_hash
        assert blobs.read(blob_hash) == b"x"


# --- damage ------------------------------------------------------------------------------------------------------


def _flip(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


DAMAGES: list[Callable[[bytes], bytes]] = [
    _flip,
    lambda content: content[:-1] + bytes([content[-1] ^ 0x80]),
    lambda content: content[:-1],
    lambda content: content + b"\0",
    lambda content: b"",
    lambda content: bytes(len(content)),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["first", "last", "truncated", "extended", "emptied", "zeroed"])
@pytest.mark.parametrize("size", [1, CHUNK, 2 * CHUNK + 1])
def test_damage_is_found_by_reading_and_repaired_by_writing(
    blobs: ns.BlobStore, damage: Callable[[bytes], bytes], size: int
) -> None:
    content = b"x" * size
    blob_hash = blobs.write(content)
    path = place(blobs, blob_hash)
    for repair in (content, bytearray(content)):
        damaged = damage(content)
        path.write_bytes(damaged)
        with pytest.raises(ns.BlobCorruptError) as caught:
            blobs.read(blob_hash)
        assert (caught.value.hash, caught.value.actual_hash) == (blob_hash, sha256(damaged))
        assert caught.value.path == str(path)
        assert is_one_line(caught.value)
        assert not blobs.exists(blob_hash)
        assert blobs.exists(blob_hash, verify=False)
        assert blobs.size(blob_hash) == len(damaged)
        assert blobs.write(repair) == blob_hash
        assert blobs.read(blob_hash) == content
        assert staged(blobs) == []


@given(st.binary(min_size=1, max_size=5000), st.integers(min_value=0), st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path: Path, content: bytes, at: int, bit: int) -> None:
    blobs = ns.BlobStore(tmp_path / "blobs", durability="normal")
    blob_hash = blobs.write(content)
    damaged = bytearray(content)
    damaged[at % len(content)] ^= 1 << bit
    place(blobs, blob_hash).write_bytes(damaged)
    assert not blobs.exists(blob_hash)
    with pytest.raises(ns.BlobCorruptError):
        blobs.read(blob_hash)
    assert blobs.write(content) == blob_hash
    assert blobs.read(blob_hash) == content


# --- bad input ---------------------------------------------------------------------------------------------------

NO_HASHES = [
    "", ".", "..", "/", "../secret", f"{HASH[:2]}/{HASH[2:]}", f"../{HASH[:2]}/{HASH}", HASH[1:], HASH + "0",
    HASH + "\n", f" {HASH}", "g" * 64, "\0" * 64, "é" * 64, "é" * 32, "\ud800" * 64, f"{HASH[:-1]}\uff11",
    "." * 64, "/" * 64,
]  # fmt: skip


@pytest.mark.parametrize("text", NO_HASHES, ids=ascii)
def test_what_is_no_hash_is_absent(blobs: ns.BlobStore, text: str) -> None:
    blobs.write("x")
    secret = Path(blobs.root).parent / "secret"
    secret.write_bytes(b"x")
    before = tree(secret.parent)
    assert ns.normalize_blob_hash(text) is None
    assert blobs.read(text) is None
    assert not blobs.exists(text)
    assert not blobs.exists(text, verify=False)
    assert text not in blobs
    assert not blobs.delete(text)
    with pytest.raises(ns.BlobNotFoundError) as caught:
        blobs.size(text)
    assert is_one_line(caught.value)
    assert tree(secret.parent) == before


def test_either_case_names_the_same_blob(blobs: ns.BlobStore) -> None:
    assert blobs.write("x") == HASH
    upper = HASH.upper()
    assert ns.normalize_blob_hash(upper) == ns.normalize_blob_hash(HASH) == HASH
    assert blobs.read(upper) == b"x"
    assert blobs.exists(upper)
    assert upper in blobs
    assert blobs.size(upper) == 1


@given(st.text(string.hexdigits, min_size=60, max_size=66) | st.text(max_size=70))
def test_a_hash_is_64_hexadecimal_digits(text: str) -> None:
    is_hash = len(text) == 64 and set(text) <= set(string.hexdigits)
    assert ns.normalize_blob_hash(text) == (text.lower() if is_hash else None)


def test_the_size_of_an_absent_blob_is_not_found(blobs: ns.BlobStore) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        blobs.size(ABSENT)
    assert isinstance(caught.value, ns.BlobNotFoundError)
    assert (caught.value.hash, caught.value.errno) == (ABSENT, errno.ENOENT)


@pytest.mark.parametrize("no_text", [None, 1, HASH.encode(), [HASH], Path(HASH)])
def test_a_hash_of_another_type_is_a_type_error(blobs: ns.BlobStore, no_text: object) -> None:
    calls: list[Callable[..., object]] = [
        blobs.read, blobs.exists, blobs.delete, blobs.size, blobs.__contains__, ns.normalize_blob_hash
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError):
            call(no_text)


@pytest.mark.parametrize(
    "data", [None, 1, 1.5, [1], object(), {"a": 1}, Path("x")], ids=lambda data: type(data).__name__
)
def test_data_of_another_type_is_a_type_error(blobs: ns.BlobStore, data: object) -> None:
    with pytest.raises(TypeError, match="None" if data is None else type(data).__name__):
        blobs.write(data)  # type: ignore[arg-type]
    assert not os.path.lexists(blobs.root)


def test_data_of_no_use_is_a_value_error(blobs: ns.BlobStore) -> None:
    released = memoryview(b"x")
    released.release()
    for data in ("\ud800", "a\udfff", memoryview(b"abcdef")[::2], memoryview(b"abc")[::-1], released):
        with pytest.raises(ValueError):  # noqa: PT011 - several messages, each the interpreter's or ours
            blobs.write(data)
    assert not os.path.lexists(blobs.root)


def test_a_root_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for root in (file, file / "below"):
        with pytest.raises(ns.StoreIOError) as caught:
            ns.BlobStore(root)
        assert (caught.value.errno, caught.value.path) == (errno.ENOTDIR, str(root))
    for text in ("", "a\0b"):
        with pytest.raises(ValueError, match="path"):
            ns.BlobStore(text)
    with pytest.raises(ValueError, match="durability"):
        ns.BlobStore(tmp_path, durability="none")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ns.BlobStore(1)  # type: ignore[arg-type]


# --- listing --------------------------------------------------------------------------------------------------------


def test_iteration_is_in_hash_order_and_passes_over_strangers(tmp_path: Path) -> None:
    blobs = ns.BlobStore(tmp_path, durability="normal")
    hashes = {blobs.write(str(number)) for number in range(700)}
    for name in ("zz", "abc", "AB", "1", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / HASH[2:]).touch()
    shard = tmp_path / sha256(b"0")[:2]
    for name in (HASH, HASH[2:-1], HASH[2:].upper(), ".stage-x", f"{HASH[2:]}.tmp", "x", "é"):
        (shard / name).touch()
    (shard / HASH[2:]).mkdir()
    (tmp_path / "README").touch()
    found = list(blobs)
    assert found == sorted(hashes)
    assert blobs.stats() == ns.BlobStats(str(tmp_path), 700, sum(len(str(number)) for number in range(700)))
    iterator = iter(blobs)
    assert iter(iterator) is iterator
    assert next(iterator) == found[0]
    for blob_hash in found[1:]:
        blobs.delete(blob_hash)
    # The names of the shard that was being read were taken down already.
    assert {blob_hash[:2] for blob_hash in iterator} <= {found[0][:2]}
    assert next(iterator, None) is None
    assert list(blobs) == found[:1]
