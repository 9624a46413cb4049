"""Every write of a `BlobStore` that is killed or failed at any of its calls leaves whole blobs, and loses none."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import nerve_store as ns
from programs.faulted import (
    ASYNC_BLOB_WRITES,
    BLOB_WRITES,
    HASHES,
    NEW,
    OLD,
    Durability,
    delete_before_writing,
    stored_at,
    write_blobs,
    write_blobs_async,
)
from support.counts import note
from support.faults import FAULTS, KILL, NONE, Run, Scenario, SweepError, kind_of, sweep

MODES: tuple[Durability, ...] = ("full", "normal")
WHOLE = dict(zip(HASHES, OLD, strict=True)) | {ns.blob_hash(content): content for content in NEW}
DAMAGED = b"#" + OLD[3][1:]
WITHOUT_TRACE = {"write what is there", "writer whose blob is discarded"}
"""What a reader does not notice."""


@dataclass
class States:
    """The blobs before the write and after it: of a damaged one None."""

    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes | None] = field(default_factory=dict)


def state(blobs: ns.BlobStore) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for blob_hash in blobs:
        try:
            found[blob_hash] = blobs.read(blob_hash)
        except ns.BlobCorruptError:
            found[blob_hash] = None
    return found


def prepare(directory: Path) -> States:
    """Four old blobs; the last one is damaged."""
    blobs = ns.BlobStore(directory / "blobs")
    assert blobs.write_many(OLD) == HASHES
    damaged = stored_at(blobs.root, HASHES[3])
    damaged.chmod(0o600)
    damaged.write_bytes(DAMAGED)
    for blob_hash in HASHES:
        os.utime(stored_at(blobs.root, blob_hash), (0, 0))
    return States(state(blobs))


def check(directory: Path, states: States, run: Run) -> None:
    blobs = ns.BlobStore(directory / "blobs")
    assert all(failure["is_ours"] for failure in run.failures), run.failures
    found = state(blobs)
    if run.fault == NONE:
        states.after = found
        assert found != states.before or WITHOUT_TRACE.issuperset(run.acknowledged), "there was nothing to do"
    for blob_hash in states.before.keys() | states.after.keys() | found.keys():
        versions = [states.before.get(blob_hash, b""), states.after.get(blob_hash, b"")]
        assert found.get(blob_hash, b"") in versions, f"{blob_hash} is neither as before nor as after"
        assert found.get(blob_hash) in (None, WHOLE[blob_hash]), "wrong bytes"
    if run.acknowledged and run.fault == KILL:
        assert found == states.after, "an acknowledged write is lost"
    if run.acknowledged and BLOB_WRITES.keys() - {"verify"} >= set(run.acknowledged):
        assert found == states.after, "an acknowledged write is lost"
    aside = [path for path in (directory / "blobs").rglob("*") if path.parent.name == ".quarantine"]
    assert all(path.read_bytes() == DAMAGED for path in aside)
    if HASHES[3] not in found and states.after.get(HASHES[3]) is None and "collect" not in run.acknowledged:
        assert aside or "collect" in str(run.stdout), "what was damaged is neither in its place nor aside"
    for content in WHOLE.values():
        blobs.write(content)
    assert state(blobs) == WHOLE
    assert blobs.verify().ok


def swept(
    name: str,
    tmp_path: Path,
    fault: int,
    per_call: int | None,
    durability: Durability,
    *,
    by: Callable[..., None] = write_blobs,
    reads: bool = False,
) -> Counter[str]:
    arguments = {"name": name, "durability": durability}
    scenario = Scenario(by, check, prepare=prepare, arguments=arguments, name="blobs", reads=reads)
    runs = sweep(scenario, tmp_path, fault, per_call=per_call)
    assert all(run.killed or run.failures or run.acknowledged for run in runs), "neither acknowledged nor refused"
    calls = Counter(run.call for run in runs)
    kind = kind_of(fault) + (" of reads" if reads else "")
    note(f"faults of {by.__name__}", f"{name} {durability}", points=calls.total(), **{kind: calls.total()})
    return calls


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", BLOB_WRITES)
def test_write_that_is_cut_short_leaves_whole_blobs(tmp_path: Path, name: str, fault: int) -> None:
    assert swept(name, tmp_path, fault, 1, "full").total() >= 2


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", ["write", "writer", "collect"])
def test_asynchronous_write_that_is_cut_short_leaves_whole_blobs(tmp_path: Path, name: str, fault: int) -> None:
    assert swept(name, tmp_path, fault, 1, "full", by=write_blobs_async).total() >= 2


def test_every_asynchronous_write_is_swept() -> None:
    assert ASYNC_BLOB_WRITES.keys() == BLOB_WRITES.keys()


@pytest.mark.parametrize("name", BLOB_WRITES)
def test_write_that_cannot_read_leaves_whole_blobs(tmp_path: Path, name: str) -> None:
    assert swept(name, tmp_path, errno.EIO, 1, "full", reads=True).total() >= 3


@pytest.mark.torture
@pytest.mark.parametrize("by", [write_blobs, write_blobs_async])
@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", BLOB_WRITES)
def test_write_that_is_cut_short_at_any_call_leaves_whole_blobs(
    tmp_path: Path, name: str, fault: int, durability: Durability, by: Callable[..., None]
) -> None:
    assert swept(name, tmp_path, fault, None, durability, by=by).total() >= 1


@pytest.mark.torture
@pytest.mark.parametrize("name", BLOB_WRITES)
def test_write_that_cannot_read_at_any_call_leaves_whole_blobs(tmp_path: Path, name: str) -> None:
    assert swept(name, tmp_path, errno.EIO, None, "full", reads=True).total() >= 6


def test_sweep_catches_a_blob_that_is_removed_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="neither as before nor as after"):
        swept("write what is there", tmp_path, KILL, None, "full", by=delete_before_writing)
