"""A lane: a connection that writes, each call exactly once, also if the connection is lost.

A lane has a row of its own in `writers`: its epoch, the number of its last call and what that call gave. After a loss,
`recover` takes the append lock, raises the epoch (so that the old call, which may still wait for the lock, is refused)
and says whether the last call was committed. If not, the same call is sent again. A caller that is interrupted asks
nothing: who leads the lane next does, for those that shared the commit.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from typing import Any, NoReturn

import psycopg
from psycopg import errors
from psycopg.types.json import Jsonb

from nerve_store._core import Columns
from nerve_store.exceptions import StoreUnavailableError
from nerve_store.postgres import failures
from nerve_store.postgres.arrays import parameters
from nerve_store.postgres.connections import Connections, Patience, Session
from nerve_store.postgres.jobs import Job, as_operations
from nerve_store.postgres.refusals import refusal

_MOST_MESSAGE_BYTES = (1 << 30) - (1 << 16)
"""Of a call, as it is sent: the server takes messages of up to 1 GiB, and 64 KiB leave room for what is not rows."""
_FENCED = "NS001"
_NOT_COMMITTED = (_FENCED, failures.ANOTHER_LOG, errors.LockNotAvailable.sqlstate)
"""Errors of a call that committed nothing."""


class Lane:
    """One connection that writes; used by one thread at a time."""

    def __init__(self, connections: Connections, schema: str, log: str) -> None:
        """`log` is what no other log in the schema's place has (`schema.Opened.log`)."""
        self._connections = connections
        self._writer, self._log = uuid.uuid4(), Jsonb(log)
        self._session: Session | None = None
        self._epoch = self._seq = 0
        self._jobs: list[Job] = []
        """What was last given to be written."""
        self._sent: int | None = None
        """The number under which it was sent, as long as its outcome is not known."""
        self.leader: Job | None = None
        """The job whose caller uses it; None: it is free."""
        self.taken: list[Job] = []
        """The jobs of the commit that is under way."""
        self.left: list[Job] = []
        """Jobs of it whose callers wait, while the one that led was interrupted."""
        self.is_small = True
        """Whether what is under way has few rows."""
        self.expected = 0
        """How many jobs shared the last commit or came while it was under way."""
        self.took = 0.0
        """Seconds of the last commit."""
        self._write = f"CALL {schema}.write(%s, %s, %s, %s, %b, %b, %b, %b, %b, %b, %b, %s, NULL, NULL)"
        self._recover = f"CALL {schema}.recover(%s, %s, NULL, NULL, NULL, %s)"
        self._forget = f"DELETE FROM {schema}.writers WHERE writer = %s"

    def write(self, jobs: list[Job]) -> None:
        """Commit the jobs, and tell each its outcome."""
        self._sent = None
        self._jobs = jobs
        columns = jobs[0].columns
        if len(jobs) > 1:
            columns = Columns()
            for job in jobs:
                columns.extend(job.columns)
        is_plain = all(job.is_plain for job in jobs)
        described = None if is_plain else json.dumps(as_operations(jobs))
        arrays = parameters(columns)
        size = sum(len(array.data) for array in arrays) + len(described or "")
        if size > _MOST_MESSAGE_BYTES:
            raise ValueError(
                f"one call takes {_MOST_MESSAGE_BYTES:,} bytes of rows on PostgreSQL, not {size:,}: divide them"
            )
        operations = None if described is None else Jsonb(described, dumps=str)
        is_durable = any(job.is_durable for job in jobs)
        _tell(jobs, *self._call((*arrays, operations, is_durable)))

    def is_in_doubt(self) -> bool:
        """Whether what was last written, or not, was sent and may be committed."""
        return self._sent is not None

    def has_sent(self, job: Job) -> bool:
        """Whether the job is part of what is in doubt."""
        return self.is_in_doubt() and job in self._jobs

    def settle(self) -> bool:
        """Whether what is in doubt was committed; if so, tell it."""
        seq, first_id, outcomes = self._reconnect()
        if seq != self._sent:
            return False
        _tell(self._jobs, first_id, outcomes)
        return True

    def _call(self, arguments: tuple[Any, ...]) -> tuple[int, Any]:
        patience = Patience(self._connections.busy_timeout)
        sent: int | None = None
        is_in_doubt = False
        while True:
            try:
                if self._session is None:
                    known = self._reconnect()
                    if known[0] == sent:
                        return known[1], known[2]
                is_in_doubt = False
                self._sent = sent = self._seq + 1
                return self._send(sent, arguments)
            except psycopg.Error as error:
                is_passing = self._may_pass(error)
                # Any other error than those that came before the commit may be of the flush.
                is_in_doubt = is_in_doubt or (sent is not None and error.sqlstate not in _NOT_COMMITTED)
                self._drop()
                if is_passing and patience.pause():
                    continue
                if is_in_doubt and not is_passing:
                    return self._committed(sent, error)
                self._fail(error, is_in_doubt=is_in_doubt)
            except StoreUnavailableError as error:
                if is_in_doubt:
                    self._fail(error.__cause__ or error, is_in_doubt=True)
                raise
            except BaseException:
                # An interrupt in the middle of a call: the next one asks first what became of it.
                self._drop()
                raise

    def _fail(self, error: BaseException, *, is_in_doubt: bool) -> NoReturn:
        place = self._connections.place
        if is_in_doubt or not isinstance(error, psycopg.Error):
            raise failures.unavailable(place, error, is_unknown=is_in_doubt) from error
        self._sent = None
        failures.fail(error, place)

    def _committed(self, sent: int | None, error: psycopg.Error) -> tuple[int, Any]:
        """What the call gave if it was committed all the same: the error may be of the flush after it."""
        try:
            seq, first_id, outcomes = self._reconnect()
        except (psycopg.Error, StoreUnavailableError) as other:
            self._fail(other, is_in_doubt=True)
        if seq != sent:
            self._fail(error, is_in_doubt=False)
        return first_id, outcomes

    def _send(self, seq: int, arguments: tuple[Any, ...]) -> tuple[int, Any]:
        assert self._session is not None
        own = (self._writer, self._connections.lock_timeout_ms, self._epoch, seq)
        cursor = self._session.execute(self._write, (*own, *arguments), binary=True)
        row = cursor.fetchone()
        assert row is not None
        self._seq = seq
        return row[0], row[1]

    def _may_pass(self, error: psycopg.Error) -> bool:
        """Whether another connection may do, and the call is to be sent again if it was not committed."""
        is_fenced = error.sqlstate == _FENCED
        # While the call waited, the partition of a row's day was made; the default one refuses the row by then.
        is_late = isinstance(error, errors.CheckViolation) and error.diag.table_name == "logs_rest"
        return is_fenced or is_late or failures.is_lost(error, self._session) or failures.is_demoted(error)

    def _reconnect(self) -> tuple[int, int, Any]:
        """The number of the last call that was committed, its first id, and what it gave."""
        self._drop()
        session = self._connections.reach()
        try:
            own = (self._writer, self._connections.lock_timeout_ms, self._log)
            row = session.execute(self._recover, own).fetchone()
        except BaseException:
            session.close()
            raise
        assert row is not None
        self._session = session
        self._epoch, self._seq, first_id, outcomes = row
        return self._seq, first_id, outcomes

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(psycopg.Error):
                session.close()

    def close(self) -> None:
        """Give back what the lane has in the database, and its connection."""
        if self._session is not None:
            with suppress(psycopg.Error):
                self._session.execute(self._forget, (self._writer,))
            self._drop()


def _tell(jobs: list[Job], first_id: int, outcomes: Any) -> None:
    if outcomes is None:
        for job in jobs:
            job.succeed(first_id, [])
            first_id += len(job.columns)
        return
    for job, outcome in zip(jobs, outcomes, strict=True):
        if "done" in outcome:
            results = outcome["done"]
            # What only appends has the ids from its first row on, as where all jobs of a commit only append.
            job.succeed(results[0]["id"] if job.is_plain else 0, results)
        else:
            job.fail(refusal(outcome["refused"]))
