"""The harness of the fault sweeps: which calls it counts, where it strikes, and what it makes of a check that fails."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from programs import say
from support.faults import ACKNOWLEDGE, KILL, Run, Scenario, SweepError, points, run_faulted, sweep


def write_files(*, path: str, count: int) -> None:
    """Careful: a file is flushed under another name, renamed, and said."""
    os.mkdir(path)
    for number in range(count):
        with open(f"{path}/staged", "wb", buffering=0) as file:
            file.write(b"whole")
            os.fsync(file.fileno())
        os.rename(f"{path}/staged", f"{path}/{number}")
        say(number)


def write_files_whatever_happens(*, path: str, count: int) -> None:
    os.mkdir(path)
    for number in range(count):
        try:
            with open(f"{path}/staged", "wb", buffering=0) as file:
                file.write(b"whole")
            os.rename(f"{path}/staged", f"{path}/{number}")
        except OSError as error:
            say({"error": "OSError", "errno": error.errno})


def say_first(*, path: str) -> None:
    """Careless: says a file before it is there."""
    os.mkdir(path)
    say(0)
    with open(f"{path}/0", "wb", buffering=0) as file:
        file.write(b"whole")


def write_in_threads(*, path: str, count: int) -> None:
    os.mkdir(path)

    def write(number: int) -> None:
        with open(f"{path}/{number}", "wb", buffering=0) as file:
            file.write(b"x")

    workers = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    say("done")


def start_a_thread(*, path: str) -> None:
    thread = threading.Thread(target=os.mkdir, args=(path,))
    try:
        thread.start()
    except RuntimeError:
        say("refused")
    else:
        thread.join()
        say("started")


def kill_the_server(*, path: str) -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def break_off(*, path: str) -> None:
    raise ValueError(path)


def what_was_said_is_whole(directory: Path, _prepared: None, run: Run) -> None:
    for number in run.acknowledged:
        assert (directory / "files" / str(number)).read_bytes() == b"whole"


CAREFUL = Scenario(write_files, what_was_said_is_whole, arguments={"count": 2}, name="files")
CALLS = ("mkdir", *(("openat", "write", "fsync", "rename", ACKNOWLEDGE) * 2))


def test_calls_are_those_of_the_work_in_their_order(tmp_path: Path) -> None:
    run = run_faulted(write_files, path=str(tmp_path / "files"), count=2)
    assert (run.returncode, run.said, run.calls) == (0, [0, 1], CALLS)


def test_kill_strikes_before_the_call_happens(tmp_path: Path) -> None:
    runs = sweep(CAREFUL, tmp_path, KILL)
    assert [run.call for run in runs] == list(CALLS)
    assert all(run.killed and run.calls == CALLS[: run.when] for run in runs)
    assert [len(run.said) for run in runs] == [0] * 6 + [1] * 5


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_error_is_that_of_the_call_and_is_said(tmp_path: Path, number: int) -> None:
    runs = sweep(CAREFUL, tmp_path, number)
    assert [run.call for run in runs] == [call for call in CALLS if call != ACKNOWLEDGE]
    assert all([failure["errno"] for failure in run.failures] == [number] for run in runs)


def test_lasting_error_is_that_of_every_later_call(tmp_path: Path) -> None:
    work = write_files_whatever_happens
    first_rename = run_faulted(work, path=str(tmp_path / "files"), count=2).calls.index("rename") + 1
    once = run_faulted(work, errno.EIO, first_rename, path=str(tmp_path / "once"), count=2)
    assert [len(once.failures), sorted(os.listdir(tmp_path / "once"))] == [1, ["1"]]
    lasting = run_faulted(work, errno.EIO, first_rename, lasting=True, path=str(tmp_path / "lasting"), count=2)
    assert [len(lasting.failures), sorted(os.listdir(tmp_path / "lasting"))] == [2, ["staged"]]


def test_every_thread_is_counted(tmp_path: Path) -> None:
    calls = Counter(run_faulted(write_in_threads, path=str(tmp_path / "files"), count=5).calls)
    assert calls == {"mkdir": 1, "openat": 5, "write": 5, ACKNOWLEDGE: 1}
    for when in range(2, 12):
        run = run_faulted(write_in_threads, KILL, when, path=str(tmp_path / str(when)), count=5)
        assert run.killed
        assert len(run.calls) == when


def test_threads_can_be_refused(tmp_path: Path) -> None:
    assert run_faulted(start_a_thread, path=str(tmp_path / "a")).said == ["started"]
    assert run_faulted(start_a_thread, threads=False, path=str(tmp_path / "b")).said == ["refused"]


def test_check_that_fails_names_the_call(tmp_path: Path) -> None:
    careless = Scenario(say_first, what_was_said_is_whole, name="files")
    with pytest.raises(SweepError, match=r"^killed at call 3 of 4, openat: FileNotFoundError"):
        sweep(careless, tmp_path, KILL)


def test_work_that_breaks_off_by_itself_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ValueError"):
        sweep(Scenario(break_off, what_was_said_is_whole, name="files"), tmp_path, KILL)


def test_sample_has_both_ends_and_every_kind() -> None:
    calls = ["write"] * 50 + ["fsync"] + [ACKNOWLEDGE] * 2
    assert points(calls, KILL) == list(range(1, 54))
    assert points(calls, errno.EIO) == list(range(1, 52))
    assert points(calls, KILL, size=1) == [27]
    assert points(calls, KILL, size=3) == [1, 27, 53]
    assert points(calls, KILL, per_call=2) == [1, 50, 51, 52, 53]
    assert points(calls, errno.EIO, per_call=2) == [1, 50, 51]


def test_a_server_that_ended_fails_one_run_alone(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="the fault server has ended: -9"):
        run_faulted(kill_the_server, path=str(tmp_path / "files"))
    assert run_faulted(write_files, path=str(tmp_path / "files"), count=1).said == [0]
