"""The rows that the benchmarks write: what a daemon with many runs at once writes, the same in every process.

Five (source, type) kinds, interleaved runs with identifiers of 36 characters, JSON payloads of 280 to 300 bytes, one
row a millisecond. Cheap to make, so that a database of millions is soon there.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator

Row = tuple[str, str, str, str, int]
"""source, type, ref_id, payload, timestamp: what `append_many` takes."""

KINDS = (
    ("workflow", "thread_workflow_message"),
    ("workflow", "thread_command_event"),
    ("workflow", "started"),
    ("reflex", "fired"),
    ("system", "tick"),
)
MESSAGE = KINDS[0]
FIRST_TIMESTAMP = 1_770_000_000_000
REST_OF_FIRST_DAY_MS = 76_800_000 - 1
"""It is 02:40 in UTC then."""
WORDS = "the agent reads a plan then writes code and tests until every check of the run has passed".split()

FULL_SCALE = 1_000_000
SCALE = int(os.environ.get("NERVE_BENCH_ROWS", FULL_SCALE))
"""Rows of the databases that the reads are timed on."""
SPAN_MS = 10 * 24 * 3600 * 1000
"""How much time those databases cover: ten days."""
MESSAGES_EVERY = 200
"""Every so many rows, one is a message of the run that is read: 5,000 of a million."""
THE_RUN = "5f0c1d2e-3b4a-4c5d-8e6f-708192a3b4c5"


class Workload:
    """An endless supply of rows."""

    def __init__(self, *, runs: int = 200, seed: int = 0, step_ms: int = 1) -> None:
        self._random = random.Random(seed)
        self._runs = [str(uuid.UUID(int=self._random.getrandbits(128), version=4)) for _ in range(runs)]
        self._text = " ".join(self._random.choices(WORDS, k=20_000))
        self._timestamp = FIRST_TIMESTAMP
        self._step_ms = step_ms

    def rows(self, count: int) -> list[Row]:
        """The next `count` rows."""
        first, self._timestamp = self._timestamp, self._timestamp + count * self._step_ms
        kinds = self._random.choices(KINDS, k=count)
        runs = self._random.choices(self._runs, k=count)
        numbers = self._random.choices(range(10_000, 90_000), k=count)
        return [
            (*kind, run, self._payload(number), timestamp)
            for kind, run, number, timestamp in zip(
                kinds, runs, numbers, range(first, self._timestamp, self._step_ms), strict=True
            )
        ]

    def _payload(self, number: int) -> str:
        # The rest is 53 bytes.
        content = self._text[number : number + 227 + number % 21]
        return f'{{"role":"coder","content":"{content}","meta":{{"tokens":{number}}}}}'


def day_rows(count: int, *, messages: int, rows_per_batch: int = 1000) -> Iterator[list[Row]]:
    """The rows of one UTC day, `messages` of them messages of `THE_RUN`, evenly spread."""
    workload = Workload(step_ms=max(1, REST_OF_FIRST_DAY_MS // count))
    places = {number * count // messages for number in range(messages)}
    for start in range(0, count, rows_per_batch):
        rows = workload.rows(min(rows_per_batch, count - start))
        for index, (_, _, _, payload, timestamp) in enumerate(rows):
            if start + index in places:
                rows[index] = (*MESSAGE, THE_RUN, payload, timestamp)
        yield rows


def database_rows(count: int, *, rows_per_batch: int = 1000) -> Iterator[list[Row]]:
    """The rows of the databases that the reads are timed on: messages of `THE_RUN` among the rows of others."""
    workload = Workload(step_ms=max(1, SPAN_MS // count))
    for start in range(0, count, rows_per_batch):
        rows = workload.rows(min(rows_per_batch, count - start))
        for index in range(-start % MESSAGES_EVERY, len(rows), MESSAGES_EVERY):
            _, _, _, payload, timestamp = rows[index]
            rows[index] = (*MESSAGE, THE_RUN, payload, timestamp)
        yield rows
