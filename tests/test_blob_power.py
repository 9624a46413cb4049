"""Blobs and power cuts: an ext4 in a file, shut down without writing what it has not been told to flush."""

from __future__ import annotations

import inspect
import subprocess
from pathlib import Path

import pytest

import nerve_store as ns
from support import child_environment
from support.blobs import CONTENTS, DAMAGED, assert_set_aside, command
from support.disks import power_cut_disk


def batch(number: int) -> list[bytes]:
    return [b"%d %d " % (number, item) + b"." * (item * 997) for item in range(6)]


BATCH = inspect.getsource(batch)
STREAM = """
def stream(content):
    with blobs.writer() as writer:
        writer.write(content)
    return writer.hash

blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
"""
ENDLESS = """
for number in range(10**9):
    if number % 3 == 0:
        names = [blobs.write(content) for content in batch(number)]
    elif number % 3 == 1:
        names = blobs.write_many(batch(number))
    else:
        names = [stream(content) for content in batch(number)]
    say(" ".join(names))
"""
# What `normal` has written, `full` only has to make durable: the bytes are there.
AGAIN = """
hasty = ns.BlobStore(sys.argv[1], durability="normal")
for number in range(10**9):
    hasty.write_many(batch(number))
    names = blobs.write_many(batch(number)) if number % 2 else [blobs.write(content) for content in batch(number)]
    say(" ".join(names))
"""


def cut_power(tmp_path: Path, program: str, batches: int, durability: str) -> int:
    """How many acknowledged blobs were not whole after the power went, once so many batches were acknowledged."""
    with power_cut_disk(tmp_path) as disk:
        root = disk.directory / "data" / "blobs"
        child = subprocess.Popen(
            command(BATCH + STREAM + program, root, durability),
            env=child_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(batches)]
        disk.cut_power()
        child.kill()
        child.communicate(timeout=30)
        disk.power_up()
        blobs = ns.BlobStore(root, durability="normal")
        lost = 0
        for number, line in enumerate(said):
            assert line.split() == [ns.blob_hash(content) for content in batch(number)]
            for blob_hash, content in zip(line.split(), batch(number), strict=True):
                try:
                    found = blobs.read(blob_hash)
                except ns.BlobCorruptError:
                    found = None
                assert found in (content, None), "wrong bytes"
                lost += found is None
        if durability == "full" and program == ENDLESS:
            assert blobs.verify().ok, "a name before its bytes"
        for number in range(batches):
            assert [blobs.read(blob_hash) for blob_hash in blobs.write_many(batch(number))] == batch(number)
        blobs.close()
        return lost


@pytest.mark.parametrize("batches", [1, 2, 3, 20])
@pytest.mark.parametrize("program", [ENDLESS, AGAIN], ids=["new", "there already"])
def test_acknowledged_blobs_survive_a_power_cut(tmp_path: Path, program: str, batches: int) -> None:
    assert cut_power(tmp_path, program, batches, "full") == 0


@pytest.mark.torture
@pytest.mark.parametrize("batches", range(1, 41))
@pytest.mark.parametrize("program", [ENDLESS, AGAIN], ids=["new", "there already"])
def test_acknowledged_blobs_survive_a_power_cut_whenever_it_comes(tmp_path: Path, program: str, batches: int) -> None:
    assert cut_power(tmp_path, program, batches, "full") == 0


@pytest.mark.parametrize("program", [ENDLESS, AGAIN], ids=["new", "there already"])
def test_what_was_not_flushed_does_not_survive_it(tmp_path: Path, program: str) -> None:
    """The control of the tests above; and what is torn is neither read nor left unhealed."""
    assert cut_power(tmp_path, program, 20, "normal") > 0


SET_ASIDE = """
blobs = ns.BlobStore(sys.argv[1])
names = blobs.write_many(contents)
for name in names[:3]:
    with open(f"{sys.argv[1]}/{name[:2]}/{name[2:]}", "r+b", buffering=0) as file:
        file.write(b"#")
        os.fsync(file.fileno())
assert len(blobs.verify().problems) == 3
say("damaged")
for name in names[:3]:
    say(name)
sys.stdin.read()
"""


def test_what_was_set_aside_survives_a_power_cut(tmp_path: Path) -> None:
    with power_cut_disk(tmp_path) as disk:
        root = disk.directory / "blobs"
        child = subprocess.Popen(
            command(SET_ASIDE, root),
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(4)]
        assert said == ["damaged", *list(CONTENTS)[:3]] == ["damaged", *DAMAGED]
        disk.cut_power()
        child.kill()
        child.communicate(timeout=30)
        disk.power_up()
        assert_set_aside(root, said)
