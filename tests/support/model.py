"""A store beside a plain Python model of it, and what is drawn for the rules that drive both."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

import nerve_store as ns
from reference import DAY_MS, MAX_TIMESTAMP, Log, Row
from strategies import SOURCES, TYPES, query_options
from support.archive import at

RUNS = ("run-1", "run-2", "run-3", "läuft 🧠")
WORKFLOWS = ("deploy", "工作流")
PAYLOADS = st.sampled_from(
    [
        None,
        "",
        "not json",
        "nul \0 and \u2028",
        "null",
        '{"role":"coder","content":"hi","meta":{"a":1},"timestamp":17.5}',
        '{"role":"__start__","content":"hi"}',
        '{"type":"thread_start","prompt":"go"}',
        '{"type":"tool_call","n":1.5e300}',
        '{"type":"tool_call","content":"text"}',
        '{"prompt":"go","maxRounds":3,"dryRun":true}',
        '{"triggerPayload":{"any":["thing",1,null]}}',
    ]
) | st.text(max_size=30)
TIMESTAMPS = (
    st.builds(at, st.integers(0, 8), st.sampled_from([0, 1, DAY_MS - 1]))
    | st.sampled_from([0, DAY_MS - 1, DAY_MS, MAX_TIMESTAMP])
    | st.integers(0, MAX_TIMESTAMP)
)
REFS = st.sampled_from([*RUNS, None, "nobody"])
NEW_ROWS = st.tuples(SOURCES, TYPES, REFS, PAYLOADS, TIMESTAMPS)
FILTERS = query_options(refs=REFS, timestamps=TIMESTAMPS, greatest_id=200, limit=20)
EXIT_CODES = st.sampled_from([None, None, 0, 1, 255])
NOWS = st.builds(at, st.integers(0, 45), st.sampled_from([0, DAY_MS - 1]))
RETENTIONS = st.sampled_from([timedelta(0), timedelta(days=3), timedelta(days=30), timedelta(days=2, milliseconds=1)])


SEGMENT_ROWS = st.sampled_from([2, 3, 7, 64, 4096])


class ModelledStore(RuleBasedStateMachine):
    """A store, and beside it the model of it; the rules come with the classes derived from this one."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="nerve-store-model-"))
        self.model = Log()
        self.appended: dict[int, Row] = {}
        self.last_id = 0
        self.blobs: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.thinned: set[str | None] = set()
        """Runs of which another program deleted rows: a sealed round keeps its number all the same."""

    def teardown(self) -> None:
        self.logs.close()
        shutil.rmtree(self.directory)

    def open(self, durability: Literal["full", "normal"], segment_rows: int) -> None:
        self.logs = ns.LogStore(self.directory / "logs.db", durability=durability, segment_rows=segment_rows)
        self.blob_store = ns.BlobStore(self.directory / "blobs", durability=durability)

    @initialize(segment_rows=SEGMENT_ROWS)
    def open_a_new_store(self, segment_rows: int) -> None:
        self.open("normal", segment_rows)

    def remember(self, row: Row) -> None:
        assert row.id > self.last_id, "an id was reused"
        self.last_id = row.id
        self.appended[row.id] = row
        self.model.append(row)
