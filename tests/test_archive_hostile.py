"""Day files made to do harm: time stays linear, and what is asked of memory follows what is there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import nerve_store as ns
import reference
from reference import Row
from support import as_rows
from support.archive import at, day

zstandard = pytest.importorskip("zstandard")
xxhash = pytest.importorskip("xxhash")

MAGIC = b"nrvblk01"
LINE = reference.archive_line(Row(7, "s", "t", None, "x" * 100, at(0))).encode() + b"\n"


def xxh3(content: bytes) -> bytes:
    digest: int = xxhash.xxh3_64_intdigest(content)
    return digest.to_bytes(8, "little")


def table(entries: list[tuple[int, int, int, int]]) -> bytes:
    """The frame at the end of a compressed file: (bytes, rows, first id, checksum) of each block."""
    content = b"".join(
        size.to_bytes(4, "little")
        + rows.to_bytes(4, "little")
        + first.to_bytes(8, "little")
        + check.to_bytes(8, "little")
        for size, rows, first, check in entries
    )
    length = len(content) + 20
    return (
        (0x184D2A5D).to_bytes(4, "little")
        + length.to_bytes(4, "little")
        + content
        + xxh3(content)
        + (length + 8).to_bytes(4, "little")
        + MAGIC
    )


def compressed(*frames: bytes) -> bytes:
    """A whole file of these frames."""
    return b"".join(frames) + table(
        [(len(f), 1, 7 + n, int.from_bytes(xxh3(f), "little")) for n, f in enumerate(frames)]
    )


def frame(content: bytes) -> bytes:
    return bytes(zstandard.ZstdCompressor(level=1, write_content_size=True).compress(content))


def with_claim(honest: bytes, length: int, claim: int) -> bytes:
    """The frame with another content size in its header, which has four bytes for it."""
    old = length.to_bytes(4, "little")
    assert honest.count(old) == 1
    return honest.replace(old, claim.to_bytes(4, "little"))


MEBIBYTE = 1 << 20
START = b'{"id":7,"source":"s","type":"t","refId":null,"payload":"'
HONEST_BYTES = len(START) + 9 * MEBIBYTE


def honest() -> bytes:
    return frame(START + b"a" * (9 * MEBIBYTE))


EIGHT_GIBIBYTES = b"\x28\xb5\x2f\xfd\xe0" + (8 << 30).to_bytes(8, "little") + b"\x01\x00\x00"

HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a bomb of a row": ("jsonl.zst", lambda: compressed(frame(START + b"a" * (300 * MEBIBYTE)))),
    "a bomb of zeros": ("jsonl.zst", lambda: compressed(frame(bytes(300 * MEBIBYTE)))),
    "a frame that claims 8 GiB": ("jsonl.zst", lambda: compressed(EIGHT_GIBIBYTES)),
    "a frame that claims more": ("jsonl.zst", lambda: compressed(with_claim(honest(), HONEST_BYTES, 1 << 30))),
    "a frame that claims less": ("jsonl.zst", lambda: compressed(with_claim(honest(), HONEST_BYTES, HONEST_BYTES - 1))),
    "a table of a block of 4 GiB": ("jsonl.zst", lambda: table([((1 << 32) - 1, 1, 7, 0)])),
    "a table that claims 4 GiB": ("jsonl.zst", lambda: table([])[:-12] + ((1 << 32) - 1).to_bytes(4, "little") + MAGIC),
    "a table of empty blocks": ("jsonl.zst", lambda: frame(b"") + table([(0, 1, 7, 0)] * 100_000)),
    "a long line": ("jsonl", lambda: START + b"a" * (150 * MEBIBYTE)),
    "a long line of zeros": ("jsonl", lambda: bytes(150 * MEBIBYTE)),
    "deep nesting": ("jsonl", lambda: b'{"id":' + b"[" * MEBIBYTE + b"\n"),
    "deep nesting under another key": ("jsonl", lambda: b'{"x":' * MEBIBYTE + b"\n"),
    "many empty lines": ("jsonl", lambda: b"\n" * MEBIBYTE),
}


READ = """
import resource, sys
from datetime import date
import nerve_store as ns

path, limit = sys.argv[1], int(sys.argv[2])
with ns.LogStore(path, durability="normal") as store:
    live = store.append("s", "t", "run")
    if limit:
        # Of the address space, as far as it is used by now.
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    outcomes = []
    for read in (
        lambda: store.query(archived=True),
        lambda: store.count(archived=True),
        lambda: list(store.read_archive(date.fromisoformat(sys.argv[3]))),
    ):
        try:
            read()
            outcomes.append("read")
        except ns.ArchiveCorruptError as error:
            outcomes.append(type(error).__name__)
            assert sys.argv[3] in str(error), error
    assert store.verify().ok == False
    store.archive_logs()
    assert [row.id for row in store.query(ref_id="run", since=live.timestamp, archived=True)] == [live.id]
    print(*outcomes)
"""


@pytest.mark.parametrize("limited", [True, False], ids=["address space limited", "unlimited"])
@pytest.mark.parametrize("name", HOSTILE.keys())
def test_hostile_file_is_refused_by_name(data_dir: Path, name: str, limited: bool) -> None:
    suffix, make = HOSTILE[name]
    directory = data_dir / "archive" / "logs"
    directory.mkdir(parents=True)
    (directory / f"{day(0)}.{suffix}").write_bytes(make())
    limit = 100 << 20 if limited else 0
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", READ, str(data_dir / "logs.db"), str(limit), str(day(0))],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2_000:]
    assert run.stdout.split() == ["ArchiveCorruptError"] * 3
    assert time.monotonic() - began < 60


def test_a_long_line_takes_time_in_proportion(data_dir: Path) -> None:
    directory = data_dir / "archive" / "logs"
    directory.mkdir(parents=True)
    path = directory / f"{day(0)}.jsonl"
    seconds = []
    with ns.LogStore(data_dir / "logs.db") as store:
        for mebibytes in (8, 128):
            row = Row(7, "s", "t", None, "x" * (mebibytes << 20), at(0))
            path.write_bytes(reference.archive_line(row).encode() + b"\n")
            times = []
            for _ in range(3):
                began = time.process_time()
                assert as_rows(store.query(archived=True)) == [row]
                times.append(time.process_time() - began)
            seconds.append(min(times))
    # Sixteen times as much; it was 256 times as long.
    assert seconds[1] < 100 * max(seconds[0], 0.01)
