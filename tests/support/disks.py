"""File systems that are tiny, read-only, or lose their power; what may not be mounted skips the test."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")


def _unmount(directory: Path) -> None:
    subprocess.run(["umount", "--lazy", str(directory)], capture_output=True, check=True)


@contextlib.contextmanager
def tiny_disk(directory: Path, size: str = "1m") -> Iterator[Callable[[str], None]]:
    """A file system of `size` at `directory`; what it yields changes the size."""
    directory.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory))
    try:
        yield lambda new_size: _mount("-o", f"remount,size={new_size}", str(directory))
    finally:
        _unmount(directory)


class PowerCutDisk:
    """A file system that forgets what was not flushed when its power is cut."""

    EXT4_SHUTDOWN = 0x8004587D
    NO_LOG_FLUSH = struct.pack("I", 2)

    def __init__(self, image: Path, directory: Path) -> None:
        self.image = image
        self.directory = directory

    def power_up(self) -> None:
        # A mount would find the file system without power again for as long as a process holds it, or a namespace of
        # mounts that was made meanwhile.
        end = time.monotonic() + 60
        while self._is_held():
            assert time.monotonic() < end, f"something holds {self.image}"
            time.sleep(0.005)
        _mount("-o", "loop", str(self.image), str(self.directory))

    def _is_held(self) -> bool:
        held = set()
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                held.add(file.read_text().strip())
        return str(self.image) in held

    def cut_power(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, self.EXT4_SHUTDOWN, self.NO_LOG_FLUSH)
        finally:
            os.close(descriptor)
        _unmount(self.directory)


@contextlib.contextmanager
def power_cut_disk(scratch: Path, size_mib: int = 48) -> Iterator[PowerCutDisk]:
    """An ext4 in a file; skips where such a thing cannot be mounted."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    disk = PowerCutDisk(scratch / "disk.img", scratch / "disk")
    disk.directory.mkdir(exist_ok=True)
    with disk.image.open("wb") as image:
        image.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-qF", str(disk.image)], check=True, capture_output=True)
    disk.power_up()
    try:
        yield disk
    finally:
        if disk.directory.is_mount():
            _unmount(disk.directory)
        disk.image.unlink()


@contextlib.contextmanager
def read_only_directory(directory: Path) -> Iterator[None]:
    """`directory` as a file system that takes no writes, also not from root."""
    _mount("--bind", str(directory), str(directory))
    try:
        _mount("-o", "remount,ro,bind", str(directory))
        with pytest.raises(OSError, match="Read-only") as refused:
            (directory / "probe").touch()
        assert refused.value.errno == errno.EROFS
        yield
    finally:
        _unmount(directory)
