"""Wrong programs: each line that ends in `# wrong` is refused by mypy and by pyright, and no other line is.

Nothing here runs; `tests/test_typing.py` gives it to both checkers.
"""

from datetime import date, timedelta
from pathlib import Path

import nerve_store as ns
from nerve_store import Stroe  # wrong
from nerve_store import AsyncLogStore, AsyncStore, BlobStore, LogStore, Store


def misspelt(store: LogStore, blobs: BlobStore) -> None:
    ns.LogStroe("x")  # wrong
    store.apend("s", "t")  # wrong
    store.append("s", "t", paylod="x")  # wrong
    store.query(sorce="x")  # wrong
    store.query(archived_too=True)  # wrong
    store.iter(afterid=3)  # wrong
    store.transition("r", "strated")  # wrong
    store.transition("r", "completed", expect="runing")  # wrong
    store.transition("r", "completed", expect=["started", "done"])  # wrong
    ns.WorkflowRun("r", "w", "begun", 1)  # wrong
    LogStore("x", durability="ful")  # wrong
    Store("x", durabilty="full")  # wrong
    store.archive_logs(compression="gzip")  # wrong
    store.archive_logs(vacuum="increment")  # wrong
    blobs.red("x")  # wrong
    blobs.exists("x", verfy=False)  # wrong
    print(store.query()[0].timestmp)  # wrong
    ns.LogEntry(1, "s", "t", None, None, 1)._replace(colour=1)  # wrong


def of_the_wrong_type(store: LogStore, blobs: BlobStore) -> None:
    store.append(1, "t")  # wrong
    store.append("s", "t", timestamp=1.5)  # wrong
    store.append("s", "t", timestamp="2026-01-01")  # wrong
    store.append("s", "t", timestamp=date(2026, 1, 1))  # wrong
    store.append("s", "t", None, {"a": 1})  # wrong
    store.append("s", "t", json={1, 2})  # wrong
    store.append("s", "t", None, None, None, "full")  # wrong
    store.append_many([("s", "t")])  # wrong
    store.append_many(["s"])  # wrong
    store.query("workflow")  # wrong
    store.query(limit="5")  # wrong
    store.query(since=timedelta(days=1))  # wrong
    store.archive_logs(retention=30)  # wrong
    store.read_archive("2026-01-01")  # wrong
    store.follow(poll_interval="1")  # wrong
    store.upsert_workflow_run(("s", "t", None, None, 1), "run-1")  # wrong
    text: str = store.append("s", "t")  # wrong
    blobs.write(7)  # wrong
    blobs.read(b"0")  # wrong
    blobs.collect("0" * 64, grace=3600)  # wrong
    LogStore(7)  # wrong
    LogStore("x", None)  # wrong
    store.query()[0].source = "x"  # wrong
    print(text)


async def without_await(directory: Path) -> None:
    logs = AsyncLogStore(directory / "logs.db")
    print(logs.append("s", "t").id)  # wrong
    print(len(logs.query()))  # wrong
    print(logs.get_workflow_run("r").status)  # wrong
    for entry in logs.iter():  # wrong
        print(entry)
    for entry in await logs.follow():  # wrong
        print(entry)
    with logs:  # wrong
        pass
    with ns.AsyncBlobStore(directory).writer() as writer:  # wrong
        print(writer)


async def misspelt_in_a_loop(directory: Path) -> None:
    async with AsyncStore(directory, durability="full") as store:
        await store.logs.append("s", "t", paylod="x")  # wrong
        await store.logs.append("s", "t", json=object())  # wrong
        await store.logs.query(sorce="x")  # wrong
        await store.logs.transition("r", "strated")  # wrong
        await store.blobs.reed("x")  # wrong
        await store.blobs.write(7)  # wrong
        await store.blobs.writer(verify=True).wrte(b"x")  # wrong
        print((await store.blobs.read("x")).hex())  # wrong
        async for entry in store.logs.iter(typ="x"):  # wrong
            print(entry)


def right(store: LogStore, blobs: BlobStore) -> None:
    """What both must take."""
    run: ns.WorkflowRun = store.transition("r", "completed", expect={"started", "queued"}, json={"a": [1, None]})
    store.transition("r", ns.WorkflowRunStatus.KILLED, expect=[run.status])
    rows: ns.LogIterator = store.iter(limit=3)
    follower: ns.LogFollower = store.follow()
    print(rows, follower, blobs.write(bytearray(b"x")), blobs.write(memoryview(b"x")))
