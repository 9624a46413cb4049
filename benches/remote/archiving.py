"""`python -m remote.archiving`: a day of a log on PostgreSQL goes to an S3 server, beside what a user would write.

The peer reads with a server-side cursor of psycopg, writes the same lines, compresses them with zstandard, sends the
file with boto3, reads it back and compares, and removes the rows: once by dropping the day's partition, and once, from
a table that has none, by DELETE. `NERVE_BENCH_ARCHIVED` is the number of rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import psycopg
import zstandard

import nerve_store as ns
from nerve_store.postgres import PostgresLogStore
from remote.objects import client
from remote.peers import PAYLOAD
from support import objects, servers

ROWS = int(os.environ.get("NERVE_BENCH_ARCHIVED", "500000"))
ROUNDS = 3
DAY_MS = 86_400_000
DAY = int(time.time()) // 86_400 * DAY_MS
"""Today, whose partition a log has made."""
FIELDS = ("id", "source", "type", "refId", "payload", "timestamp")
COLUMNS = "id, source, type, ref_id, payload, timestamp"
PAGE = 10_000

TABLES = f"""
CREATE SCHEMA archived;
CREATE TABLE archived.whole (id bigint PRIMARY KEY, source text, type text, ref_id text, payload text,
  timestamp bigint);
CREATE INDEX ON archived.whole (ref_id, id);
CREATE INDEX ON archived.whole (timestamp);
CREATE TABLE archived.parted (id bigint, source text, type text, ref_id text, payload text, timestamp bigint)
  PARTITION BY RANGE (timestamp);
CREATE INDEX ON archived.parted (id);
CREATE INDEX ON archived.parted (ref_id, id);
CREATE TABLE archived.day PARTITION OF archived.parted FOR VALUES FROM ({DAY}) TO ({DAY + DAY_MS});
"""


def peer(session: psycopg.Connection[Any], s3: Any, bucket: str, table: str, remove: str) -> None:
    """Archive the day of `table`; `remove` is the statement that removes its rows."""
    with tempfile.NamedTemporaryFile() as file:
        with session.transaction(), session.cursor("rows", binary=True) as rows:
            rows.execute(
                f"SELECT {COLUMNS} FROM {table} WHERE timestamp >= %s AND timestamp < %s ORDER BY id",
                (DAY, DAY + DAY_MS),
            )
            with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as stream:
                while page := rows.fetchmany(PAGE):
                    lines = [
                        json.dumps(dict(zip(FIELDS, row, strict=True)), ensure_ascii=False, separators=(",", ":"))
                        for row in page
                    ]
                    stream.write("\n".join([*lines, ""]).encode())
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        s3.upload_file(file.name, bucket, f"{table}.jsonl.zst")
    digest = hashlib.sha256()
    for piece in s3.get_object(Bucket=bucket, Key=f"{table}.jsonl.zst")["Body"].iter_chunks(1 << 20):
        digest.update(piece)
    if digest.hexdigest() != sha256:
        raise RuntimeError("it is not what was sent")
    session.execute(remove)


def lines(content: bytes) -> str:
    """The sha256 of what was compressed."""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fill(log: PostgresLogStore, session: psycopg.Connection[Any], schema: str) -> None:
    """The rows of a day, in the log and in the tables of the peers."""
    for start in range(0, ROWS, PAGE):
        log.append_many(
            [("system", "tick", f"run-{n % 2000}", PAYLOAD, DAY + n) for n in range(start, start + PAGE)],
            durability="normal",
        )
    session.execute("DROP SCHEMA IF EXISTS archived CASCADE")
    session.execute(TABLES)
    for table in ("archived.whole", "archived.parted"):
        session.execute(f"INSERT INTO {table} SELECT {COLUMNS} FROM {schema}.logs ORDER BY id")
        session.execute(f"VACUUM ANALYZE {table}")
    session.execute(f"VACUUM ANALYZE {schema}.logs")


def one_round(server: servers.Server, store: objects.S3Server, number: int) -> dict[str, float]:
    """Seconds of each, on new tables; who begins is another one in each round."""
    url, options = store.bucket()
    bucket, s3, schema = url.split("/")[2], client(store.port), f"archiving_{number}"
    with (
        psycopg.connect(server.url, autocommit=True) as session,
        PostgresLogStore(server.url, schema=schema, archive=url, archive_options=options) as log,
    ):
        fill(log, session, schema)
        now = datetime.fromtimestamp((DAY + 2 * DAY_MS) / 1000, UTC)
        deletion = f"DELETE FROM archived.whole WHERE timestamp >= {DAY} AND timestamp < {DAY + DAY_MS}"
        calls: list[tuple[str, Callable[[], object]]] = [
            ("ours", lambda: log.archive_logs(now=now, retention=timedelta(0), compression="zstd")),
            ("peer that drops", lambda: peer(session, s3, bucket, "archived.parted", "DROP TABLE archived.day")),
            ("peer that deletes", lambda: peer(session, s3, bucket, "archived.whole", deletion)),
        ]
        times: dict[str, float] = {}
        for turn in range(len(calls)):
            name, call = calls[(turn + number) % len(calls)]
            session.execute("CHECKPOINT")
            started = time.perf_counter()
            call()
            times[name] = time.perf_counter() - started
        (day,) = log.archived_days()
        keys = [day.path.removeprefix(f"s3://{bucket}/"), "archived.parted.jsonl.zst", "archived.whole.jsonl.zst"]
        found = {lines(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys}
        if len(found) != 1 or day.row_count != ROWS or log.count():
            raise RuntimeError(f"they have archived different rows: {found}, {day}")
        session.execute(f"DROP SCHEMA {schema} CASCADE")
    return times


def measure(server: servers.Server, store: objects.S3Server) -> dict[str, float]:
    """Seconds of each, medians of the rounds."""
    rounds = [one_round(server, store, number) for number in range(ROUNDS)]
    print(*rounds, sep="\n", file=sys.stderr)
    return {name: statistics.median(times[name] for times in rounds) for name in rounds[0]}


def main() -> None:
    reason = objects.missing("versitygw")
    versions = servers.installations()
    if reason is not None or not versions:
        raise SystemExit(reason or "PostgreSQL is not installed; make services installs it")
    server = servers.create(max(versions))
    try:
        figures = {f"{ROWS} rows of a day to S3, s": measure(server, objects.shared("versitygw"))}
    finally:
        server.remove()
    print(
        f"nerve_store {ns.__version__} ({ns.BUILD_PROFILE}), PostgreSQL {max(versions)}, psycopg "
        f"{psycopg.__version__}, boto3 {boto3.__version__}, zstandard {zstandard.__version__}",
        file=sys.stderr,
    )
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
