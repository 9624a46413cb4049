"""Blobs as streams: `write_file`, `writer`, `open`; what they verify, leave behind and hold in memory."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import child_environment, is_one_line, tree
from support.blobs import HASH, place, sha256, staged
from support.disks import tiny_disk

CHUNK, PIECE = 256 * 1024, 1024 * 1024
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + PIECE, 6 * PIECE + 7]


def content_of(size: int) -> bytes:
    return (b"0123456789abcdef!" * (size // 17 + 1))[:size]


class Dribble(io.RawIOBase):
    """Gives a few bytes at a time, as a pipe does."""

    def __init__(self, content: bytes, most: int) -> None:
        self._stream = io.BytesIO(content)
        self._most = most

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(min(size, self._most))


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_file_is_stored_whichever_way_it_is_given(tmp_path: Path, size: int, durability: Any) -> None:
    content = content_of(size)
    source = tmp_path / "source"
    source.write_bytes(content)
    files = (source, str(source), io.BytesIO(content), Dribble(content, 300_001))
    for number, given in enumerate(files):
        file: Any = given
        blobs = ns.BlobStore(tmp_path / str(number), durability=durability)
        for _ in range(2):
            if isinstance(given, Dribble):
                file = Dribble(content, 300_001)
            elif isinstance(given, io.BytesIO):
                given.seek(0)
            assert blobs.write_file(file) == sha256(content)
            assert blobs.read(sha256(content)) == content
        assert staged(blobs) == []


def test_a_file_object_is_read_from_where_it_stands_and_stays_open(blobs: ns.BlobStore) -> None:
    file = io.BytesIO(b"header:body")
    file.seek(7)
    assert blobs.write_file(file) == sha256(b"body")
    assert not file.closed
    with open(os.devnull, "rb") as nothing:
        assert blobs.write_file(nothing) == sha256(b"")


def test_a_file_that_cannot_be_read_is_the_systems_error(blobs: ns.BlobStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        blobs.write_file(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        blobs.write_file(tmp_path)
    with pytest.raises(TypeError, match="text"):
        blobs.write_file(io.StringIO("text"))  # type: ignore[arg-type]
    for nothing in (None, 1, object()):
        with pytest.raises(TypeError):
            blobs.write_file(nothing)  # type: ignore[arg-type]
    assert list(blobs) == []


class Failing(io.RawIOBase):
    def __init__(self, answer: object) -> None:
        self._answer = answer
        self._left = 5

    def read(self, size: int = -1) -> Any:
        self._left -= 1
        if self._left > 0:
            return bytes(PIECE)[:size]
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [(OSError(5, "broken"), OSError), (KeyboardInterrupt(), KeyboardInterrupt), (None, BlockingIOError),
     ("text", TypeError), (3, TypeError), (bytes(2 * PIECE), ValueError)],
)  # fmt: skip
def test_a_source_that_fails_on_the_way_leaves_nothing(
    blobs: ns.BlobStore, answer: object, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        blobs.write_file(Failing(answer))
    assert list(blobs) == []
    assert staged(blobs) == []


@pytest.mark.parametrize("size", SIZES)
def test_a_writer_stores_what_was_written(blobs: ns.BlobStore, size: int) -> None:
    content = content_of(size)
    with blobs.writer() as writer:
        shutil.copyfileobj(io.BytesIO(content), writer, 100_000)
        assert writer.tell() == size
        with pytest.raises(ValueError, match="no hash yet"):
            _ = writer.hash
        assert list(blobs) == []
    assert writer.closed
    assert writer.hash == sha256(content)
    assert blobs.read(writer.hash) == content
    assert staged(blobs) == []
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")


def test_a_writer_takes_text_and_any_buffer(blobs: ns.BlobStore) -> None:
    with blobs.writer() as writer:
        assert writer.write("漢") == 3
        assert writer.write(bytearray(b"ab" * CHUNK)) == 2 * CHUNK
        assert writer.write(memoryview(b"")) == 0
        with pytest.raises(TypeError):
            writer.write(1)  # type: ignore[arg-type]
    assert blobs.read(writer.hash) == "漢".encode() + b"ab" * CHUNK


def test_a_zip_is_written_straight_into_a_blob(blobs: ns.BlobStore) -> None:
    with blobs.writer() as writer, zipfile.ZipFile(writer, "w") as archive:
        archive.writestr("name", b"content")
    content = blobs.read(writer.hash)
    assert content is not None
    assert zipfile.ZipFile(io.BytesIO(content)).read("name") == b"content"


def test_an_unfinished_writer_leaves_nothing(blobs: ns.BlobStore) -> None:
    writer = blobs.writer()
    with contextlib.suppress(RuntimeError), writer:
        writer.write(b"torn")
        raise RuntimeError
    with pytest.raises(ValueError, match="discarded"):
        _ = writer.hash
    other = blobs.writer()
    other.write(b"torn")
    del other
    third = blobs.writer()
    third.discard()
    third.close()
    assert third.closed
    assert list(blobs) == []
    assert staged(blobs) == []


def test_threads_share_a_writer(blobs: ns.BlobStore) -> None:
    with blobs.writer() as writer:
        threads = [threading.Thread(target=lambda: [writer.write(b"x" * 1000) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert writer.hash == sha256(b"x" * 400_000)


def test_a_full_disk_shows_while_streaming(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "1m") as resize:
        blobs = ns.BlobStore(tmp_path / "disk" / "blobs")
        for _ in range(2):
            with pytest.raises(ns.StoreFullError):
                blobs.write_file(io.BytesIO(bytes(3 * PIECE)))
            with pytest.raises(ns.StoreFullError), blobs.writer() as writer:
                writer.write(bytes(3 * PIECE))
            with pytest.raises(ns.StoreFullError):
                blobs.write_many([bytes([number]) * 100_000 for number in range(20)])
            assert staged(blobs) == []
            for blob_hash in list(blobs):
                blobs.delete(blob_hash)
        resize("8m")
        assert blobs.write_file(io.BytesIO(bytes(3 * PIECE))) in blobs


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_is_read_as_a_file(blobs: ns.BlobStore, size: int) -> None:
    content = content_of(size)
    blob_hash = blobs.write(content)
    with blobs.open(blob_hash.upper()) as file:
        assert (file.readable(), file.writable(), file.seekable()) == (True, False, False)
        assert file.read(10) == content[:10]
        assert file.tell() == min(10, size)
        assert file.read() == content[10:]
        assert file.read() == b""
    assert file.closed
    with blobs.open(blob_hash) as file:
        assert b"".join(iter(lambda: file.read(99_991), b"")) == content
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_an_open_blob_iterates_over_lines_and_outlives_its_deletion(blobs: ns.BlobStore) -> None:
    blob_hash = blobs.write("one\ntwo\n" * 100_000)
    with blobs.open(blob_hash) as file:
        assert blobs.delete(blob_hash)
        assert list(file) == [b"one\n", b"two\n"] * 100_000


def test_what_is_not_there_cannot_be_opened(blobs: ns.BlobStore) -> None:
    for text in (HASH, "", "../etc/passwd", "é" * 32):
        with pytest.raises(ns.BlobNotFoundError) as caught:
            blobs.open(text)
        assert is_one_line(caught.value)
    assert tree(Path(blobs.root).parent) == {}


@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 3 * CHUNK, 2 * PIECE + 3])
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend"])
def test_nobody_reads_a_damaged_blob_to_its_end(blobs: ns.BlobStore, size: int, damage: str) -> None:
    content = content_of(size)
    blob_hash = blobs.write(content)
    flipped = bytes([content[0] ^ 1]) + content[1:]
    damaged = {"flip": flipped, "truncate": content[:-1], "extend": content + b"x"}[damage]
    place(blobs, blob_hash).write_bytes(damaged)
    for step in (1000, CHUNK, -1):
        received = b""
        with blobs.open(blob_hash) as file:
            try:
                while piece := file.read(step):
                    received += piece
            except ns.BlobCorruptError:
                pass
            else:
                pytest.fail("it was read to its end")
            # It does not get better by trying again.
            with pytest.raises(ns.BlobCorruptError):
                file.read(1 << 30)
        # Short of the end: only that vouches for what came before.
        assert len(received) < max(len(damaged), 1)
        if len(damaged) <= CHUNK:
            assert received == b""


MEMORY = """
import io, sys
import nerve_store as ns

class Zeros(io.RawIOBase):
    left = 192 << 20
    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)

blobs = ns.BlobStore(sys.argv[1], durability="normal")
blobs.write_file(io.BytesIO(b"warm"))
blobs.write_many([b"up"])
def most():
    # Not `getrusage`, which counts the parent's memory, too.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
before = most()
name = blobs.write_file(Zeros())
with blobs.writer() as writer, blobs.open(name) as file:
    while piece := file.read(1 << 20):
        writer.write(piece)
assert writer.hash == name and blobs.verify().ok and blobs.exists(name)
print(most() - before)
"""


def test_streams_take_constant_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "blobs")]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 16 * 1024
