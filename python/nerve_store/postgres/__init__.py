"""The log on PostgreSQL: the methods, records and errors of `LogStore`, for a fleet instead of one machine.

Needs the extra `postgres` (psycopg 3).
"""

try:
    import psycopg as _psycopg
except ImportError as error:
    raise ImportError("the log on PostgreSQL needs psycopg 3: pip install 'nerve-store[postgres]'") from error

from nerve_store.postgres.aio import AsyncPostgresLogStore
from nerve_store.postgres.store import PostgresLogStore

__all__ = ["AsyncPostgresLogStore", "PostgresLogStore"]


del _psycopg
