"""Lost or damaged write-ahead logs take commits with them; the ids of those are not given out again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import nerve_store as ns
from support.strace import strace

KILLED_APPENDER = """
import os, signal, sys
import nerve_store as ns

logs = ns.LogStore(sys.argv[1], durability=sys.argv[2])
for count in map(int, sys.argv[3].split(",")):
    ids = logs.append_many([("system", "tick", f"run-{n}", "x" * 200, 0) for n in range(count)])
    print(ids[-1], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def append_and_die(path: Path, counts: list[int], durability: str = "full", prefix: Sequence[str] = ()) -> int:
    """The last id that a process acknowledged before it was killed."""
    command = [*prefix, sys.executable, "-c", KILLED_APPENDER, str(path), durability, ",".join(map(str, counts))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return int(done.stdout.split()[-1])


def remove(wal: Path) -> None:
    wal.unlink()


def remove_with_index(wal: Path) -> None:
    wal.unlink()
    wal.with_name(wal.name.removesuffix("-wal") + "-shm").unlink()


def empty(wal: Path) -> None:
    os.truncate(wal, 0)


def spoil_header(wal: Path) -> None:
    spoil(wal, 17)


def spoil_first_frame(wal: Path) -> None:
    spoil(wal, 32 + 24 + 100)


def spoil_middle(wal: Path) -> None:
    spoil(wal, (wal.stat().st_size - 32) // 2)


def overwrite(wal: Path) -> None:
    wal.write_bytes(b"\xff" * wal.stat().st_size)


def spoil(wal: Path, at: int) -> None:
    data = bytearray(wal.read_bytes())
    data[at] ^= 0x20
    wal.write_bytes(data)


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [3, 5, 700], [600, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize(
    "damage",
    [remove, remove_with_index, empty, spoil_header, spoil_first_frame, spoil_middle, overwrite],
)
def test_ids_of_lost_commits_are_not_given_out_again(
    data_dir: Path, damage: Callable[[Path], None], durability: str, counts: list[int]
) -> None:
    path = data_dir / "logs.db"
    acknowledged = append_and_die(path, counts, durability)
    damage(data_dir / "logs.db-wal")
    with ns.LogStore(path) as logs:
        kept = logs.count()
        assert kept < acknowledged, "the damage took commits with it"
        assert logs.append("system", "after").id > acknowledged
        assert logs.verify().ok
    with ns.LogStore(path) as logs:
        assert logs.count() == kept + 1


def test_a_killed_process_that_lost_nothing_leaves_no_gap(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    for expected in (7, 14, 21):
        assert append_and_die(path, [1, 6]) == expected
    with ns.LogStore(path) as logs:
        assert logs.append("system", "after").id == 22
    assert sorted(item.name for item in data_dir.iterdir()) == ["logs.db"]


def test_a_close_beside_an_open_store_carries_its_commits_over(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as keeps, ns.LogStore(path) as logs:
        logs.append_many([("system", "tick", None, "x" * 500, 0)] * 500)
        before = path.stat().st_size
        logs.close()
        assert path.stat().st_size > before + 500 * 400
        assert keeps.count() == 500


@pytest.mark.parametrize("which", ["1+2", "2+3", "3+3", "4+3", "5+7"])
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_a_write_that_a_signal_interrupts_is_made_whole(tmp_path: Path, durability: str, which: str) -> None:
    """Some file systems interrupt writes. A frame's header and its page are one call, and are repeated as one."""
    path = tmp_path / "logs.db"
    interrupting = strace(tmp_path / "trace", "pwrite64", [f"pwrite64:error=EINTR:when={which}"])
    last = append_and_die(path, [1, 50, 1, 7], durability, interrupting)
    assert "EINTR" in (tmp_path / "trace").read_text("utf-8")
    with ns.LogStore(path) as store:
        assert [row.id for row in store.query()] == list(range(1, last + 1)) == list(range(1, 60))
        assert store.verify().ok
