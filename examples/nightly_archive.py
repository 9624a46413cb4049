"""Move old days out of the database, keep what active runs still need, and read on as if they had not left.

Run it with `python examples/nightly_archive.py [DIRECTORY]`.
"""

import os
import sys
import tempfile
from datetime import timedelta

import nerve_store as ns

HOUR = 3_600_000
NOW = 1_773_600_000_000  # 2026-03-15T18:40Z, in milliseconds; leave `now` out to use the clock


def main(directory: str) -> None:
    with ns.Store(directory) as store:
        run = ns.WorkflowRun("run-1", "index", ns.WorkflowRunStatus.STARTED, NOW - 120 * HOUR)
        store.logs.upsert_workflow_run(("workflow", "started", "run-1", None, run.timestamp), run)
        ticks = [ns.NewLogEntry("system", "tick", timestamp=NOW - hours * HOUR) for hours in range(120, 0, -1)]
        store.logs.append_many(ticks)  # one transaction

        result = store.logs.archive_logs(now=NOW, retention=timedelta(days=2))
        for day in result.days:
            print(f"{day.day}: {day.added_rows} rows to {os.path.basename(day.path)}")
        print(f"{result.pinned_rows} row of run-1 stays, it is still active")

        store.logs.transition("run-1", "completed", exit_code=0, timestamp=NOW)
        for day in store.logs.archive_logs(now=NOW, retention=timedelta(days=2), compression="zstd").days:
            # Merged, never overwritten; and compressed on this occasion.
            print(f"{day.day}: {day.added_rows} more, {day.row_count} in all, in {os.path.basename(day.path)}")

        first = store.logs.archived_days()[0]
        archived = sum(1 for _ in store.logs.read_archive(first.day))
        print(f"{archived} rows read back from {first.day}")
        print(f"{store.logs.count(archived=True)} rows in all, {store.logs.count()} of them in the database")
        print(f"{len(store.logs.verify().problems)} problems")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(os.path.join(temporary, "data"))
