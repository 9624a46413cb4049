"""Whose archive a directory is: a mark in it says so, which a data directory's archive has as well (docs/format.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

from nerve_store._places import ARCHIVE_MARK, error_at
from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.directory import ArchiveDirectory


@dataclass(frozen=True, slots=True)
class Mark:
    """What the file says."""

    id: str
    database: str

    @property
    def schema(self) -> str:
        """Whichever way the server is called."""
        return self.database.rpartition("#")[2]


class Owner:
    """Compares the mark of a directory with a log."""

    def __init__(self, directory: ArchiveDirectory, identity: Callable[[], str]) -> None:
        """`identity` gives what no other log has."""
        self._directory, self._ask = directory, identity
        self._identity: str | None = None
        self._compared: bytes | None = None
        """The mark that was found to be this log's."""

    def is_marked(self) -> bool:
        """Whether it is any log's."""
        return self._directory.mark() is not None

    def check(self) -> None:
        """`ArchiveError` if it is the archive of another log, or if the mark cannot be read."""
        content = self._directory.mark()
        if content is not None and content != self._compared:
            self._compare(content)
            self._compared = content

    def _compare(self, content: bytes) -> Mark:
        directory = str(self._directory.path)
        try:
            fields = json.loads(content)
            mark = Mark(str(fields["id"]), str(fields["database"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            path = os.path.join(directory, ARCHIVE_MARK)
            raise error_at(
                ArchiveError,
                path,
                "it should say whose archive this is, and cannot be read; remove it, and the next job writes it",
            ) from error
        if mark.id != self._own():
            other = mark.database if "://" in mark.database else os.path.join(directory, mark.database)
            raise error_at(
                ArchiveError,
                directory,
                f"it is the archive of another log, {other}: give this one a directory of its own. If it is the same"
                f" log, remove {ARCHIVE_MARK} from the directory",
            )
        return mark

    def _own(self) -> str:
        if self._identity is None:
            self._identity = self._ask()
        return self._identity

    def claim(self, log: str) -> None:
        """Make the directory this log's, which messages call `log`; `ArchiveError` as above."""
        content = self._directory.mark()
        wanted = Mark(self._own(), log)
        if content is None or self._compare(content).schema != wanted.schema:
            self._directory.put_mark(json.dumps(asdict(wanted)).encode() + b"\n", replace=content is not None)
        self.check()
