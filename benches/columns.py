"""Rows into the columns of a data tool, each way in a process of its own, so that no two SQLites have one file open.

    python benches/columns.py WAY PATH

reads all rows once for each line that it is given, and prints the seconds that passed, the seconds of processor time,
and how many rows there were. The first reading is in vain: it warms up.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import nerve_store as ns

Read = Callable[[], Any]
"""Makes a table or a frame of all rows, which has a length."""

SQL = "SELECT id, source, type, ref_id, payload, timestamp FROM logs ORDER BY id"


@contextmanager
def arrow(path: Path, *, polars: bool = False, archived: bool = False) -> Iterator[Read]:
    tool: Any = __import__("polars" if polars else "pyarrow")
    table = tool.DataFrame if polars else tool.table
    with ns.LogStore(path, read_only=True) as logs:
        yield lambda: table(logs.arrow(archived=archived))


@contextmanager
def query(path: Path) -> Iterator[Read]:
    """What a user writes without `arrow`."""
    pyarrow: Any = __import__("pyarrow")
    names = ns.LogEntry.__match_args__
    with ns.LogStore(path, read_only=True) as logs:

        def read() -> Any:
            rows = logs.query()
            return pyarrow.table({name: [getattr(row, name) for row in rows] for name in names})

        yield read


@contextmanager
def adbc(path: Path) -> Iterator[Read]:
    dbapi: Any = __import__("adbc_driver_sqlite.dbapi").dbapi
    with dbapi.connect(f"file:{path}?mode=ro") as connection, connection.cursor() as cursor:

        def read() -> Any:
            cursor.execute(SQL)
            return cursor.fetch_arrow_table()

        yield read


@contextmanager
def duckdb(path: Path) -> Iterator[Read]:
    """The day files as its users read them, told the types, which spares it looking for them."""
    columns = dict.fromkeys(("source", "type", "refId", "payload"), "VARCHAR")
    columns = {"id": "BIGINT", **columns, "timestamp": "BIGINT"}
    with __import__("duckdb").connect() as connection:
        connection.execute("SET VARIABLE files = ?", [str(path.parent / "archive" / "logs" / "*.jsonl*")])
        sql = f"FROM read_json(getvariable('files'), format = 'newline_delimited', columns = {columns})"
        yield lambda: connection.sql(sql).to_arrow_table()


@contextmanager
def connectorx(path: Path) -> Iterator[Read]:
    tool: Any = __import__("connectorx")
    yield lambda: tool.read_sql(f"sqlite://{path}", SQL, return_type="arrow")


WAYS: dict[str, Callable[[Path], AbstractContextManager[Read]]] = {
    "arrow, pyarrow": arrow,
    "arrow, polars": lambda path: arrow(path, polars=True),
    "query, pyarrow.table": query,
    "ADBC": adbc,
    "connectorx": connectorx,
    "arrow of the archive, pyarrow": lambda path: arrow(path, archived=True),
    "DuckDB": duckdb,
}


class Way:
    """One of them, in its process."""

    def __init__(self, name: str, path: Path) -> None:
        self.processor_times: list[float] = []
        command = [sys.executable, __file__, name, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.rows = self._answer()[2]

    def read(self) -> float:
        """Read all rows once; how long it took."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        seconds, processor, _ = self._answer()
        self.processor_times.append(processor)
        return seconds

    def _answer(self) -> tuple[float, float, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        seconds, processor, rows = line.split()
        return float(seconds), float(processor), int(rows)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def serve(read: Read) -> None:
    while True:
        begun, processor = time.perf_counter(), time.process_time()
        rows = len(read())
        print(time.perf_counter() - begun, time.process_time() - processor, rows, flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    name, path = sys.argv[1:]
    with WAYS[name](Path(path)) as read:
        serve(read)
