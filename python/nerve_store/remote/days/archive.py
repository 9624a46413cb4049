"""The days of one log in an object store: fetched through a cache, and moved there after archive jobs."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Any

from nerve_store._core import LogStore
from nerve_store.exceptions import (
    ArchiveBusyError,
    ArchiveCorruptError,
    NerveStoreError,
    StoreIOError,
)
from nerve_store.records import ArchiveResult, VerifyReport
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days.cache import Cache
from nerve_store.remote.days.content import pieces
from nerve_store.remote.days.mark import claim, missing_objects
from nerve_store.remote.days.move import OccupiedError, move, remove_superseded
from nerve_store.remote.days.names import DayObject
from nerve_store.remote.days.unknown import check, check_place, unknown_keys

_log = logging.getLogger("nerve_store")
_OR_A_FILE = "or move away the object, if it is there, and put a backup of the file into the directory of the day files"


class RemoteDays:
    """What a `LogStore` asks for days whose files are not in its directory, and tells when a job has ended."""

    def __init__(self, url: str, options: Mapping[str, Any], *, cache: str, most_cached_bytes: int) -> None:
        """The days under `url`; `cache` is a directory."""
        self.bucket = Bucket(url, options)
        self._cache = Cache(cache, most_cached_bytes)

    def attach_to(self, log: LogStore) -> None:
        """Be asked by this log.

        `ArchiveError` if the days are another log's, or if it does not know all of them; `StoreUnavailableError` if
        its days lie elsewhere.
        """
        check(self.bucket, log)
        log._attach_remote(self)

    def fetch(self, key: str, size: int, sha256: str) -> tuple[str, str, int]:
        """`path` and the path of a file with the content of an object; or what the error is, its text, an errno.

        The core calls this in a thread of its own, and raises the error where the day was asked for.
        """
        try:
            path = self._cache.path_of(sha256, size, lambda: pieces(self.bucket, key, size, sha256))
        except ArchiveCorruptError as error:
            return "damaged", f"{self._reason(error, key)}; {_OR_A_FILE}", 0
        except StoreIOError as error:
            return "io", self._reason(error, key), error.errno or errno.EIO
        except NerveStoreError as error:
            return "unavailable", self._reason(error, key), 0
        except OSError as error:
            where = error.filename or self._cache.directory
            return "io", f"{where}: {error.strerror or error}", error.errno or errno.EIO
        return "path", path, 0

    def opened(self, path: str) -> None:
        """The core has opened a file that `fetch` gave it, and does not need its name any more."""
        self._cache.unpin(path)

    def _reason(self, error: NerveStoreError, key: str) -> str:
        text = error.strerror if isinstance(error, StoreIOError) and error.strerror else str(error)
        return text.removeprefix(f"{self.bucket.name(key)}: ")

    def after_job(self, log: LogStore, result: ArchiveResult, wait: float) -> ArchiveResult:
        """Move the files of all days to the object store; the result, with the URLs of those that are there.

        Objects that are missing or have another size are among its problems. Raises what is in the way after the days
        that nothing hindered have been moved.
        """
        moved: dict[date, str] = {}
        occupied: OccupiedError | None = None
        lock = log._lock_archive(wait)
        try:
            days = [day for day in log.archived_days() if day.archived_at is not None and "://" not in day.path]
            objects = DayObject.all_of(log)
            if days or objects:
                check_place(self.bucket, log)
                claim(self.bucket, log)
            unknown = unknown_keys(self.bucket, log) if days else {}
            for day in days:
                try:
                    known = [known for known in objects if known.day == day.day]
                    url = move(self.bucket, log, day, known, unknown.get(day.day, []))
                except OccupiedError as error:
                    occupied = occupied or error
                    continue
                if url is not None:
                    moved[day.day] = url
            if occupied is not None:
                raise occupied
            remove_superseded(self.bucket, log)
            problems = missing_objects(self.bucket, lambda: DayObject.all_of(log)) if objects else []
        finally:
            lock.release()
        for problem in problems:
            _log.warning("%s: %s", problem.path, problem.reason)
        named = tuple(replace(day, path=moved.get(day.day, day.path)) for day in result.days)
        return replace(result, days=named, problems=(*result.problems, *problems))

    def after_verification(self, log: LogStore, report: VerifyReport) -> VerifyReport:
        """The report, with the objects that are missing or of another size although a copy is in the cache."""
        told = {problem.path for problem in report.problems}
        problems = missing_objects(self.bucket, lambda: DayObject.all_of(log), told)
        return replace(report, problems=(*report.problems, *problems))

    def after_expiry(self, log: LogStore) -> None:
        """Delete the objects of expired days; the next job does if one is under way."""
        with suppress(ArchiveBusyError):
            lock = log._lock_archive(0.0)
            try:
                if any(known.state == "superseded" for known in DayObject.all_of(log)):
                    claim(self.bucket, log)
                    remove_superseded(self.bucket, log)
            finally:
                lock.release()
