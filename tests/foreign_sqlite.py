"""Another program's SQLite: answers SQL on standard input, one JSON request and one JSON answer a line.

Run as a process of its own, always: a second copy of SQLite inside the process of a store drops the store's POSIX
locks as soon as it closes the file (docs/architecture.md). `support.foreign_sql` is the client.

Request: {"path": str, "sql": str, "params": [...] | [[...], ...], "many": bool, "script": bool}, or
{"path": str, "source": str}: the content of the one is replaced by that of the other
Answer: {"rows": [[...], ...]} or {"error": str}; bytes travel as {"hex": str}, in both directions.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from typing import Any


def encode(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def decode(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def answer(request: dict[str, Any]) -> list[list[Any]]:
    connection = sqlite3.connect(request["path"], isolation_level=None, timeout=20)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        if "source" in request:
            with contextlib.closing(sqlite3.connect(request["source"], timeout=20)) as source:
                source.backup(connection)
            return []
        if request["script"]:
            connection.executescript(request["sql"])
            return []
        if request["many"]:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(request["sql"], [[decode(v) for v in params] for params in request["params"]])
            connection.execute("COMMIT")
            return []
        cursor = connection.execute(request["sql"], [decode(v) for v in request["params"]])
        return [[encode(v) for v in row] for row in cursor.fetchall()]
    finally:
        connection.close()


def main() -> None:
    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"rows": answer(json.loads(line))}
        except sqlite3.Error as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
