"""`make bench-remote`: a table of figures, each beside its peer, and the same as JSON.

The server's disk takes a millisecond to flush (`slow_flush.c`), unless NERVE_FLUSH=real. Figures of one run are
compared with each other alone.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

import nerve_store as ns
from nerve_store.postgres import PostgresLogStore
from remote.peers import PAYLOAD, TABLES
from remote.rates import MAKERS, daemons, per_second
from support import servers

ROWS = int(os.environ.get("NERVE_BENCH_ROWS", "1000000"))


def slow_flush(directory: Path) -> dict[str, str]:
    """The environment in which a flush takes a millisecond."""
    if os.environ.get("NERVE_FLUSH") == "real":
        return {}
    library = directory / "slow_flush.so"
    source = Path(__file__).with_name("slow_flush.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    directory.chmod(0o755)
    return {"LD_PRELOAD": str(library)}


def bulk(url: str) -> dict[str, float]:
    """Rows a second at 1,000 a commit."""
    rows = [("system", "tick", "run-1", PAYLOAD, n) for n in range(1000)]

    def timed(call: Callable[[], object], rounds: int = 15) -> float:
        call()
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return 1000 / statistics.median(times)

    with PostgresLogStore(url) as log, psycopg.connect(url) as session:

        def executemany() -> None:
            with session.cursor() as cursor:
                cursor.executemany("INSERT INTO peer.logs VALUES (nextval('peer.log_id'), %s, %s, %s, %s, %s)", rows)
            session.commit()

        return {"ours": timed(lambda: log.append_many(rows)), "executemany": timed(executemany)}


def following(url: str) -> dict[str, float]:
    """Milliseconds, p50: an append, and from its beginning until another store's follower has the row."""
    with PostgresLogStore(url) as log, PostgresLogStore(url) as reader:
        follower = reader.follow()
        arrived: list[float] = []

        def follow() -> None:
            arrived.extend(time.perf_counter() for _ in itertools.islice(follower, 200))

        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(0.3)
        begun, took = [], []
        for _ in range(200):
            begun.append(time.perf_counter())
            log.append("system", "tick", None, PAYLOAD)
            took.append(time.perf_counter() - begun[-1])
            time.sleep(0.01)
        thread.join()
        delays = [end - start for start, end in zip(begun, arrived, strict=True)]
        return {"append p50": 1000 * statistics.median(took), "follow p50": 1000 * statistics.median(delays)}


def reading(url: str) -> dict[str, float]:
    """Milliseconds: 5,000 rows of a run of many."""
    with PostgresLogStore(url, schema="reading") as log:
        for start in range(0, ROWS, 10_000):
            log.append_many(
                [("system", "tick", f"run-{n % 200}", PAYLOAD, n) for n in range(start, start + 10_000)],
                durability="normal",
            )
        log.sql("SELECT 1")
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("ANALYZE reading.logs")
            statement = (
                "SELECT id, source, type, ref_id, payload, timestamp FROM reading.logs "
                "WHERE left(ref_id, 512) = 'run-7' AND ref_id = 'run-7' ORDER BY id LIMIT 5000"
            )
            count, ours, raw = 0, [], []
            for _ in range(20):
                started = time.process_time()
                count = len(log.query(ref_id="run-7", limit=5000))
                ours.append(time.process_time() - started)
                started = time.process_time()
                assert len(session.execute(statement).fetchall()) == count
                raw.append(time.process_time() - started)
        return {"ours": 1000 * statistics.median(ours), "psycopg": 1000 * statistics.median(raw), "rows": count}


def has_eventsourcing() -> bool:
    """Whether the peer is installed."""
    try:
        import eventsourcing
    except ImportError:
        print("eventsourcing is not installed and not measured", file=sys.stderr)
        return False
    return bool(eventsourcing)


def main() -> None:
    """Measure all of it."""
    versions = servers.installations()
    if not versions:
        sys.exit("PostgreSQL is not installed; make services installs it")
    version = max(versions)
    with tempfile.TemporaryDirectory() as directory:
        server = servers.create(version)
        try:
            server.stop()
            server.environment = slow_flush(Path(directory))
            server.start()
            with psycopg.connect(server.url, autocommit=True) as session:
                session.execute(TABLES)
            url = server.url
            results: dict[str, dict[str, float]] = {
                "8 daemons x 4 threads, commits/s": {
                    name: daemons(name, url) for name in ("ours", "unordered", "lock through the flush")
                },
                "32 threads of one process, commits/s": {
                    name: per_second(lambda name=name: MAKERS[name](url), 32)  # type: ignore[misc]
                    for name in ("ours", "unordered", *(["eventsourcing"] if has_eventsourcing() else []))
                },
                "1,000 rows a commit, rows/s": bulk(url),
                "follow, ms": following(url),
                f"5,000 rows of a run of {ROWS:,}, processor ms": reading(url),
            }
        finally:
            server.remove()
    print(f"nerve_store {ns.__version__} ({ns.BUILD_PROFILE}), PostgreSQL {version}, {os.cpu_count()} cores")
    for name, figures in results.items():
        print(f"{name}\n" + "\n".join(f"  {peer:<24}{figure:>12,.2f}" for peer, figure in figures.items()))
    path = Path("benches/results/remote.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
