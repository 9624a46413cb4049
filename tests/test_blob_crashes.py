"""Blobs under several processes, kills and failing system calls, and what is flushed when."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import nerve_store as ns
from programs.blobs import (
    collect,
    set_aside,
    set_aside_by_copying,
    take_care,
    write_each,
    write_in_other_ways,
    write_without_staging,
)
from support import child_command, child_environment
from support.blobs import (
    COMPETITOR,
    CONTENTS,
    FORKER,
    HASH,
    assert_collected,
    assert_set_aside,
    assert_whole,
    command,
    is_in_memory,
    run,
    staged,
)
from support.faults import KILL, Scenario, SweepError, run_faulted, sweep
from support.strace import run_straced

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


def swept(work: Callable[..., None], *, threads: bool = True) -> Scenario[None]:
    check = {set_aside: assert_set_aside, set_aside_by_copying: assert_set_aside, collect: assert_collected}.get(
        work, assert_whole
    )
    return Scenario(work, lambda directory, _, run: check(directory / "blobs", run.said), name="blobs", threads=threads)


THREADED = (write_in_other_ways, take_care, set_aside, collect)
PROGRAMS = {
    "single writes": write_each,
    "other ways": write_in_other_ways,
    "caretaker": take_care,
    "quarantine": set_aside,
    "collect": collect,
}

# --- kills and failing system calls ------------------------------------------------------------------------------


def sweep_kills(work: Callable[..., None], scratch: Path, per_call: int, *, threads: bool = False) -> tuple[int, int]:
    """How many points a kill was aimed at, and how many of them were reached."""
    runs = sweep(swept(work, threads=threads), scratch, KILL, per_call=per_call)
    # A blob whose flush took long is touched before it is published, and a busy machine tries the clock again: neither
    # is the same in every run.
    by_chance = {"utimensat", "pwrite64"}
    missed = [
        one for one in runs if not one.killed and (Counter(one.undisturbed) - Counter(one.calls)).keys() <= by_chance
    ]
    return len(runs) - len(missed), sum(one.killed for one in runs)


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_kill_loses_no_acknowledged_blob(tmp_path: Path, program: Callable[..., None]) -> None:
    aimed, reached = sweep_kills(program, tmp_path, 2)
    assert reached == aimed >= 9


@pytest.mark.parametrize("program", [write_in_other_ways, take_care], ids=["other ways", "caretaker"])
def test_a_kill_among_threads_loses_no_acknowledged_blob(tmp_path: Path, program: Callable[..., None]) -> None:
    # They share the work differently each time, and then a run may make fewer calls.
    aimed, reached = sweep_kills(program, tmp_path, 2, threads=True)
    assert aimed >= 9
    assert reached >= aimed * 2 / 3


@pytest.mark.torture
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_kill_at_any_call_loses_no_acknowledged_blob(tmp_path: Path, program: Callable[..., None]) -> None:
    aimed, reached = sweep_kills(program, tmp_path, 1000)
    assert reached == aimed >= 60


def test_the_sweep_catches_a_writer_that_does_not_stage(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as caught:
        sweep(swept(write_without_staging), tmp_path, KILL)
    assert isinstance(caught.value.__cause__, ns.BlobCorruptError)


def test_the_sweep_catches_a_quarantine_that_copies(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as caught:
        sweep(swept(set_aside_by_copying), tmp_path, KILL)
    assert isinstance(caught.value.__cause__, AssertionError)


def publications(calls: Sequence[str]) -> int:
    return sum(call.startswith(("link", "rename")) for call in calls)


def sweep_errors(work: Callable[..., None], scratch: Path, per_call: int | None) -> None:
    runs_that_failed = 0
    for number in (errno.EIO, errno.ENOSPC):
        for one in sweep(swept(work, threads=work in THREADED), scratch, number, per_call=per_call):
            # The program's own calls fail, too; and `verify` tells in words what it could not move.
            failed = [line for line in one.said if "Error" in line]
            assert {line.split()[1] for line in failed} <= {str(number), "0"}, one
            if (one.call, number) == ("fsync", errno.EIO):
                # A failed flush is not tried again: nothing is acknowledged from there on, but that a copy that was
                # there before is replaced by another one.
                assert failed or publications(one.calls) > publications(one.undisturbed), one
                # What `verify` found is in the order of the names, not of time.
                assert one.said[len(one.said) - len(failed) :] == failed or work is set_aside, one
            elif number == errno.EIO:
                assert set(failed) <= {"StoreIOError 5", "OSError 5", "StoreIOError 0"}, one
                assert len(failed) <= 1, one
            runs_that_failed += bool(failed)
    assert runs_that_failed >= 6


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_failing_call_loses_no_acknowledged_blob(tmp_path: Path, program: Callable[..., None]) -> None:
    sweep_errors(program, tmp_path, 2)


@pytest.mark.torture
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_any_failing_call_loses_no_acknowledged_blob(tmp_path: Path, program: Callable[..., None]) -> None:
    sweep_errors(program, tmp_path, None)


def test_a_full_disk_that_shows_in_the_flush_does_not_poison(tmp_path: Path) -> None:
    # The first flush is that of the new root's entry, the second that of the first staged blob. On a busy machine the
    # first write asks more than once how fine the clock is, so that another call may have the number: then once more.
    for attempt in range(20):
        calls = run_faulted(write_each, path=str(tmp_path / f"counted-{attempt}")).calls
        second = [number for number, call in enumerate(calls, 1) if call == "fsync"][1]
        struck = run_faulted(write_each, errno.ENOSPC, second, path=str(tmp_path / f"blobs-{attempt}"))
        if struck.call == "fsync" and struck.calls[:second].count("fsync") == 2:
            said = struck.said
            break
    else:
        pytest.fail("the second flush was never struck")
    assert said == ["StoreFullError 28", *list(CONTENTS)[1:]]


@pytest.mark.parametrize("program", [write_each, write_in_other_ways], ids=["single writes", "other ways"])
@pytest.mark.parametrize("when", ["1+2", "1+"], ids=["every other link", "every link"])
def test_where_files_without_names_cannot_be_linked_there_are_other_ways(
    tmp_path: Path, program: Callable[..., None], when: str
) -> None:
    # Once in two: by way of /proc. Never: staged under names, and renamed.
    faults = [f"linkat:error=ENOENT:when={when}", "clone,clone3:error=EAGAIN"]
    done, _ = run_straced(
        child_command(program.__name__, path=str(tmp_path / "blobs")),
        tmp_path / "strace",
        "linkat,clone,clone3",
        faults,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
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
    calls = "fsync,fdatasync,rename,renameat,renameat2,linkat,write"
    done, lines = run_straced(command(ONE, root, durability), root.parent / "strace", calls)
    assert done.returncode == 0
    events: list[str] = []
    for line in lines:
        if flushed := re.search(r"\b(?:fsync|fdatasync)\(\d+<(.*?)>", line):
            events.append("flush " + re.sub(r"(?:\.stage-[\w-]+|#\d+)$", "*", os.path.relpath(flushed[1], root)))
        elif re.search(r'rename|linkat\(.*"[0-9a-f]{62}"', line):
            events.append("publish")
        elif said := re.search(r'write\(1<.*?>, "(\w+)', line):
            events.append(said[1][:5])
    return events[events.index("begin") + 1 :]


def test_full_durability_flushes_bytes_before_the_name_and_both_before_the_answer(tmp_path: Path) -> None:
    file, shard = f"{HASH[:2]}/{HASH[2:]}", HASH[:2]
    # An earlier writer flushed nothing: a full write of the same bytes makes up for it.
    made_up_for = [f"flush {file}", f"flush {shard}", "flush .", "flush ..", HASH[:5]]
    # The way from the root on is known to be synced.
    vouched_for = [*made_up_for[:2], HASH[:5]] if is_in_memory(tmp_path) else [HASH[:5]]
    published = ["flush .staging/*", "publish", f"flush {shard}", "flush .", "flush ..", HASH[:5]]
    # The root is new here, so that its entry is flushed when it is made, too.
    assert trace(tmp_path / "full", "full") == ["flush ..", *published, *vouched_for]
    assert trace(tmp_path / "normal", "normal") == ["publish", HASH[:5], HASH[:5]]
    assert trace(tmp_path / "normal", "full") == [*made_up_for, *vouched_for]
