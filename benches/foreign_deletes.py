"""Another program deletes rows of a closed store: how long its statement takes.

python benches/foreign_deletes.py PATH FIRST LAST with|without
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing

TRIGGERS = ("log_row_deleted", "log_row_inserted", "log_row_updated")


def delete(path: str, first: int, last: int, triggers: str) -> float:
    """The processor time of one transaction, in seconds."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        if triggers == "without":
            for name in TRIGGERS:
                connection.execute(f"DROP TRIGGER {name}")
        began = time.process_time()
        connection.execute("DELETE FROM logs WHERE id BETWEEN ? AND ?", (first, last))
        return time.process_time() - began


if __name__ == "__main__":
    path, first, last, triggers = sys.argv[1:]
    print(delete(path, int(first), int(last), triggers))
