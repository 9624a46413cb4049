"""A daemon that dies in the middle of its work, and the one that comes after it.

Run it with `python examples/daemon.py [DIRECTORY]`.
"""

import json
import os
import subprocess
import sys
import tempfile

import nerve_store as ns


def first_life(directory: str) -> None:
    """Queue two runs, work on one, and die without a word."""
    store = ns.Store(directory)
    for number in (1, 2):
        run = ns.WorkflowRun(f"run-{number}", "review", ns.WorkflowRunStatus.QUEUED, 1_773_200_000_000)
        queued = ns.NewLogEntry("workflow", "queued", run.run_id, timestamp=run.timestamp)
        store.logs.upsert_workflow_run(queued, run)  # the row and the run's state, or neither

    trigger = json.dumps({"prompt": "review the parser", "maxRounds": 8})
    store.logs.transition("run-1", "started", expect="queued", payload=trigger)
    for role, content in (("planner", "read the diff"), ("coder", "two remarks so far")):
        message = json.dumps({"role": role, "content": content})
        store.logs.append("workflow", "thread_workflow_message", "run-1", message)
    os._exit(1)  # neither close() nor any other farewell: what was acknowledged is on disk


def second_life(directory: str) -> None:
    """Find what was at work, say so in the log, and finish it."""
    with ns.Store(directory) as store:
        for run in store.logs.get_active_workflow_runs():
            if run.status is ns.WorkflowRunStatus.STARTED:
                store.logs.transition(run.run_id, "crashed", exit_code=ns.ExitCode.CRASHED)
            trigger = store.logs.get_trigger_payload(run.run_id)
            messages = store.logs.get_thread_messages(run.run_id)
            print(f"{run.run_id} was {run.status}: trigger {trigger}, {len(messages)} messages")
            store.logs.transition(run.run_id, "started", expect=("crashed", "queued"))
            store.logs.transition(run.run_id, "completed", exit_code=ns.ExitCode.SUCCESS)

        for run in store.logs.get_all_workflow_runs():
            types = [entry.type for entry in store.logs.iter(ref_id=run.run_id)]
            print(f"{run.run_id}: {', '.join(types)}; exit code {run.exit_code}")


def main(directory: str) -> None:
    subprocess.run([sys.executable, __file__, "--first-life", directory], check=False)
    second_life(directory)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--first-life", directory]:
            first_life(directory)
        case [directory]:
            main(directory)
        case _:
            with tempfile.TemporaryDirectory() as directory:
                main(os.path.join(directory, "data"))
