"""Programs that claim runs, and that append by keys, beside others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import nerve_store as ns
from programs import say


def append_keyed(*, path: str, count: int) -> None:
    """Append a row a key, and say the id of each."""
    with ns.LogStore(path) as store:
        say({str(number): store.append("s", "t", None, str(number), key=str(number)).id for number in range(count)})


def claim_all(*, path: str, threads: int, lease: float, name: str, durability: str = "normal") -> None:
    """Claim runs in several threads, log a row of work for each, and end it, until there is none left for a while.

    Each step is said as it is acknowledged: ["claimed", run, token], ["ended", run, token], ["lost", run, token].
    """
    lock = threading.Lock()

    def say_whole(*value: object) -> None:
        with lock:
            say(value)

    def work(number: int) -> None:
        owner = f"{name}-{os.getpid()}-{number}"
        while claim := store.claim_workflow_run(owner, lease=lease, wait=2 * lease):
            told = (claim.run.run_id, claim.token)
            say_whole("claimed", *told)
            try:
                store.append("workflow", "work", claim.run.run_id, owner, claim=claim)
                claim = store.renew_claim(claim)
                end(claim)
            except ns.ClaimLostError:
                say_whole("lost", *told)
            else:
                say_whole("ended", *told)

    def end(claim: ns.RunClaim) -> None:
        if claim.token % 2:
            store.transition(claim.run.run_id, "completed", exit_code=0, claim=claim)
        else:
            with store.batch(claim=claim) as batch:
                batch.append("workflow", "last", claim.run.run_id)
                batch.transition(claim.run.run_id, "completed", exit_code=0)

    with ns.LogStore(path, durability="full" if durability == "full" else "normal") as store:
        run_all([lambda number=number: work(number) for number in range(threads)])  # type: ignore[misc]


def run_all(works: list[Callable[[], None]]) -> None:
    """Each in a thread of its own."""
    running = [threading.Thread(target=work) for work in works]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def batches(*, path: str, writer: str, count: int) -> None:
    """Write batches that are whole or absent: rows, a run's life, and a value of meta, all with one number."""
    with ns.LogStore(path) as store:
        for number in range(count):
            mark = f"{writer}-{number}"
            with store.batch() as batch:
                batch.append_many([("batch", "row", mark, None, 1)] * 10)
                batch.create_workflow_run(mark, "w")
                batch.append("batch", "keyed", mark, key=mark)
                batch.transition(mark, "started")
                batch.transition(mark, "completed")
                batch.set_meta(mark, mark)
            say([mark, len(batch.ids or ())])
