"""Steps of the model test in which a process is forked or killed, or a file of the store is replaced."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import nerve_store as ns
from reference import Log, Row
from support.model import NEW_ROWS, SEGMENT_ROWS, ModelledStore
from support.rows import as_rows

NewRow = tuple[str, str, str | None, str | None, int]
SIDECARS = ("logs.db-wal", "logs.db-shm", "logs.db-ids")


def in_child(work: Callable[[Callable[[Any], None]], None]) -> tuple[list[Any], int]:
    """Do the work in a forked child; what it said, and the number of the signal that ended it."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The suite runs threads of its own; the child calls nothing but the store.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        with contextlib.suppress(BaseException):
            os.close(reader)
            work(lambda value: print_line(writer, value))
            os._exit(0)
        os._exit(1)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        said = [json.loads(line) for line in file]
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), f"the child ended with {status}"
    return said, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def print_line(descriptor: int, value: Any) -> None:
    os.write(descriptor, (json.dumps(value) + "\n").encode())


class StoreWithLosses(ModelledStore):
    """Forks, crashes, an older database, a database that is moved away."""

    saved: tuple[bytes, Log] | None = None
    """The database of an earlier moment, and the model of that moment."""

    @rule(rows=st.lists(NEW_ROWS, min_size=1, max_size=5), segment_rows=SEGMENT_ROWS)
    def forked_child_appends(self, rows: list[NewRow], segment_rows: int) -> None:
        path = self.logs.path

        def work(say: Callable[[Any], None]) -> None:
            with ns.LogStore(path, durability="normal", segment_rows=segment_rows) as own:
                for row in rows:
                    say(own.append(*row).id)

        ids, killed = in_child(work)
        assert killed == 0
        for row_id, row in zip(ids, rows, strict=True):
            self.remember(Row(row_id, *row))

    @rule(rows=st.lists(NEW_ROWS, min_size=1, max_size=5), data=st.data(), segment_rows=SEGMENT_ROWS)
    def process_crashes_while_it_appends(self, rows: list[NewRow], data: st.DataObject, segment_rows: int) -> None:
        acknowledged = data.draw(st.integers(0, len(rows)))
        path = self.logs.path

        def work(say: Callable[[Any], None]) -> None:
            own = ns.LogStore(path, durability="normal", segment_rows=segment_rows)
            for number, row in enumerate(rows):
                row_id = own.append(*row).id
                if number == acknowledged:
                    os.kill(os.getpid(), signal.SIGKILL)
                say(row_id)
            os.kill(os.getpid(), signal.SIGKILL)

        ids, killed = in_child(work)
        assert (len(ids), killed) == (min(acknowledged, len(rows)), signal.SIGKILL)
        for row_id, row in zip(ids, rows, strict=False):
            self.remember(Row(row_id, *row))
        # The one whose acknowledgement did not come: a kill loses no commit.
        for entry, row in zip(self.logs.query(after_id=self.last_id), rows[acknowledged:], strict=False):
            assert as_rows([entry]) == [Row(entry.id, *row)]
            self.remember(Row(entry.id, *row))

    @rule()
    def database_is_saved(self) -> None:
        """As by a backup of the closed file, without the archive."""
        self.logs.close()
        self.saved = (Path(self.logs.path).read_bytes(), copy.deepcopy(self.model))
        self.open("normal", 64)

    @precondition(lambda self: self.saved is not None)
    @rule(segment_rows=SEGMENT_ROWS)
    def older_database_is_put_back(self, segment_rows: int) -> None:
        """Beside the archive as it is now, which has rows that the database does not know."""
        assert self.saved is not None
        (content, before), self.saved = self.saved, None
        self.logs.close()
        path = Path(self.logs.path)
        for name in SIDECARS:
            path.with_name(name).unlink(missing_ok=True)
        path.write_bytes(content)
        before.files = self.model.files
        self.model = before
        archived = {row_id: row for rows in self.model.files.values() for row_id, row in rows.items()}
        self.appended = {**archived, **self.model.database}
        self.last_id = max(self.appended, default=0)
        self.thinned |= {row.ref_id for row in self.appended.values()}
        self.open("normal", segment_rows)
        assert as_rows(self.logs.query(archived=True)) == [self.appended[row_id] for row_id in sorted(self.appended)]
        self.logs.reindex()
        assert self.logs.verify().ok
        watermark = self.logs.get_meta(ns.ARCHIVED_UP_TO)
        if watermark is not None:
            self.model.meta[ns.ARCHIVED_UP_TO] = watermark

    @rule(row=NEW_ROWS)
    def database_is_moved_away_and_back(self, row: NewRow) -> None:
        path = Path(self.logs.path)
        away = path.with_name("away.db")
        path.rename(away)
        with pytest.raises(ns.StoreMovedError):
            self.logs.append(*row)
        away.rename(path)
        self.remember(Row(self.logs.append(*row).id, *row))
