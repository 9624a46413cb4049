"""Whatever a loss of power leaves of what was not flushed, a store opens on it and has all that was acknowledged."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

import nerve_store as ns
from support.counts import amount, note
from support.faults import in_memory
from support.ledger import complaints, read_ledger
from support.processes import child_command
from support.replay import CALLS, MODES, OPTIONS, Disk, Recording
from support.strace import run_straced


@dataclass
class Tally:
    images: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    events: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)


def record(scratch: Path, seed: int, steps: int) -> Recording:
    root, acknowledgements, trace = scratch / "root", scratch / "acknowledgements", scratch / "trace"
    root.mkdir()
    common = {"path": str(root / "data"), "acknowledgements": str(acknowledgements)}
    command = child_command("work_in_turn", writer=f"s{seed}", steps=steps, **common)
    done, _ = run_straced(command, trace, CALLS, options=OPTIONS)
    assert done.returncode == 0, done.stderr
    recording = Recording(trace, root, acknowledgements)
    assert b"".join(event.data for event in recording.events if event.kind == "say") == acknowledgements.read_bytes()
    return recording


def assert_recorded(recording: Recording, root: Path, scratch: Path) -> None:
    """With all that was written, the image is what the program left."""
    disk = Disk(str(root))
    for event in recording.events:
        disk.apply(event)
    disk.write_image(scratch / "whole", Random(0), "all")

    def files(directory: Path) -> dict[str, bytes]:
        found = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if not name.endswith("-shm")}

    assert files(scratch / "whole") == files(root)


def replayed(
    scratch: Path, images: int, seed: int, *, steps: int, directory_syncs: bool = True, flushes: bool = True
) -> Tally:
    """Build and check so many images of a recording, at random moments of it."""
    tally = Tally()
    random = Random(seed)
    with in_memory(scratch) as place:
        recording = record(place, seed, steps)
        root = place / "root"
        assert_recorded(recording, root, place)
        tally.events = Counter(event.kind for event in recording.events)
        first = next(at for at, event in enumerate(recording.events) if event.kind == "say")
        moments = sorted(random.randrange(first, len(recording.events)) for _ in range(images // len(MODES)))
        disk = Disk(str(root), directory_syncs=directory_syncs, flushes=flushes)
        said = b""
        at = 0
        for moment in moments:
            for event in recording.events[at:moment]:
                disk.apply(event)
                said += event.data if event.kind == "say" else b""
            at = moment
            for mode in MODES:
                check(disk, place, random, mode, said, tally, f"{mode}, event {moment}")
                if tally.found:
                    shutil.copytree(place, scratch / "replayed", dirs_exist_ok=True)
                    return tally
    acknowledged, events = tally.acknowledged, tally.events.total()
    note("images", f"seed {seed}", images=tally.images.total(), acknowledgements=acknowledged, events=events)
    return tally


def check(disk: Disk, place: Path, random: Random, mode: str, said: bytes, tally: Tally, what: str) -> None:
    image = place / "image"
    image.mkdir()
    disk.write_image(image, random, mode)  # type: ignore[arg-type]
    (place / "said").write_bytes(said)
    ledger = read_ledger(place / "said", power=True)
    tally.images[mode] += 1
    tally.acknowledged += ledger.count
    try:
        tally.found += [f"{what}: {each}" for each in complaints(image / "data", ledger)]
    except ns.NerveStoreError as error:
        tally.found.append(f"{what}: lost to {error!r}")
    if not tally.found:
        shutil.rmtree(image)


def test_an_image_of_any_moment_has_what_was_acknowledged(tmp_path: Path) -> None:
    assert replayed(tmp_path, 36, 0, steps=2).found == []


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(10, 10 + amount(10)))
def test_many_images_have_what_was_acknowledged(tmp_path: Path, seed: int) -> None:
    tally = replayed(tmp_path, 504, seed, steps=5)
    assert tally.found == []
    assert tally.images.total() == 504


@pytest.mark.parametrize("control", ["flushes", "directory_syncs"])
def test_images_catch_flushes_that_do_nothing(tmp_path: Path, control: str) -> None:
    found = replayed(tmp_path, 200, 3, steps=2, **{control: False}).found
    assert any("lost" in each for each in found)
