"""No acknowledged row, state or blob is lost when the power goes in the middle of the work."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from programs.campaign import KINDS
from support.counts import amount
from support.power import a_disk, cut_power, without_directory_syncs, without_syncs_of_the_backup


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_acknowledged_is_lost_when_the_power_goes(tmp_path: Path, kind: str) -> None:
    assert cut_power(tmp_path, kind, 1).found == []


@pytest.mark.torture
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_acknowledged_is_lost_whenever_the_power_goes(tmp_path: Path, kind: str) -> None:
    tally = cut_power(tmp_path, kind, amount(15), seed=1)
    assert tally.found == []
    assert tally.cuts == amount(15)


@pytest.mark.parametrize("kind", ["append", "runs and meta", "blobs"])
def test_cuts_catch_a_flush_that_is_claimed_and_not_done(tmp_path: Path, kind: str) -> None:
    found = cut_power(tmp_path, kind, 4, seed=3, full="normal").found
    assert any("lost" in each for each in found), found


def test_cuts_catch_that_the_directory_of_a_backup_is_not_synced(tmp_path: Path) -> None:
    found = cut_power(tmp_path, "backup and rest", 4, seed=5, before=without_syncs_of_the_backup).found
    assert any("lost backup" in each or "backup: lost row" in each for each in found), found


def test_cuts_catch_that_directories_are_not_synced(tmp_path: Path) -> None:
    found = cut_power(tmp_path, "blob and rest", 4, seed=4, before=without_directory_syncs).found
    assert any("lost blob" in each for each in found), found


def test_power_comes_back_to_what_nothing_holds(tmp_path: Path) -> None:
    """Else a namespace of mounts, as another test makes one, has the disk without power mounted again."""
    with a_disk(tmp_path) as (disk, _):
        (disk.directory / "file").write_text("kept")
        os.sync()
        command = ["unshare", "--mount", "sh", "-c", "echo held; sleep 1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holder:
            assert holder.stdout is not None
            if holder.stdout.readline() != "held\n":
                pytest.skip("namespaces of mounts are not permitted")
            disk.cut_power()
            disk.power_up()
        assert (disk.directory / "file").read_text() == "kept"
