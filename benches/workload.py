"""The rows that the benchmarks write: what a daemon with many runs at once writes, the same in every process.

Five (source, type) kinds, interleaved runs with identifiers of 36 characters, JSON payloads of 280 to 300 bytes, one
row a millisecond.
"""

from __future__ import annotations

import json
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
FIRST_TIMESTAMP = 1_770_000_000_000
WORDS = "the agent reads a plan then writes code and tests until every check of the run has passed".split()


class Workload:
    """An endless supply of rows."""

    def __init__(self, *, runs: int = 200, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._runs = [str(uuid.UUID(int=self._random.getrandbits(128), version=4)) for _ in range(runs)]
        self._timestamp = FIRST_TIMESTAMP

    def rows(self, count: int) -> list[Row]:
        """The next `count` rows."""
        return list(self._next_rows(count))

    def _next_rows(self, count: int) -> Iterator[Row]:
        for _ in range(count):
            source, kind = self._random.choice(KINDS)
            yield source, kind, self._random.choice(self._runs), self._payload(), self._timestamp
            self._timestamp += 1

    def _payload(self) -> str:
        message = {"role": "coder", "content": "", "meta": {"tokens": self._random.randrange(1000, 9999)}}
        missing = self._random.randint(280, 300) - len(json.dumps(message))
        message["content"] = " ".join(self._random.choices(WORDS, k=missing))[:missing]
        return json.dumps(message)
