"""`StoreHandler` at the end of a process, in forked children and in those of `multiprocessing`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import nerve_store as ns
from nerve_store.logging import StoreHandler
from support import child_environment

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def ran(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def messages(path: Path) -> list[str]:
    with ns.LogStore(path) as store:
        return [entry.json()["message"] for entry in store.query(source="logging")]


def test_the_end_of_the_interpreter_appends_what_is_queued(tmp_path: Path) -> None:
    done = ran(
        "-c",
        f"""
import logging, sys, nerve_store as ns
from nerve_store.logging import StoreHandler
store = ns.LogStore({str(tmp_path / "logs.db")!r})
logging.getLogger().addHandler(StoreHandler(store))
for n in range(500):
    logging.error("%d", n)
assert "multiprocessing" not in sys.modules
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert messages(tmp_path / "logs.db") == [str(n) for n in range(500)]


def test_a_record_of_the_end_itself_is_appended(tmp_path: Path) -> None:
    """From Python 3.12 on, no thread begins then."""
    done = ran(
        "-c",
        f"""
import atexit, logging, nerve_store as ns
from nerve_store.logging import StoreHandler
store = ns.LogStore({str(tmp_path / "logs.db")!r})
logging.getLogger().addHandler(StoreHandler(store))
atexit.register(logging.error, "the end")
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert messages(tmp_path / "logs.db") == ["the end"]


def test_no_thread_to_be_had_until_the_end_loses_nothing(
    log_store: ns.LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    logger = logging.Logger("app")  # noqa: LOG001 - it is not to stay
    logger.addHandler(handler := StoreHandler(log_store))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(3000):
        logger.error("%d", number)
    handler.close()
    assert [entry.json()["message"] for entry in log_store.query()] == [str(n) for n in range(3000)]


@needs_fork
def test_a_forked_child_begins_anew(tmp_path: Path) -> None:
    done = ran(
        "-c",
        f"""
import logging, os, nerve_store as ns
from nerve_store.logging import StoreHandler
store = ns.LogStore({str(tmp_path / "logs.db")!r})
handler = StoreHandler(store)
logging.getLogger().addHandler(handler)
for n in range(300):
    logging.error("parent %d", n)
pid = os.fork()
if pid == 0:
    logging.error("child")
    logging.shutdown()
    os._exit(handler.dropped)
logging.error("parent after")
status = os.waitpid(pid, 0)[1]
logging.shutdown()
raise SystemExit(os.waitstatus_to_exitcode(status))
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = messages(tmp_path / "logs.db")
    assert sorted(said) == sorted([*(f"parent {n}" for n in range(300)), "child", "parent after"])


@needs_fork
def test_a_forked_child_does_not_write_where_its_parent_may_not(tmp_path: Path) -> None:
    ns.LogStore(tmp_path / "logs.db").close()
    done = ran(
        "-c",
        f"""
import logging, os, nerve_store as ns
from nerve_store.logging import StoreHandler
store = ns.LogStore({str(tmp_path / "logs.db")!r}, read_only=True)
handler = StoreHandler(store)
logging.getLogger().addHandler(handler)
pid = os.fork()
if pid == 0:
    logging.error("child")
    logging.shutdown()
    os._exit(handler.dropped)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert messages(tmp_path / "logs.db") == []


@needs_fork
def test_a_forked_child_opens_the_log_with_the_options_of_its_parent(tmp_path: Path) -> None:
    path = str(tmp_path / "logs.db")
    done = ran(
        "-c",
        f"""
import logging, os, nerve_store as ns
from nerve_store.logging import StoreHandler
store = ns.LogStore({path!r}, max_payload_bytes=1000)
handler = StoreHandler(store)
logging.getLogger().addHandler(handler)
if not (pid := os.fork()):
    logging.error("short")
    logging.error("l" * 1000)
    handler.flush()
    os._exit(handler.dropped)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1, "the long record is dropped"
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert messages(tmp_path / "logs.db") == ["short"]


CHILDREN = """
import logging, multiprocessing, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
import nerve_store as ns
from nerve_store.logging import StoreHandler

def set_up(path):
    logging.getLogger().addHandler(StoreHandler(ns.LogStore(path)))

def later(number):
    time.sleep(0.3)
    logging.error("%d thread", number)

def work(number, path):
    if path:
        set_up(path)
    for n in range(20):
        logging.error("%d %d", number, n)
    threading.Thread(target=later, args=(number,)).start()
    if number == 2:
        raise SystemExit(5)

def task(number):
    for n in range(20):
        logging.error("%d %d", number, n)

if __name__ == "__main__":
    path, method, whose, way = sys.argv[1:]
    if whose == "inherited":
        set_up(path)
        logging.error("parent")
    context = multiprocessing.get_context(method)
    if way == "Process":
        own = path if whose == "own" else None
        children = [context.Process(target=work, args=(n, own)) for n in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0, 5, 0]
    elif way == "Pool":
        with context.Pool(2, *((set_up, (path,)) if whose == "own" else ())) as pool:
            pool.map(task, range(4))
            pool.close()
            pool.join()
    else:
        given = {"initializer": set_up, "initargs": (path,)} if whose == "own" else {}
        with ProcessPoolExecutor(2, context, **given) as pool:
            list(pool.map(task, range(4)))
"""


@needs_fork
@pytest.mark.parametrize("way", ["Process", "Pool", "ProcessPoolExecutor"])
@pytest.mark.parametrize(
    ("method", "whose"), [("fork", "inherited"), ("fork", "own"), ("forkserver", "own"), ("spawn", "own")]
)
def test_children_of_multiprocessing_keep_every_record(tmp_path: Path, method: str, whose: str, way: str) -> None:
    """Also those that threads log after the child's work has ended."""
    program, path = tmp_path / "program.py", tmp_path / "logs.db"
    program.write_text(CHILDREN)
    ns.LogStore(path).close()
    done = ran(program, path, method, whose, way)
    assert (done.returncode, done.stderr) == (0, "")
    expected = [f"{number} {n}" for number in range(4) for n in range(20)]
    expected += [f"{number} thread" for number in range(4)] * (way == "Process")
    expected += ["parent"] * (whose == "inherited")
    assert sorted(messages(path)) == sorted(expected)


@needs_fork
def test_a_closed_handler_is_not_kept_by_a_child_of_multiprocessing(tmp_path: Path) -> None:
    done = ran(
        "-c",
        f"""
import gc, logging, multiprocessing, weakref, nerve_store as ns
from multiprocessing import util
from nerve_store.logging import StoreHandler

def work():
    store = ns.LogStore({str(tmp_path / "logs.db")!r})
    known = []
    for n in range(20):
        logging.getLogger().addHandler(handler := StoreHandler(store))
        logging.error("%d", n)
        handler.close()
        logging.getLogger().removeHandler(handler)
        known.append(weakref.ref(handler))
    del handler
    gc.collect()
    assert not any(each() for each in known)
    assert not [each for key, each in util._finalizer_registry.items() if "logging" in repr(each)]

child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
raise SystemExit(child.exitcode)
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert messages(tmp_path / "logs.db") == [str(n) for n in range(20)]
