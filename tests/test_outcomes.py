"""What a call has done it says: no result needs a file, an import or a descriptor once the commit is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nerve_store as ns

EXHAUSTED = """
import os, resource, sys
import nerve_store as ns

store = ns.LogStore(sys.argv[1])
store.append("system", "tick")          # what a first append opens, it has opened
assert "nerve_store.records" in sys.modules, "it is imported when a store is opened"
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
run = eval(sys.argv[2])
for descriptor in held:
    os.close(descriptor)
print(run.status if hasattr(run, "status") else run, store.get_workflow_run("run-1").status)
store.close()
"""


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("store.transition('run-1', 'started')", "started started"),
        ("store.transition('run-1', 'started', durability='normal')", "started started"),
        ("store.append('system', 'tick').id", "3 queued"),
        ("store.append_many([('system', 'tick', None, None, 1)] * 2)", "range(3, 5) queued"),
        ("store.set_meta('key', 'value')", "None queued"),
    ],
)
def test_a_write_without_a_descriptor_left_returns_its_outcome(data_dir: Path, call: str, said: str) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        queued = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.QUEUED, 1)
        store.upsert_workflow_run(("workflow", "queued", "run-1", None, 1), queued)
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED, path, call], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


def test_a_damaged_database_names_the_way_out(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("system", "tick", None, "x" * 500, n) for n in range(2_000)])
    with path.open("r+b") as file:
        for page in range(4, 60):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(ns.CorruptStoreError) as damaged, ns.LogStore(path) as store:
        store.query()
    message = str(damaged.value)
    assert "malformed" in message
    assert "nerve-store salvage" in message
    assert "backup" in message
    assert "durability.md" in message
    assert "\n" not in message
    guide = Path(__file__).parents[1].joinpath("docs", "durability.md").read_text("utf-8")
    assert "\n### Damage, and the ways out\n" in guide
