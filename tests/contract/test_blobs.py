"""Blobs, wherever they are: content-addressed, verified when read, repaired when written, collected, streamed."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import random
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import PLACES, Place, made
from nerve_store.remote.bucket import Bucket
from support import is_one_line
from support.event_loops import run, take_with_cancellations

HASH = ns.blob_hash(b"x")
MIB = 1 << 20
SIZES = (0, 1, 256 * 1024, 4 * MIB, 4 * MIB + 1, 8 * MIB, 8 * MIB + 1, 21 * MIB + 3)
"""Around what the stores send, fetch and verify at a time."""


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return made(request.param, tmp_path)


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("data", ["", "emoji 🧠 and \0", b"", bytes(range(256)), bytearray(b"changeable")], ids=ascii)
def test_what_was_written_is_read_back(place: Place, data: Any) -> None:
    blobs = place.open()
    content = data.encode() if isinstance(data, str) else bytes(data)
    hash = ns.blob_hash(content)
    for _ in range(2):
        assert blobs.write(data) == hash
        assert blobs.read(hash) == blobs.read(hash.upper()) == content
        assert blobs.exists(hash)
        assert blobs.exists(hash, verify=False)
        assert hash in blobs
        assert blobs.size(hash) == len(content)
        assert list(blobs) == [hash]
    assert place.open().read(hash) == content


@pytest.mark.parametrize("size", SIZES)
def test_every_way_to_write_and_to_read_has_the_same_bytes(place: Place, size: int, tmp_path: Path) -> None:
    content = content_of(size)
    source = tmp_path / "source"
    source.write_bytes(content)
    blobs = place.open()
    hash = ns.blob_hash(content)
    for way in range(4):
        if way == 0:
            assert blobs.write(content) == hash
        elif way == 1:
            assert blobs.write_file(source) == hash
        elif way == 2:
            assert blobs.write_file(io.BytesIO(content)) == hash
        else:
            with blobs.writer() as writer:
                shutil.copyfileobj(io.BytesIO(content), writer, 1_000_003)
            assert writer.hash == hash
        assert blobs.read(hash) == content
        with blobs.open(hash) as file:
            assert file.read(10) == content[:10]
            assert file.tell() == min(10, size)
            assert file.read() == content[10:]
            assert file.read() == b""
        assert blobs.exists(hash)
        assert blobs.delete(hash)
        assert blobs.read(hash) is None
    assert list(blobs) == []


def test_many_are_written_at_once_and_listed_in_order(place: Place) -> None:
    """More than one answer of a server lists."""
    blobs = place.open()
    contents = [b"%d" % number for number in range(1300)]
    hashes = blobs.write_many(iter(contents))
    assert hashes == [ns.blob_hash(content) for content in contents]
    assert list(blobs) == sorted(hashes)
    assert blobs.stats() == ns.BlobStats(blobs.root, 1300, sum(map(len, contents)))
    assert blobs.verify() == ns.BlobVerifyReport(1300, sum(map(len, contents)), ())
    kept = hashes[::100]
    told: list[tuple[int, int]] = []
    report = blobs.collect(kept, grace=timedelta(0), progress=lambda done, total: told.append((done, total)))
    assert (report.deleted_count, report.kept_count, report.young_count, report.missing) == (1287, 13, 0, ())
    assert report.deleted_size == sum(map(len, contents)) - sum(blobs.size(hash) for hash in kept)
    assert told[0] == (0, 256)
    assert told[-1] == (256, 256)
    assert told == sorted(told)
    assert list(blobs) == sorted(kept)


def test_what_is_kept_or_young_is_not_collected(place: Place) -> None:
    blobs = place.open()
    kept, other = blobs.write("kept"), blobs.write("other")
    absent = ns.blob_hash(b"absent")
    expected = ns.CollectReport(0, 0, 1, 1, (absent,))
    assert blobs.collect([kept.upper(), absent]) == expected
    for _ in range(2):
        report = blobs.collect([kept, absent], grace=timedelta(0), dry_run=True)
        assert report == ns.CollectReport(1, 5, 1, 0, (absent,), dry_run=True)
    with pytest.raises(ValueError, match="no sha256"):
        blobs.collect([kept, "no hash"], grace=timedelta(0))
    assert set(blobs) == {kept, other}
    assert blobs.collect([kept, absent], grace=timedelta(0)) == ns.CollectReport(1, 5, 1, 0, (absent,))
    assert list(blobs) == [kept]
    assert blobs.write("other") == other
    assert blobs.read(other) == b"other"


@pytest.mark.parametrize("size", [1, 4 * MIB, 4 * MIB + 1, 9 * MIB])
@pytest.mark.parametrize("kind", ["flip", "truncate", "extend"])
def test_nobody_reads_a_damaged_blob_to_its_end(place: Place, size: int, kind: str) -> None:
    content = content_of(size)
    blobs = place.open()
    hash = blobs.write(content)
    flipped = bytes([content[0] ^ 1]) + content[1:]
    damaged = {"flip": flipped, "truncate": content[:-1], "extend": content + b"x"}[kind]
    place.damage(hash, damaged)
    with pytest.raises(ns.BlobCorruptError) as caught:
        blobs.read(hash)
    assert (caught.value.hash, caught.value.actual_hash) == (hash, ns.blob_hash(damaged))
    assert caught.value.path is not None
    assert is_one_line(caught.value)
    assert not blobs.exists(hash)
    assert blobs.exists(hash, verify=False)
    assert blobs.size(hash) == len(damaged)
    with blobs.open(hash) as file:
        received = bytearray()
        pieces = iter(lambda: file.read(100_000), b"")
        with pytest.raises(ns.BlobCorruptError):
            deque(map(received.extend, pieces), maxlen=0)
        with pytest.raises(ns.BlobCorruptError):
            file.read(1)
    assert len(received) < max(len(damaged), 1)
    assert blobs.write(content, verify=True) == hash
    assert blobs.read(hash) == content


def test_another_size_is_repaired_by_any_write(place: Place) -> None:
    blobs = place.open()
    hash = blobs.write("x" * 100)
    place.damage(hash, b"x" * 99)
    assert blobs.write("x" * 100) == hash
    assert blobs.read(hash) == b"x" * 100


def test_what_is_damaged_is_moved_aside_and_healed_by_the_next_write(place: Place) -> None:
    contents = [b"%d" % number * 300 for number in range(30)]
    blobs = place.open()
    hashes = blobs.write_many(contents)
    damaged = sorted(hashes[:3])
    for turn in range(1, 3):
        for hash in damaged:
            place.damage(hash, b"damaged")
        told: list[tuple[int, int]] = []
        read_only = place.open(read_only=True).verify()
        assert [problem.quarantine for problem in read_only.problems] == [None] * 3
        found = blobs.verify(progress=lambda done, total, told=told: told.append((done, total)))
        assert (found.ok, found.blob_count) == (False, 30)
        assert [problem.hash for problem in found.problems] == damaged
        for problem in found.problems:
            assert problem.actual_hash == ns.blob_hash(b"damaged")
            assert is_one_line(Exception(problem.reason))
            assert problem.quarantine is not None
            assert problem.quarantine.endswith(str(problem.hash) + ("" if turn == 1 else f".{turn}"))
            assert blobs.read(problem.hash) is None
        assert told[0][0] == 0
        assert told[-1] == (found.size, found.size)
        assert told == sorted(told)
        assert blobs.verify().ok
        assert blobs.write_many(contents) == hashes
        assert [blobs.read(hash) for hash in hashes] == contents
        assert list(blobs) == sorted(hashes)


@pytest.mark.parametrize("text", ["", "..", "../secret", HASH[1:], HASH + "0", f" {HASH}", "g" * 64, "é" * 64])
def test_what_is_no_hash_is_absent(place: Place, text: str) -> None:
    blobs = place.open()
    blobs.write("x")
    assert blobs.read(text) is None
    assert not blobs.exists(text)
    assert text not in blobs
    assert not blobs.delete(text)
    for call in (blobs.size, blobs.open):
        with pytest.raises(ns.BlobNotFoundError) as caught:
            call(text)
        assert is_one_line(caught.value)


def test_what_is_absent_is_not_found(place: Place) -> None:
    blobs = place.open()
    assert blobs.read(HASH) is None
    assert not blobs.exists(HASH)
    assert not blobs.delete(HASH)
    for call in (blobs.size, blobs.open):
        with pytest.raises(ns.BlobNotFoundError) as caught:
            call(HASH)
        assert caught.value.hash == HASH


@pytest.mark.parametrize("data", [None, 1, [1], object(), Path("x")], ids=lambda data: type(data).__name__)
def test_data_of_another_type_is_a_type_error(place: Place, data: object) -> None:
    blobs = place.open()
    with pytest.raises(TypeError, match="None" if data is None else type(data).__name__):
        blobs.write(data)
    with pytest.raises(TypeError):
        blobs.read(data)
    for text in ("\ud800", memoryview(b"abcdef")[::2]):
        with pytest.raises(ValueError):  # noqa: PT011 - several messages, each the interpreter's or ours
            blobs.write(text)
    assert list(blobs) == []


def test_an_unfinished_writer_leaves_nothing(place: Place) -> None:
    blobs = place.open()
    writer = blobs.writer()
    with suppress(RuntimeError), writer:
        writer.write(b"torn" * 5_000_000)
        raise RuntimeError
    with pytest.raises(ValueError, match="discarded"):
        _ = writer.hash
    assert writer.closed
    assert list(blobs) == []


def test_what_comes_through_a_pipe_is_stored(place: Place, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(9 * MIB)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    blobs = place.open()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(pipe.write_bytes, data)
        assert blobs.write_file(pipe) == ns.blob_hash(data)
        sent.result()
    assert blobs.read(ns.blob_hash(data)) == data
    assert blobs.write_file(os.devnull) == ns.blob_hash(b"")


class Failing(io.RawIOBase):
    """A source that breaks after its tenth mebibyte."""

    def __init__(self, answer: object) -> None:
        self._answer, self._left = answer, 10

    def read(self, size: int = -1) -> Any:
        self._left -= 1
        if self._left >= 0:
            return bytes(MIB)[:size]
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [(OSError(5, "broken"), OSError), (KeyboardInterrupt(), KeyboardInterrupt), (None, BlockingIOError),
     ("text", TypeError), (3, TypeError), (bytes(2 * MIB), ValueError)],
)  # fmt: skip
def test_a_source_that_fails_on_the_way_leaves_nothing(
    place: Place, answer: object, error: type[BaseException]
) -> None:
    blobs = place.open()
    with pytest.raises(error):
        blobs.write_file(Failing(answer))
    assert list(blobs) == []


def test_a_store_that_is_read_only_refuses_writes(place: Place) -> None:
    hash = place.open().write("x")
    blobs = place.open(read_only=True)
    assert blobs.read(hash) == b"x"
    refused: tuple[Callable[[], object], ...] = (
        lambda: blobs.write("y"),
        lambda: blobs.write_many(["y"]),
        lambda: blobs.write_file(io.BytesIO(b"y")),
        lambda: blobs.delete(hash),
        lambda: blobs.collect([], grace=timedelta(0)),
    )
    for call in refused:
        with pytest.raises(ns.StoreIOError) as caught:
            call()
        assert caught.value.path is not None
    assert list(blobs) == [hash]


def test_threads_and_stores_write_read_and_delete_the_same_blobs(place: Place) -> None:
    contents = [b"shared %d" % number for number in range(12)]
    stores = [place.open() for _ in range(3)]

    def work(number: int) -> None:
        chance = random.Random(number)
        blobs = stores[number % 3]
        for _ in range(25):
            content = chance.choice(contents)
            hash = blobs.write(content)
            assert hash == ns.blob_hash(content)
            assert blobs.read(hash) in (content, None)
            if chance.random() < 0.3:
                blobs.delete(hash)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert stores[0].write_many(contents) == [ns.blob_hash(content) for content in contents]
    assert stores[1].verify() == ns.BlobVerifyReport(12, sum(map(len, contents)), ())


def test_closing_ends_nothing_that_the_next_call_needs(place: Place) -> None:
    with place.open() as blobs:
        (hash,) = blobs.write_many(["x"])
    blobs.close()
    assert list(blobs) == [hash]
    assert blobs.write_many(["x"]) == [hash]
    blobs.close()


def test_a_cancelled_step_loses_no_hash(place: Place) -> None:
    async def main() -> None:
        async with place.open_async() as blobs:
            expected = sorted(await blobs.write_many([str(number) for number in range(700)]))
            cancelled = 0
            for seed in range(3):
                found, count = await take_with_cancellations(aiter(blobs), seed)
                assert found == expected
                cancelled += count
            assert cancelled

    run(main())


def test_an_iteration_goes_on_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last hash that it returned, whatever could not be listed."""
    (blobs := made("memory", tmp_path).open()).write_many(map(str, range(700)))
    expected = list(blobs)
    listings = itertools.count(1)

    def listed(bucket: Bucket, folder: str | None = None) -> Iterator[Any]:
        if next(listings) % 150 == 0:
            raise ns.StoreUnavailableError("no answer")
        return of_bucket(bucket, folder)

    of_bucket = Bucket.list
    monkeypatch.setattr("nerve_store.remote.blobs.listing.PAGE", 600)  # a shard at a time
    monkeypatch.setattr(Bucket, "list", listed)
    hashes = iter(blobs)
    found: list[str] = []
    errors = 0
    while True:
        try:
            found.append(next(hashes))
        except ns.StoreUnavailableError:
            errors += 1
        except StopIteration:
            break
    assert found == expected
    assert errors


def test_an_event_loop_does_the_same(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")

    async def main() -> None:
        async with place.open_async() as blobs:
            hashes = await asyncio.gather(*(blobs.write(b"%d" % number) for number in range(50)))
            hashes += [*await blobs.write_many(["one", "two"]), await blobs.write_file(tmp_path / "file")]
            async with blobs.writer() as writer:
                await writer.write(b"stream" * 100)
            async with blobs.open(writer.hash) as file:
                assert await file.read() == b"stream" * 100
            hashes.append(writer.hash)
            assert [hash async for hash in blobs] == sorted(hashes)
            assert await blobs.read(hashes[3]) == b"3"
            assert await blobs.exists(hashes[3])
            assert await blobs.size(hashes[3]) == 1
            assert (await blobs.stats()).blob_count == len(hashes)
            assert (await blobs.verify()).ok
            assert await blobs.delete(hashes[3])
            report = await blobs.collect(hashes[:3], grace=timedelta(0))
            assert (report.kept_count, report.deleted_count) == (3, len(hashes) - 4)
        with pytest.raises(ns.StoreClosedError):
            await blobs.read(hashes[0])

    asyncio.run(main())
