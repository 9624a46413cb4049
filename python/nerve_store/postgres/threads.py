"""The threads of runs: what a daemon reads to recover them, and what a person reads to follow them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

from nerve_store._core import Check, LogEntry, stored_rows, stringify
from nerve_store.postgres.filters import ROW, Filter
from nerve_store.postgres.reads import Reads
from nerve_store.postgres.texts import encode
from nerve_store.records import ThreadMessage, ThreadRound

SOURCE = "workflow"
MESSAGE, EVENT = "thread_workflow_message", "thread_command_event"
_log = logging.getLogger("nerve_store")
_OF_RUN = "left(ref_id, 512) = left(%(ref_id)s, 512) AND ref_id = %(ref_id)s"


class Threads(Reads):
    """Reading threads, archived rows included."""

    def get_trigger_payload(self, run_id: str) -> Any:
        """What started the run, from its first `started` row; None if that says nothing.

        The row's object, if it has a string `prompt` and a number `maxRounds`, as `{prompt, maxRounds, dryRun}`; else
        its `triggerPayload` object by the same rule; else that object as it is. If the row has no payload, the nearest
        `queued` row before it decides. A payload that cannot be read is reported to the logger `nerve_store`.
        """
        first = next(self._of_run(run_id, "started", limit=1), None)
        if first is not None and first.payload is None:
            queued = Filter(
                source=SOURCE, type="queued", ref_id=Check.text(run_id, "run_id"), before_id=first.id, limit=1,
                descending=True, archived=True,
            )  # fmt: skip
            first = next(self._merged(queued), None)
        value = None if first is None else self._object(first)
        if not isinstance(value, dict):
            return None
        inner = value.get("triggerPayload")
        return _prompt(value) or _prompt(inner) or (inner if isinstance(inner, dict) else None)

    def get_thread_events(self, run_id: str) -> list[dict[str, Any]]:
        """The run's command events: every `thread_command_event` whose payload is an object with a string `type`.

        A row whose payload is no JSON is left out and reported, with its id, to the logger `nerve_store`.
        """
        values = (self._object(entry) for entry in self._of_run(run_id, EVENT))
        return [value for value in values if value is not None and isinstance(value.get("type"), str)]

    def get_thread_messages(self, run_id: str) -> list[ThreadMessage]:
        """The run's messages: every `thread_workflow_message` whose payload has a string `role` and `content`.

        A row whose payload is no JSON is left out and reported, with its id, to the logger `nerve_store`.
        """
        values = (self._object(entry) for entry in self._of_run(run_id, MESSAGE))
        messages = (None if value is None else _message(value) for value in values)
        return [message for message in messages if message is not None]

    def get_thread_round_count(self, run_id: str) -> int:
        """How many rounds the run's thread has."""
        wanted = Check.text(run_id, "run_id")
        count = self._live_round_count(wanted)
        archived = self._archived_rounds(wanted)
        return len(self._round_ids(wanted, archived)) if archived else count

    def get_thread_rounds(self, run_id: str, *, before: int = 0, limit: int) -> list[ThreadRound]:
        """The rounds numbered below `before` (0: all), newest first, from the `limit` newest numbers.

        A round is a command event or a message whose payload is JSON and no thread start. One that is neither a
        message nor an object with a string `type` takes a number but is not returned, so that fewer than `limit`
        rounds may come back.
        """
        wanted, below, most = (
            Check.text(run_id, "run_id"),
            Check.count(before, "before"),
            Check.count(limit, "limit"),
        )
        rounds: list[ThreadRound] = []
        for number, entry in self._numbered(wanted, below, most):
            message = self._round_message(entry)
            if message is not None:
                rounds.append(ThreadRound(number, entry.id, entry.timestamp, message))
        return rounds

    def _numbered(self, run_id: str, before: int, limit: int) -> list[tuple[int, LogEntry]]:
        count = self._live_round_count(run_id)
        archived = self._archived_rounds(run_id)
        if archived:
            return self._numbered_with_archive(run_id, archived, before, limit)
        newest = min(count, before - 1) if before else count
        if newest <= 0 or not limit:
            return []
        # Numbers count from the oldest, and rows that come meanwhile are newer than all: read forwards.
        skipped = max(newest - limit, 0)
        statement = (
            f"SELECT {ROW} FROM {self._schema}.logs WHERE is_round AND {_OF_RUN} "
            f"ORDER BY id LIMIT {newest - skipped} OFFSET {skipped}"
        )
        parameters = {"ref_id": encode(run_id)}
        rows = self._connections.read(
            lambda session: session.execute(statement.encode(), parameters, binary=True).fetchall()
        )
        return list(enumerate(stored_rows(rows), skipped + 1))[::-1]

    def _numbered_with_archive(
        self, run_id: str, archived: set[int], before: int, limit: int
    ) -> list[tuple[int, LogEntry]]:
        ids = self._round_ids(run_id, archived)
        newest = min(len(ids), before - 1) if before else len(ids)
        skipped = max(newest - limit, 0)
        wanted = ids[skipped:newest]
        if not wanted:
            return []
        span = Filter(source=SOURCE, ref_id=run_id, after_id=wanted[0] - 1, before_id=wanted[-1] + 1, archived=True)
        numbers = {row_id: number for number, row_id in enumerate(wanted, skipped + 1)}
        found = [(numbers[entry.id], entry) for entry in self._merged(span) if entry.id in numbers]
        return found[::-1]

    def _live_round_count(self, run_id: str) -> int:
        return int(
            self._value(
                f"SELECT count(*) FROM {self._schema}.logs WHERE is_round AND {_OF_RUN}", {"ref_id": encode(run_id)}
            )
        )

    def _round_ids(self, run_id: str, archived: set[int]) -> list[int]:
        statement = f"SELECT id FROM {self._schema}.logs WHERE is_round AND {_OF_RUN}"
        rows = self._connections.read(
            lambda session: session.execute(statement.encode(), {"ref_id": encode(run_id)}).fetchall()
        )
        # Rows may have left since `archived` was read; those are in it, or in what is read now.
        return sorted(archived | {row[0] for row in rows} | self._archived_rounds(run_id))

    def _archived_rounds(self, run_id: str) -> set[int]:
        statement = f"SELECT round_ids FROM {self._schema}.archive_refs WHERE ref_id = %s"
        rows = self._connections.read(lambda session: session.execute(statement.encode(), (encode(run_id),)).fetchall())
        return {row_id for (ids,) in rows for row_id in ids}

    def _of_run(self, run_id: str, kind: str, *, limit: int | None = None) -> Iterator[LogEntry]:
        return self._merged(
            Filter(source=SOURCE, type=kind, ref_id=Check.text(run_id, "run_id"), limit=limit, archived=True)
        )

    def _object(self, entry: LogEntry) -> dict[str, Any] | None:
        """The payload, if it is an object."""
        if entry.payload is None:
            return None
        try:
            value = entry.json()
        except (ValueError, MemoryError) as error:
            _log.warning("%s: row %d is left out: its payload cannot be read (%s)", self._path, entry.id, error)
            return None
        return value if isinstance(value, dict) else None

    def _round_message(self, entry: LogEntry) -> ThreadMessage | None:
        value = self._object(entry)
        if value is None:
            return None
        message = _message(value)
        if message is not None or not isinstance(value.get("type"), str):
            return message
        role, content = value.get("role"), value.get("content")
        return ThreadMessage(
            role if isinstance(role, str) else value["type"],
            content if isinstance(content, str) else stringify(entry.payload or ""),
            value,
            entry.timestamp,
        )


def _message(value: dict[str, Any]) -> ThreadMessage | None:
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    return ThreadMessage(role, content, value.get("meta"), _whole(value.get("timestamp")))


def _whole(value: Any) -> int:
    """A number rounded towards zero; 0 if it is none, or beyond every double."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return value if isinstance(value, int) else int(value) if math.isfinite(value) else 0


def _prompt(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        return None
    rounds = value.get("maxRounds")
    if isinstance(rounds, bool) or not isinstance(rounds, int | float):
        return None
    return {"prompt": value["prompt"], "maxRounds": rounds, "dryRun": value.get("dryRun") is True}
