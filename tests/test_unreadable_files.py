"""One file or directory that cannot be read: backups and verifications name it, and go on with all others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nerve_store as ns
from support.archive import MARK, NOW, day, fill
from support.backups import blobs_of, stored
from support.processes import run_child

NOBODY = 65_534
"""Root reads everything; it gives its rights up first."""


def deny(path: Path) -> None:
    """As if it were another user's."""
    path.chmod(0)


def link(path: Path) -> None:
    """A link to the same, elsewhere."""
    elsewhere = path.parents[2] / f"moved-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def take_its_name(path: Path) -> None:
    """A directory in its place."""
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FILES: dict[str, str] = {
    "plain day": f"archive/logs/{day(0)}.jsonl",
    "compressed day": f"archive/logs/{day(2)}.jsonl.zst",
    "unlisted day": f"archive/logs/{day(30)}.jsonl",
    "mark": f"archive/logs/{MARK}",
    "blob": "blobs/??/*",
}
DIRECTORIES: dict[str, str] = {"archive": "archive/logs", "blobs": "blobs", "shard": "blobs/??"}
OBSTACLES: list[tuple[str, Callable[[Path], None]]] = [
    *((place, obstacle) for place in FILES.values() for obstacle in (deny, link, take_its_name, pipe)),
    *((place, deny) for place in DIRECTORIES.values()),
    (DIRECTORIES["shard"], link),
]
NAMES = {place: name for name, place in {**FILES, **DIRECTORIES}.items()}


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory that its user reaches, in a directory of that user's."""
    parent = Path(tempfile.mkdtemp(prefix="nerve-unreadable-"))
    (parent / "store").mkdir()
    # Segments of which some rows have left.
    with ns.LogStore(parent / "store/logs.db", segment_rows=8) as logs:
        fill(logs, days=6)
        logs.archive_logs(now=NOW, max_days=1)
    stored(parent / "store")
    yield parent / "store"
    subprocess.run(["chmod", "-R", "u+rwX", parent], check=True)
    shutil.rmtree(parent)


def chosen(data: Path, place: str) -> Path:
    """One of the paths that are meant."""
    return min(data.glob(place))


@pytest.mark.parametrize(
    ("place", "obstacle"), OBSTACLES, ids=[f"{NAMES[place]}: {obstacle.__name__}" for place, obstacle in OBSTACLES]
)
def test_it_is_named_and_all_others_are_copied_and_verified(
    data: Path, place: str, obstacle: Callable[[Path], None]
) -> None:
    if place == FILES["unlisted day"]:
        shutil.copy(data / FILES["plain day"], data / place)
    blobs = blobs_of(data)
    files = {path.name for path in (data / "archive/logs").iterdir()}
    path = chosen(data, place)
    obstacle(path)
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        for found in [data.parent, *data.parent.rglob("*")]:
            os.chown(found, user, user, follow_symlinks=False)
    backup = data.parent / "backup"
    done = run_child("look_after", path=str(data), target=str(backup), user=user)
    assert done.returncode == 0, done.stderr
    said = {call: paths for line in done.stdout.splitlines() for call, paths in json.loads(line).items()}
    named, is_blob = [str(path)], place.startswith("blobs")
    assert said == {
        "backup": named,
        "backup that reports": named,
        "backup of the database": [],
        "verify": [] if is_blob else said["verify"],
        "verify of blobs": named if is_blob else [],
        "verify of blobs that reports": named if is_blob else [],
    }
    assert is_blob or str(path) in said["verify"]
    lost_blobs = {blob for blob in blobs if str(data / "blobs" / blob[:2] / blob[2:]).startswith(str(path))}
    lost_files = {name for name in files if str(data / "archive/logs" / name).startswith(str(path))}
    assert lost_blobs or lost_files
    assert blobs_of(backup) == blobs - lost_blobs
    archive = backup / "archive/logs"
    assert {found.name for found in archive.glob("*")} == files - lost_files
    with ns.Store(backup, read_only=True) as store:
        assert store.blobs.verify().ok
        assert store.logs.stats().row_count > 0
