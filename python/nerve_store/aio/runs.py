"""Workflow runs and their threads, in the asynchronous log store."""

from __future__ import annotations

from typing import Any

from nerve_store._core import LogEntry, LogStore
from nerve_store.aio.base import OpenStore, documented
from nerve_store.records import ThreadMessage, ThreadRound, WorkflowRun
from nerve_store.types import Durability, Expected, JsonArgument, Row, Status, Timestamp


class Runs(OpenStore):
    """Workflow runs: their states, and what their threads say."""

    @documented(LogStore.upsert_workflow_run)
    async def upsert_workflow_run(
        self, entry: Row, run: WorkflowRun, *, force: bool = False, durability: Durability | None = None
    ) -> LogEntry:
        return await self._run(
            self._threads.write, self._store.upsert_workflow_run, entry, run, force=force, durability=durability
        )

    @documented(LogStore.append_with_workflow_update)
    async def append_with_workflow_update(
        self, entry: Row, run: WorkflowRun, *, force: bool = False, durability: Durability | None = None
    ) -> LogEntry:
        return await self.upsert_workflow_run(entry, run, force=force, durability=durability)

    @documented(LogStore.transition)
    async def transition(
        self,
        run_id: str,
        status: Status,
        *,
        expect: Expected | None = None,
        exit_code: int | None = None,
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        durability: Durability | None = None,
    ) -> WorkflowRun:
        return await self._run(
            self._threads.write,
            self._store.transition,
            run_id,
            status,
            expect=expect,
            exit_code=exit_code,
            payload=payload,
            json=json,
            timestamp=timestamp,
            durability=durability,
        )

    @documented(LogStore.get_workflow_run)
    async def get_workflow_run(self, run_id: str) -> WorkflowRun | None:
        return await self._run(self._threads.read, self._store.get_workflow_run, run_id)

    @documented(LogStore.get_active_workflow_runs)
    async def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        return await self._run(self._threads.read, self._store.get_active_workflow_runs, workflow)

    @documented(LogStore.get_all_workflow_runs)
    async def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        return await self._run(self._threads.read, self._store.get_all_workflow_runs, workflow)

    @documented(LogStore.get_trigger_payload)
    async def get_trigger_payload(self, run_id: str) -> Any:
        return await self._run(self._threads.read, self._store.get_trigger_payload, run_id)

    @documented(LogStore.get_thread_events)
    async def get_thread_events(self, run_id: str) -> list[dict[str, Any]]:
        return await self._run(self._threads.read, self._store.get_thread_events, run_id)

    @documented(LogStore.get_thread_messages)
    async def get_thread_messages(self, run_id: str) -> list[ThreadMessage]:
        return await self._run(self._threads.read, self._store.get_thread_messages, run_id)

    @documented(LogStore.get_thread_round_count)
    async def get_thread_round_count(self, run_id: str) -> int:
        return await self._run(self._threads.read, self._store.get_thread_round_count, run_id)

    @documented(LogStore.get_thread_rounds)
    async def get_thread_rounds(self, run_id: str, *, before: int = 0, limit: int) -> list[ThreadRound]:
        return await self._run(self._threads.read, self._store.get_thread_rounds, run_id, before=before, limit=limit)
