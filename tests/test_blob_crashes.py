"""Blobs under several processes, kills and failing system calls, and what is flushed when."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

import nerve_store as ns
from blob_support import (
    CARELESS_QUARANTINER,
    CARELESS_WRITER,
    CARETAKER,
    COLLECTOR,
    COMPETITOR,
    CONTENTS,
    FORKER,
    HASH,
    OTHER_WAYS,
    QUARANTINER,
    WRITER,
    assert_collected,
    assert_set_aside,
    assert_whole,
    command,
    count_calls,
    inject,
    run,
    staged,
)
from support import KILLED, child_environment, require_strace, sample

# --- processes ---------------------------------------------------------------------------------------------------


def test_processes_write_and_delete_the_same_blobs(tmp_path: Path) -> None:
    competitors = [
        subprocess.Popen(
            command(COMPETITOR, tmp_path / "blobs", durability, deletes),
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for durability, deletes in (("full", "deletes"), ("normal", ""), ("full", ""), ("normal", ""))
    ]
    for competitor in competitors:
        assert competitor.stdout is not None
        assert competitor.stdout.readline() == "ready\n"
    said = [competitor.communicate("g", timeout=120)[0] for competitor in competitors]
    assert said == ["done\n"] * 4
    blobs = ns.BlobStore(tmp_path / "blobs")
    assert {blob_hash: blobs.read(blob_hash) for blob_hash in blobs} == CONTENTS
    assert staged(blobs) == []


def test_a_forked_child_goes_on_with_its_parents_store(tmp_path: Path) -> None:
    code, said = run(FORKER, tmp_path / "blobs")
    assert code == 0
    assert sorted(said[0].split()) == ["before", "child", "parent"]


THREADED = (OTHER_WAYS, CARETAKER, QUARANTINER, COLLECTOR, CARELESS_QUARANTINER)
PROGRAMS = {
    "single writes": WRITER,
    "other ways": OTHER_WAYS,
    "caretaker": CARETAKER,
    "quarantine": QUARANTINER,
    "collect": COLLECTOR,
}
CHECKS = {QUARANTINER: assert_set_aside, CARELESS_QUARANTINER: assert_set_aside, COLLECTOR: assert_collected}

# --- kills and failing system calls ------------------------------------------------------------------------------


def sweep_kills(program: str, directory: Path, points_per_call: int, *, threads: bool = False) -> tuple[int, int]:
    """How many points a kill was aimed at, and how many of them were reached."""
    points = [
        (call, when)
        for call, times in count_calls(program, directory, threads=threads).items()
        for when in sample(times, points_per_call)
    ]
    reached = missed = 0
    for number, (call, when) in enumerate(points):
        root = directory / str(number)
        code, said = run(program, root, prefix=inject(call, "signal=SIGKILL", when, threads=threads))
        # A blob whose flush took long is touched before it is published, and a busy machine tries the clock again:
        # neither is the same in every run.
        by_chance = call in ("utimensat", "pwrite64")
        assert code in KILLED or (code == 0 and (threads or by_chance)), (call, when)
        reached += code in KILLED
        missed += code == 0 and by_chance
        CHECKS.get(program, assert_whole)(root, said)
    return len(points) - missed, reached


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_kill_loses_no_acknowledged_blob(tmp_path: Path, program: str) -> None:
    require_strace()
    aimed, reached = sweep_kills(program, tmp_path, 2)
    assert reached == aimed >= 9


@pytest.mark.parametrize("program", [OTHER_WAYS, CARETAKER], ids=["other ways", "caretaker"])
def test_a_kill_among_threads_loses_no_acknowledged_blob(tmp_path: Path, program: str) -> None:
    require_strace()
    # They share the work differently each time, and then none may get as far as the point.
    aimed, reached = sweep_kills(program, tmp_path, 2, threads=True)
    assert aimed >= 9
    assert reached >= aimed / 3


@pytest.mark.torture
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_kill_at_any_call_loses_no_acknowledged_blob(tmp_path: Path, program: str) -> None:
    require_strace()
    aimed, reached = sweep_kills(program, tmp_path, 1000)
    assert reached == aimed >= 60


def test_the_sweep_catches_a_writer_that_does_not_stage(tmp_path: Path) -> None:
    require_strace()
    with pytest.raises(ns.BlobCorruptError):
        sweep_kills(CARELESS_WRITER, tmp_path, 1000)


def test_the_sweep_catches_a_quarantine_that_copies(tmp_path: Path) -> None:
    require_strace()
    with pytest.raises(AssertionError):
        sweep_kills(CARELESS_QUARANTINER, tmp_path, 1000)


def sweep_errors(program: str, directory: Path, points_per_call: int) -> None:
    # Calls are counted per thread, so that in a batch several may fail, or none.
    most_failed = 3 if program in THREADED else 1
    runs_that_failed = 0
    for call, times in count_calls(program, directory, threads=program in THREADED).items():
        for name in ("EIO", "ENOSPC"):
            for when in sample(times, points_per_call):
                root = directory / f"{call}-{name}-{when}"
                code, said = run(program, root, prefix=inject(call, f"error={name}", when))
                assert code == 0
                # The program's own calls fail, too; and `verify` tells in words what it could not move.
                failed = [line for line in said if "Error" in line]
                assert {line.split()[1] for line in failed} <= {str(getattr(errno, name)), "0"}
                if (call, name) == ("fsync", "EIO"):
                    # A failed flush is not tried again: nothing is acknowledged from there on.
                    assert failed or program in THREADED
                    # What `verify` found is in the order of the names, not of time.
                    assert said[len(said) - len(failed) :] == failed or program == QUARANTINER
                elif name == "EIO":
                    assert set(failed) <= {"StoreIOError 5", "OSError 5", "StoreIOError 0"}
                    assert len(failed) <= most_failed
                runs_that_failed += bool(failed)
                CHECKS.get(program, assert_whole)(root, said)
    assert runs_that_failed >= 6


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_failing_call_loses_no_acknowledged_blob(tmp_path: Path, program: str) -> None:
    require_strace()
    sweep_errors(program, tmp_path, 2)


@pytest.mark.torture
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_any_failing_call_loses_no_acknowledged_blob(tmp_path: Path, program: str) -> None:
    require_strace()
    sweep_errors(program, tmp_path, 1000)


def test_a_full_disk_that_shows_in_the_flush_does_not_poison(tmp_path: Path) -> None:
    require_strace()
    # The first flush is that of the new root's entry, the second that of the first staged blob.
    _, said = run(WRITER, tmp_path / "blobs", prefix=inject("fsync", "error=ENOSPC", 2))
    assert said == ["StoreFullError 28", *list(CONTENTS)[1:]]


@pytest.mark.parametrize("program", [WRITER, OTHER_WAYS], ids=["single writes", "other ways"])
@pytest.mark.parametrize("when", ["1+2", "1+"], ids=["every other link", "every link"])
def test_where_files_without_names_cannot_be_linked_there_are_other_ways(
    tmp_path: Path, program: str, when: str
) -> None:
    require_strace()
    # Once in two: by way of /proc. Never: staged under names, and renamed.
    code, said = run(program, tmp_path / "blobs", prefix=inject("linkat", "error=ENOENT", when, threads=False))
    assert code == 0
    assert sorted(said) == sorted(CONTENTS)
    assert_whole(tmp_path / "blobs", said)
    assert staged(ns.BlobStore(tmp_path / "blobs")) == []


# --- what is flushed, and when -----------------------------------------------------------------------------------

ONE = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
say("begin")
say(blobs.write("x"))
say(blobs.write("x"))
"""


def trace(root: Path, durability: str) -> list[str]:
    """What `ONE` flushes, publishes and says, in its order: the names of the files relative to `root`."""
    log = root.parent / "strace"
    calls = "fsync,fdatasync,rename,renameat,renameat2,linkat,write"
    prefix = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={calls}"]
    code, _ = run(ONE, root, durability, prefix=prefix)
    assert code == 0
    events: list[str] = []
    for line in log.read_text().splitlines():
        if flushed := re.search(r"\b(?:fsync|fdatasync)\(\d+<(.*?)>", line):
            events.append("flush " + re.sub(r"(?:\.stage-[\w-]+|#\d+)$", "*", os.path.relpath(flushed[1], root)))
        elif re.search(r'rename|linkat\(.*"[0-9a-f]{62}"', line):
            events.append("publish")
        elif said := re.search(r'write\(1<.*?>, "(\w+)', line):
            events.append(said[1][:5])
    return events[events.index("begin") + 1 :]


def test_full_durability_flushes_bytes_before_the_name_and_both_before_the_answer(tmp_path: Path) -> None:
    require_strace()
    file, shard = f"{HASH[:2]}/{HASH[2:]}", HASH[:2]
    vouched_for = [HASH[:5]]
    published = ["flush .staging/*", "publish", f"flush {shard}", "flush .", "flush ..", HASH[:5]]
    # The root is new here, so that its entry is flushed when it is made, too.
    assert trace(tmp_path / "full", "full") == ["flush ..", *published, *vouched_for]
    assert trace(tmp_path / "normal", "normal") == ["publish", HASH[:5], HASH[:5]]
    # An earlier writer flushed nothing: a full write of the same bytes makes up for it.
    made_up_for = [f"flush {file}", f"flush {shard}", "flush .", "flush ..", HASH[:5]]
    assert trace(tmp_path / "normal", "full") == [*made_up_for, *vouched_for]
