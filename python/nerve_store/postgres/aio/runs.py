"""Workflow runs, claims and threads, in the asynchronous log on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from nerve_store._core import Check, LogEntry
from nerve_store.aio.base import documented
from nerve_store.postgres.aio.base import OpenAsyncPostgres
from nerve_store.postgres.store import PostgresLogStore
from nerve_store.records import RunClaim, ThreadMessage, ThreadRound, WorkflowRun, WorkflowRunStatus
from nerve_store.types import Durability, JsonArgument, Row, Status, Timestamp


class AsyncRuns(OpenAsyncPostgres):
    """Workflow runs, claims and threads."""

    @documented(PostgresLogStore.create_workflow_run)
    async def create_workflow_run(
        self,
        run_id: str,
        workflow: str,
        *,
        status: Status = "queued",
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        not_before: Timestamp | None = None,
        exist_ok: bool = False,
        durability: Durability | None = None,
    ) -> WorkflowRun:
        return await self._run(
            self._threads.write,
            self._store.create_workflow_run,
            run_id,
            workflow,
            status=status,
            payload=payload,
            json=json,
            timestamp=timestamp,
            not_before=not_before,
            exist_ok=exist_ok,
            durability=durability,
        )

    @documented(PostgresLogStore.upsert_workflow_run)
    async def upsert_workflow_run(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry:
        return await self._run(
            self._threads.write,
            self._store.upsert_workflow_run,
            entry,
            run,
            force=force,
            claim=claim,
            durability=durability,
        )

    @documented(PostgresLogStore.append_with_workflow_update)
    async def append_with_workflow_update(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry:
        return await self._run(
            self._threads.write,
            self._store.append_with_workflow_update,
            entry,
            run,
            force=force,
            claim=claim,
            durability=durability,
        )

    @documented(PostgresLogStore.transition)
    async def transition(
        self,
        run_id: str,
        status: Status,
        *,
        expect: Status | Collection[Status] | None = None,
        exit_code: int | None = None,
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        claim: RunClaim | None = None,
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
            claim=claim,
            durability=durability,
        )

    @documented(PostgresLogStore.get_workflow_run)
    async def get_workflow_run(self, run_id: str) -> WorkflowRun | None:
        return await self._read(self._store.get_workflow_run, run_id)

    @documented(PostgresLogStore.get_active_workflow_runs)
    async def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        return await self._read(self._store.get_active_workflow_runs, workflow)

    @documented(PostgresLogStore.get_all_workflow_runs)
    async def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        return await self._read(self._store.get_all_workflow_runs, workflow)

    @documented(PostgresLogStore.query_workflow_runs)
    async def query_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> list[WorkflowRun]:
        return await self._read(
            self._store.query_workflow_runs,
            workflow=workflow,
            status=status,
            since=since,
            until=until,
            after=after,
            limit=limit,
            descending=descending,
        )

    @documented(PostgresLogStore.count_workflow_runs)
    async def count_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
    ) -> dict[WorkflowRunStatus, int]:
        return await self._read(self._store.count_workflow_runs, workflow=workflow, status=status)

    @documented(PostgresLogStore.delete_workflow_runs)
    async def delete_workflow_runs(self, *, before: Timestamp, workflow: str | Collection[str] | None = None) -> int:
        return await self._run(self._threads.write, self._store.delete_workflow_runs, before=before, workflow=workflow)

    @documented(PostgresLogStore.claim_workflow_run)
    async def claim_workflow_run(
        self,
        owner: str,
        *,
        workflow: str | Collection[str] | None = None,
        run_id: str | None = None,
        lease: float | timedelta = 60.0,
        wait: float | timedelta = 0.0,
        max_attempts: int | None = None,
        durability: Durability | None = None,
    ) -> RunClaim | None:
        look = self._store._looking(owner, workflow, run_id, lease, max_attempts, durability)
        end = time.monotonic() + Check.seconds_or_delta(wait, "wait")
        while True:
            known = self._store._listener.run_notices() if time.monotonic() < end else 0
            claim, pause = await self._run(self._threads.write, look)
            left = end - time.monotonic()
            if claim is not None or left <= 0:
                return claim
            await self._waits.wait(known, min(left, pause), of_runs=True)

    @documented(PostgresLogStore.renew_claim)
    async def renew_claim(self, claim: RunClaim, *, lease: float | timedelta | None = None) -> RunClaim:
        return await self._run(self._threads.write, self._store.renew_claim, claim, lease=lease)

    @documented(PostgresLogStore.release_claim)
    async def release_claim(self, claim: RunClaim, *, delay: float | timedelta = 0.0) -> WorkflowRun:
        return await self._run(self._threads.write, self._store.release_claim, claim, delay=delay)

    @documented(PostgresLogStore.get_trigger_payload)
    async def get_trigger_payload(self, run_id: str) -> Any:
        return await self._read(self._store.get_trigger_payload, run_id)

    @documented(PostgresLogStore.get_thread_events)
    async def get_thread_events(self, run_id: str) -> list[dict[str, Any]]:
        return await self._read(self._store.get_thread_events, run_id)

    @documented(PostgresLogStore.get_thread_messages)
    async def get_thread_messages(self, run_id: str) -> list[ThreadMessage]:
        return await self._read(self._store.get_thread_messages, run_id)

    @documented(PostgresLogStore.get_thread_round_count)
    async def get_thread_round_count(self, run_id: str) -> int:
        return await self._read(self._store.get_thread_round_count, run_id)

    @documented(PostgresLogStore.get_thread_rounds)
    async def get_thread_rounds(self, run_id: str, *, before: int = 0, limit: int) -> list[ThreadRound]:
        return await self._read(self._store.get_thread_rounds, run_id, before=before, limit=limit)
