"""The files of the archive: the same bytes at both places."""

from __future__ import annotations

import os
import time
from collections import Counter

from nerve_store._places import error_at
from nerve_store.exceptions import ArchiveCorruptError, NerveStoreError
from nerve_store.moving.shelf import Claim, DayFile, ReplacedError, Shelf
from nerve_store.moving.source import Source
from nerve_store.moving.state import KnownDay
from nerve_store.moving.target import Target
from nerve_store.records import ArchivedDay

_TRIES = 5
"""How often a file that is not what the source says of it is looked at anew: late rows, compression and expiry replace
and remove files, and the source says so a moment later."""
_PASSES = 20
"""A day that is replaced again and again is left to the next call."""
_PAUSE = 0.05


class Days:
    """Brings the days of the source to the target."""

    def __init__(self, source: Source, target: Target) -> None:
        self._source, self._target = source, target

    def bring(self) -> int:
        """Copy the files that the target has not; returns how many."""
        shelf = self._target.shelf
        if shelf is None:
            if self._source.days():
                raise NerveStoreError(
                    "the source has an archive: name a directory for it, ?archive=DIRECTORY in the URL"
                )
            return 0
        if self._source.is_archive(shelf.place):
            raise NerveStoreError(f"{shelf.place} is the source's archive; name another place")
        shelf.claim(Claim(self._source.names[0], self._target.identity, self._target.place))
        copied = 0
        failures: Counter[KnownDay] = Counter()
        for _ in range(_PASSES):
            more, failed = self._bring(shelf)
            copied += more
            if not failed:
                break
            failures.update(failed.keys())
            for item, error in failed.items():
                if failures[item] == _TRIES:
                    raise _lasting(error) from error
            time.sleep(_PAUSE)
        return copied

    def _bring(self, shelf: Shelf) -> tuple[int, dict[KnownDay, Exception]]:
        """Copy each file once; how many were copied, and why which were not."""
        copied = 0
        failed: dict[KnownDay, Exception] = {}
        wanted = {_known(day): day for day in self._source.days()}
        noted = self._target.days()
        known = {item for item in noted & wanted.keys() if shelf.has(item, wanted[item].size)}
        for item in noted - known:
            self._target.forget_day(item)
        # Also one that a call stored and did not note, or found to be another one.
        for unwanted in sorted(shelf.days() - {item.day for item in wanted}):
            shelf.remove(unwanted)
        for item in sorted(wanted.keys() - known, key=lambda item: item.day):
            day = wanted[item]
            try:
                shelf.put(DayFile(item, day.size, day.archived_at, day.path, self._source.pieces_of(day)))
            except (FileNotFoundError, ReplacedError) as error:
                failed[item] = error
                continue
            self._target.note_day(item)
            copied += 1
        return copied, failed

    def index(self) -> ArchiveCorruptError | None:
        """Let the target take the days in; an error if it does not know those of the source, with the same bytes.

        The next call copies the days anew that differ.
        """
        days = self._source.days()
        wanted = {str(day.day): day.sha256 for day in days}
        try:
            found = self._target.index({str(day.day): day.archived_at for day in days if day.archived_at is not None})
        except ArchiveCorruptError as error:
            return self._refused(self._damaged(days), error) or error
        return self._refused({day for day in wanted.keys() | found.keys() if wanted.get(day) != found.get(day)})

    def _damaged(self, days: list[ArchivedDay]) -> set[str]:
        shelf = self._target.shelf
        return set() if shelf is None else {str(day.day) for day in days if not shelf.holds(_known(day), day.size)}

    def _refused(self, different: set[str], cause: Exception | None = None) -> ArchiveCorruptError | None:
        for item in self._target.days():
            if item.day in different:
                self._target.forget_day(item)
        if not different:
            return None
        place = os.devnull if self._target.shelf is None else self._target.shelf.place
        error = error_at(ArchiveCorruptError, place, f"{min(different)} is not the source's; copy again")
        error.__cause__ = cause
        return error

    def release(self) -> None:
        """The days are those of a whole log."""
        if self._target.shelf is not None:
            self._target.shelf.release()


def _lasting(error: Exception) -> ArchiveCorruptError:
    """The error about a file of the source that stays what it should not be."""
    if isinstance(error, FileNotFoundError):
        return error_at(
            ArchiveCorruptError,
            str(error.filename),
            "there is no such file, and the source has this day: put it back. If the days lie in another directory "
            "(archive_dir), let archive/logs be a symbolic link to it, and copy again",
        )
    return error_at(ArchiveCorruptError, str(error), "it is not what the source says of it")


def _known(day: ArchivedDay) -> KnownDay:
    return KnownDay(str(day.day), day.format, day.sha256)
