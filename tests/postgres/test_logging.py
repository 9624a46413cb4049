"""`StoreHandler` and `otel.observe` over a log on PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from nerve_store.logging import StoreHandler
from nerve_store.postgres import PostgresLogStore
from support import child_environment
from support.servers import Server


def ran(directory: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        env=child_environment(),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(log: Any) -> list[str]:
    return [entry.json()["message"] for entry in log.query(source="logging")]


def test_records_of_logging_are_rows(place: Backend) -> None:
    logger = logging.Logger("app")  # noqa: LOG001 - it is not to stay
    log = place.open()
    logger.addHandler(handler := StoreHandler(log))
    for number in range(3000):
        logger.error("%d", number, extra={"loss": float("nan")})
    logger.error("odd \ud800\0", extra={"keys": {(1, 2): 3}})
    handler.close()
    assert said(log) == [*map(str, range(3000)), "odd \ud800\0"]
    assert (handler.dropped, handler.last_error) == (0, None)


def test_a_store_on_a_server(place: Backend, files: Place) -> None:
    logger = logging.Logger("app")  # noqa: LOG001 - it is not to stay
    options = files.options or None
    with ns.Store(place.url, schema=place.schema, remote=files.url, remote_options=options) as store:
        for given in (store, store.logs):
            logger.addHandler(handler := StoreHandler(given))
            logger.error("seen")
            handler.close()
            logger.removeHandler(handler)
        assert said(store.logs) == ["seen", "seen"]


FORKED = """
import logging, os, sys, nerve_store as ns
from nerve_store.logging import StoreHandler
url, schema, archive = sys.argv[1:]
log = ns.PostgresLogStore(url, schema=schema, archive=archive, max_payload_bytes=4000, durability="normal")
handler = StoreHandler(log)
logging.getLogger("app").addHandler(handler)
logging.getLogger("app").error("parent")
handler.flush()
pid = os.fork()
if pid == 0:
    logging.getLogger("app").error("child")
    logging.getLogger("app").error("x" * 5000)
    handler.flush()
    (name,) = handler._store.sql("SELECT current_setting('application_name')")
    assert name == ("test of logging",), name
    assert handler._store._durability == "normal"
    assert "hidden" not in repr(handler)
    logging.shutdown()
    os._exit(handler.dropped)
logging.getLogger("app").error("parent after")
status = os.waitpid(pid, 0)[1]
logging.shutdown()
log.close()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_opens_the_same_log_with_password_and_options(own_server: Server, tmp_path: Path) -> None:
    rules = own_server.directory / "data" / "pg_hba.conf"
    with psycopg.connect(own_server.url, autocommit=True) as session:
        session.execute("CREATE ROLE careful LOGIN SUPERUSER PASSWORD 'hidden'")
        rules.write_text(f"host all careful 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        session.execute("SELECT pg_reload_conf()")
    url = f"postgresql://careful:hidden@127.0.0.1:{own_server.port}/postgres?application_name=test%20of%20logging"
    done = ran(tmp_path, FORKED, url, "forked", str(tmp_path / "archive"))
    assert (done.returncode, done.stderr) == (1, ""), "the record that is too long"
    with PostgresLogStore(own_server.url, schema="forked") as log:
        assert sorted(said(log)) == ["child", "parent", "parent after"]
    assert not any(name for _, _, files in os.walk(tmp_path) for name in files), "no database is made here"


CHILDREN = """
import logging, multiprocessing, sys, nerve_store as ns
from nerve_store.logging import StoreHandler
log = ns.PostgresLogStore(sys.argv[1], schema=sys.argv[2])
logging.getLogger("app").addHandler(StoreHandler(log))
def work(number):
    for n in range(20):
        logging.getLogger("app").error("%d %d", number, n)
context = multiprocessing.get_context("fork")
children = [context.Process(target=work, args=(n,)) for n in range(4)]
for child in children:
    child.start()
for child in children:
    child.join()
logging.getLogger("app").error("the end")
"""


def test_ends_of_processes_append_what_is_queued(place: Backend, tmp_path: Path) -> None:
    place.open()
    done = ran(tmp_path, CHILDREN, place.url, place.schema)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(said(place.open())) == sorted([*(f"{child} {n}" for child in range(4) for n in range(20)), "the end"])


def test_a_server_that_is_away_raises_nothing(own_server: Server) -> None:
    logger = logging.Logger("app")  # noqa: LOG001 - it is not to stay
    log = PostgresLogStore(own_server.url, schema="away", busy_timeout=0.5)
    logger.addHandler(handler := StoreHandler(log))
    own_server.stop()
    logger.error("lost")
    handler.flush()
    assert handler.dropped == 1
    assert isinstance(handler.last_error, ns.StoreUnavailableError)
    own_server.start()
    logger.error("kept")
    handler.close()
    assert said(log) == ["kept"]
    log.close()


def test_an_asynchronous_log_is_refused(place: Backend) -> None:
    async def refused() -> None:
        async with ns.AsyncPostgresLogStore(place.url, schema=place.schema) as log:
            wrong: Any = log
            with pytest.raises(TypeError, match=r"^store must be Log or Store, not AsyncPostgresLogStore$"):
                StoreHandler(wrong)

    asyncio.run(refused())


def test_figures_are_observed(place: Backend) -> None:
    metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    metrics_export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    otel = pytest.importorskip("nerve_store.otel")
    log = place.open()
    log.append_many([("s", "t", None, None, 1)] * 3)
    reader = metrics_export.InMemoryMetricReader()
    otel.observe(log, metrics_sdk.MeterProvider([reader]).get_meter("test"))
    found = {
        metric.name: [(point.value, dict(point.attributes)) for point in metric.data.data_points]
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found["nerve_store.log.last_id"] == [(3, {"db.namespace": log.path})]
    assert found["nerve_store.log.size"][0][0] > 0
