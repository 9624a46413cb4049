"""Several processes that share the work: each claims runs, works on them, and renews its claims; some are killed.

Run it with `python examples/workers.py [DIRECTORY]`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import nerve_store as ns

LEASE = 0.5
"""Seconds; a minute or more suits real work."""


def work(directory: str, owner: str) -> None:
    """Take runs until there are none for a while."""
    with ns.Store(directory) as store:
        logs = store.logs
        while claim := logs.claim_workflow_run(owner, lease=LEASE, wait=2 * LEASE, max_attempts=5):
            try:
                trigger = logs.get_trigger_payload(claim.run.run_id)
                done = len(logs.get_thread_messages(claim.run.run_id))  # what claimants before this one got done
                for step in range(done, trigger["maxRounds"]):
                    time.sleep(0.02)  # the work itself
                    message = json.dumps({"role": owner, "content": f"step {step}"})
                    logs.append("workflow", "thread_workflow_message", claim.run.run_id, message, claim=claim)
                    claim = logs.renew_claim(claim)  # the lease lasts from now on
                logs.transition(claim.run.run_id, "completed", exit_code=ns.ExitCode.SUCCESS, claim=claim)
            except ns.ClaimLostError as error:
                print(f"{owner}: {error}")  # killed, or taken over: leave the run alone


def start(directory: str, owner: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--work", directory, owner])


def main(directory: str) -> None:
    with ns.Store(directory) as store:
        with store.logs.batch() as batch:  # all runs, or none
            for number in range(12):
                trigger = json.dumps({"prompt": f"review part {number}", "maxRounds": 4})
                batch.create_workflow_run(f"run-{number}", "review", payload=trigger)
        print("12 runs are queued")
        first = start(directory, "worker-0")
        while not store.logs.count(type="thread_workflow_message"):
            time.sleep(0.005)
        first.kill()  # in the middle of its first run
        first.wait()
        print("worker-0 was killed in the middle of its first run")
        workers = [start(directory, f"worker-{number}") for number in (1, 2, 3)]
        for worker in workers:
            worker.wait()
        runs = store.logs.get_all_workflow_runs()
        print(f"{sum(run.status == 'completed' for run in runs)} runs completed")
        for entry in store.logs.iter(type="crashed"):
            print(f"{entry.ref_id} was taken over from a process that had died")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--work", directory, owner]:
            work(directory, owner)
        case [directory]:
            main(directory)
        case _:
            with tempfile.TemporaryDirectory() as directory:
                main(os.path.join(directory, "data"))
