"""A fleet that shares one log on PostgreSQL: of three workers one is killed, its run is taken over, days are archived.

Run it with `python examples/fleet.py postgresql://USER@HOST/DATABASE [ARCHIVE]`; `examples/compose.yaml` starts the
servers and does so. Workers may be on any machine. ARCHIVE takes the days: `s3://BUCKET/PREFIX`, with AWS_REGION,
AWS_ACCESS_KEY_ID and the like in the environment, or a directory that all who archive or read the archive see.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from importlib import import_module
from typing import Any

import nerve_store as ns
from nerve_store.postgres import PostgresLogStore

SCHEMA = "fleet"
LEASE = 2.0
"""Seconds; a minute or more suits real work."""
DAY = 86_400_000


def opened(url: str, archive: str | None = None) -> PostgresLogStore:
    return PostgresLogStore(url, schema=SCHEMA, archive=archive)


def work(url: str, owner: str) -> None:
    """Take runs until there are none for a while."""
    with opened(url) as log:
        while claim := log.claim_workflow_run(owner, lease=LEASE, wait=3 * LEASE, max_attempts=5):
            run_id = claim.run.run_id
            try:
                trigger = log.get_trigger_payload(run_id)
                done = len(log.get_thread_messages(run_id))  # what claimants before this one got done
                for step in range(done, trigger["maxRounds"]):
                    time.sleep(0.02)  # the work itself
                    message = json.dumps({"role": owner, "content": f"step {step}"})
                    log.append("workflow", "thread_workflow_message", run_id, message, claim=claim)
                    claim = log.renew_claim(claim)  # the lease lasts from now on
                log.transition(run_id, "completed", exit_code=ns.ExitCode.SUCCESS, claim=claim)
            except ns.ClaimLostError as error:
                print(f"{owner}: {error}")  # killed, or taken over: leave the run alone


def start(url: str, owner: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--work", url, owner])


def main(url: str, archive: str) -> None:
    with opened(url, archive) as log:
        today = time.time_ns()  # so that the example can run again on the same server
        with log.batch() as batch:  # all runs, or none
            for number in range(12):
                trigger = json.dumps({"prompt": f"review part {number}", "maxRounds": 4})
                batch.create_workflow_run(f"run-{today}-{number}", "review", payload=trigger)
        print("12 runs are queued")
        first = min(batch.ids or ())
        killed = start(url, "worker-0")
        while not log.count(type="thread_workflow_message", after_id=first):
            time.sleep(0.01)
        killed.kill()  # in the middle of its first run
        killed.wait()
        print("worker-0 was killed in the middle of its first run")
        workers = [start(url, f"worker-{number}") for number in (1, 2)]
        for worker in workers:
            worker.wait()
        ours = [run for run in log.get_all_workflow_runs("review") if run.run_id.startswith(f"run-{today}-")]
        print(f"{sum(run.status == 'completed' for run in ours)} runs completed")
        for entry in log.iter(type="crashed", after_id=first):
            print(f"{entry.ref_id} was taken over from a process that had died")
        # As if a day had passed. A fleet does this once a day, from one place.
        later = time.time_ns() // 1_000_000 + DAY
        result = log.archive_logs(now=later, retention=timedelta(0), compression="zstd")
        print(f"{sum(day.added_rows for day in result.days)} rows of {len(result.days)} days were archived")
        dashboard(log, archive, first)


def dashboard(log: PostgresLogStore, archive: str, first: int) -> None:
    """Who did how much: by DuckDB over the archive if that is installed, else by the log, which reads it as well."""
    try:
        session, days = duckdb_over(archive)
    except ImportError as error:
        print(f"the log is asked, because {error.name} is not installed")
        steps = Counter(
            json.loads(entry.payload or "{}")["role"]
            for entry in log.iter(type="thread_workflow_message", after_id=first, archived=True)
        )
        rows: list[tuple[str, int]] = sorted(steps.items())
    else:
        print(f"DuckDB reads {days}")
        rows = session.execute(
            "SELECT json_extract_string(payload, '$.role') AS worker, count(*) FROM read_json(?, columns = {"
            "id: 'BIGINT', type: 'VARCHAR', payload: 'VARCHAR'}"
            ") WHERE type = 'thread_workflow_message' AND id > ? GROUP BY worker ORDER BY worker",
            [days, first],
        ).fetchall()
    for worker, count in rows:
        print(f"{worker} did {count} steps")


def duckdb_over(archive: str) -> tuple[Any, str]:
    """A session of DuckDB that can read the archive, and the pattern of its days."""
    session = import_module("duckdb").connect()
    scheme, is_url, _ = archive.partition("://")
    if not is_url:
        return session, f"{archive}/*.jsonl*"
    # What the log itself reads buckets with, and with the same environment. DuckDB's own way, LOAD httpfs and
    # CREATE SECRET, works for S3 as well, but downloads an extension when it is first used.
    fsspec = import_module("fsspec")
    import_module("obstore.fsspec").register(scheme)
    session.register_filesystem(fsspec.filesystem(scheme))
    return session, f"{archive}/logs/*.jsonl*"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--work", url, owner]:
            work(url, owner)
        case [url, archive]:
            main(url, archive)
        case [url]:
            with tempfile.TemporaryDirectory() as directory:
                main(url, directory)
        case _:
            sys.exit(__doc__)
