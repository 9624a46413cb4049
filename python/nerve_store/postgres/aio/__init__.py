"""The log on PostgreSQL for asyncio."""

from nerve_store.postgres.aio.store import AsyncPostgresLogStore

__all__ = ["AsyncPostgresLogStore"]
