"""The directory of the day files: staged, synced, published and removed here alone."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from datetime import date
from typing import BinaryIO

from nerve_store._places import ARCHIVE_MARK, make_directory, sync_directory, system_error
from nerve_store.exceptions import ArchiveError, NerveStoreError

PLAIN, ZSTD = "jsonl", "jsonl.zst"
_STAGE = ".stage-"
_MOST_MARK_BYTES = 64 << 10


@contextlib.contextmanager
def translated(operation: str, path: str) -> Iterator[None]:
    """Raise errors of the operating system as ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NerveStoreError):
            raise
        raise system_error(error, f"{operation}: {error.strerror}", path) from error


class ArchiveDirectory:
    """Where day files are; the same directory for every process that archives or reads the archive."""

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else os.path.abspath(path)

    def of(self, day: date, form: str) -> str:
        """The path of a day's file."""
        return os.path.join(self._there(), f"{day.isoformat()}.{form}")

    def _there(self) -> str:
        if self.path is None:
            raise ArchiveError(
                "the store has no archive; open it with archive=<directory or URL>, for a command ?archive=<directory>"
            )
        return self.path

    def days(self) -> list[tuple[date, str]]:
        """The days that have a file, with its form, in order; what bears another name is left alone."""
        if self.path is None:
            return []
        found: list[tuple[date, str]] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self.path):
                day, _, form = name.partition(".")
                if form in (PLAIN, ZSTD) and len(day) == 10:
                    with contextlib.suppress(ValueError):
                        found.append((date.fromisoformat(day), form))
        return sorted(found)

    def mark(self) -> bytes | None:
        """What says whose archive it is; no more of it than can be right."""
        if self.path is None:
            return None
        path = os.path.join(self.path, ARCHIVE_MARK)
        with translated("look whose archive it is", path):
            try:
                with open(path, "rb") as file:
                    return file.read(_MOST_MARK_BYTES)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put_mark(self, content: bytes, *, replace: bool) -> None:
        """Write it, durably; without `replace`, one that is there by now stays."""
        path = os.path.join(self._there(), ARCHIVE_MARK)
        with translated("mark the archive", path):
            with self._staging() as (staged, file):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if replace:
                    os.rename(staged, path)
                else:
                    _link(staged, path)
            self.sync()

    def prepare(self) -> None:
        """Make the directory, and remove staged files that a killed job left."""
        directory = self._there()
        with translated("make the archive", directory):
            make_directory(directory)
            for name in os.listdir(directory):
                if name.startswith(_STAGE):
                    os.unlink(os.path.join(directory, name))

    @contextlib.contextmanager
    def _staging(self) -> Iterator[tuple[str, BinaryIO]]:
        """The path of a new file, and the file; unless it is given another name, nothing of it is left."""
        path = os.path.join(self._there(), f"{_STAGE}{secrets.token_hex(8)}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w+b", buffering=1 << 18) as file:
                yield path, file
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    @contextlib.contextmanager
    def staged(self, day: date, form: str) -> Iterator[StagedFile]:
        """A file to write a day to; unless it is published, nothing of it is left."""
        with translated("write a day", self._there()), self._staging() as (path, file):
            yield StagedFile(self, file, path, self.of(day, form))

    def sync(self) -> None:
        """Make names durable."""
        sync_directory(self._there())

    def remove(self, day: date, form: str) -> None:
        """Remove a day's file, if there is one."""
        with translated("remove a day", self._there()):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.of(day, form))
            self.sync()


def _link(source: str, target: str) -> None:
    """Give a file another name, unless there is a file of that name."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:
        # The file system has no links.
        os.rename(source, target)


class StagedFile:
    """A day's file before it has its name."""

    def __init__(self, directory: ArchiveDirectory, file: BinaryIO, path: str, target: str) -> None:
        self._directory, self.file, self._path, self._target = directory, file, path, target

    def sync(self) -> None:
        """Put its bytes on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def publish(self) -> None:
        """Give it its name, durably; `sync` came before."""
        os.rename(self._path, self._target)
        self._directory.sync()
