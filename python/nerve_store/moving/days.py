"""The files of the archive: the same bytes at both places."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress

from nerve_store._places import sync_directory
from nerve_store.exceptions import ArchiveCorruptError, NerveStoreError, StoreUnavailableError
from nerve_store.moving.source import Source
from nerve_store.moving.target import KnownDay, Target
from nerve_store.records import ArchivedDay

_MARK = ".copying"
"""In the target's directory: whose days they are, until the copy is whole."""
_TRIES = 5
"""How often days are looked at anew that were replaced while they were read."""
_CHUNK = 1 << 20


class Days:
    """Brings the days of the source to the target."""

    def __init__(self, source: Source, target: Target) -> None:
        self._source, self._target = source, target

    def bring(self) -> int:
        """Copy the files that the target has not; returns how many."""
        if self._target.archive is None:
            if self._source.days():
                raise NerveStoreError(
                    "the source has an archive: name a directory for it, ?archive=DIRECTORY in the URL"
                )
            return 0
        self._claim(self._target.archive)
        copied = 0
        for attempt in range(_TRIES):
            try:
                return copied + self._bring(self._target.archive)
            except (FileNotFoundError, _ReplacedError) as error:
                # Late rows, compression and expiry replace and remove files.
                if attempt == _TRIES - 1:
                    raise ArchiveCorruptError(f"{error}: it is not what the source says of it") from error
        return copied

    def _claim(self, directory: str) -> None:
        """Take the directory for this copy; one with the days of another log is refused."""
        if os.path.realpath(directory) == os.path.realpath(self._source.log.archive_dir or os.devnull):
            raise NerveStoreError(f"{directory} is the source's archive; name another directory")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        mark = os.path.join(directory, _MARK)
        with suppress(FileNotFoundError), open(mark, encoding="utf-8") as file:
            if file.read() == self._source.name:
                return
        if any(".jsonl" in name for name in os.listdir(directory)):
            raise NerveStoreError(
                f"{directory} has day files, of which it is not known whose they are; name another one"
            )
        with open(mark, "w", encoding="utf-8") as file:
            file.write(self._source.name)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(directory)

    def _bring(self, directory: str) -> int:
        copied = 0
        wanted = {KnownDay(str(day.day), day.format, day.sha256): day for day in self._source.days()}
        known = self._target.days()
        for item in known - wanted.keys():
            self._target.forget_day(item)
            with suppress(FileNotFoundError):
                os.unlink(_path(directory, item))
        for item in sorted(wanted.keys() - known, key=lambda item: item.day):
            _copy_day(wanted[item], _path(directory, item))
            self._target.note_day(item)
            copied += 1
        return copied

    def compare(self, found: dict[str, str]) -> None:
        """Refuse a target that does not know the days of the source, with the same bytes."""
        wanted = {str(day.day): day.sha256 for day in self._source.days()}
        different = {day for day in wanted.keys() | found.keys() if wanted.get(day) != found.get(day)}
        if different:
            raise ArchiveCorruptError(f"{self._target.archive}: {min(different)} is not the source's; copy again")

    def release(self) -> None:
        """The days are those of a whole log."""
        if self._target.archive is not None:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._target.archive, _MARK))


class _ReplacedError(Exception):
    """A file was another one than the source said."""


def _path(directory: str, item: KnownDay) -> str:
    return os.path.join(directory, f"{item.day}.{item.format}")


def _copy_day(day: ArchivedDay, path: str) -> None:
    if "://" in day.path:
        error = StoreUnavailableError(
            f"{day.path}: the day {day.day} lies in an object store, from which a copy does not read yet; restore a"
            " backup of the store, which has all days, and copy that"
        )
        error.path = day.path
        raise error
    directory = os.path.dirname(path)
    staged = os.path.join(directory, f".stage-{secrets.token_hex(8)}")
    try:
        with open(day.path, "rb") as file, open(staged, "xb") as copy:
            while chunk := file.read(_CHUNK):
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
        with open(staged, "rb") as copy:
            if hashlib.file_digest(copy, "sha256").hexdigest() != day.sha256:
                raise _ReplacedError(day.path)
        if day.archived_at is not None:
            archived_at = day.archived_at * 1_000_000
            os.utime(staged, ns=(archived_at, archived_at))
        os.rename(staged, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(staged)
    sync_directory(directory)
