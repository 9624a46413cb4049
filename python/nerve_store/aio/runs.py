"""Workflow runs and their threads, in the asynchronous log store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from functools import partial
from typing import Any

from nerve_store._core import Check, LogEntry, LogStore
from nerve_store.aio.base import OpenStore, documented
from nerve_store.aio.batch import AsyncBatch
from nerve_store.aio.watch import RunFilter, Watches
from nerve_store.records import RunClaim, ThreadMessage, ThreadRound, WorkflowRun, WorkflowRunStatus
from nerve_store.types import Durability, Expected, JsonArgument, Row, Status, Timestamp

_PAGE_RUNS = 256
"""Runs that an async iterator takes from a thread at a time."""


class Runs(OpenStore):
    """Workflow runs: their states and claims, and what their threads say."""

    _watches = Watches()

    @documented(LogStore.create_workflow_run)
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
        return await self._write(
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

    @documented(LogStore.upsert_workflow_run)
    async def upsert_workflow_run(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        durability: Durability | None = None,
        claim: RunClaim | None = None,
    ) -> LogEntry:
        return await self._write(
            self._store.upsert_workflow_run, entry, run, force=force, durability=durability, claim=claim
        )

    @documented(LogStore.append_with_workflow_update)
    async def append_with_workflow_update(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        durability: Durability | None = None,
        claim: RunClaim | None = None,
    ) -> LogEntry:
        return await self.upsert_workflow_run(entry, run, force=force, durability=durability, claim=claim)

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
        claim: RunClaim | None = None,
    ) -> WorkflowRun:
        return await self._write(
            self._store.transition,
            run_id,
            status,
            expect=expect,
            exit_code=exit_code,
            payload=payload,
            json=json,
            timestamp=timestamp,
            durability=durability,
            claim=claim,
        )

    @documented(LogStore.claim_workflow_run)
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
        workflows = Check.texts(workflow, "workflow")
        wanted = None if workflows is None else tuple(workflows)

        async def claim() -> RunClaim | None:
            return await self._write(
                self._store.claim_workflow_run,
                owner,
                workflow=wanted,
                run_id=run_id,
                lease=lease,
                max_attempts=max_attempts,
                durability=durability,
            )

        seconds = Check.seconds_or_delta(wait, "wait")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (claimed := await claim()) is None and (left := deadline - loop.time()) > 0:
            await self._watches.wait(self, RunFilter(wanted, run_id, max_attempts), left)
        return claimed

    @documented(LogStore.renew_claim)
    async def renew_claim(self, claim: RunClaim, *, lease: float | timedelta | None = None) -> RunClaim:
        return await self._write(self._store.renew_claim, claim, lease=lease)

    @documented(LogStore.release_claim)
    async def release_claim(self, claim: RunClaim, *, delay: float | timedelta = 0.0) -> WorkflowRun:
        return await self._write(self._store.release_claim, claim, delay=delay)

    @documented(
        LogStore.batch, "In an event loop it is an asynchronous context manager; the batch's methods are not awaited."
    )
    def batch(self, *, durability: Durability | None = None, claim: RunClaim | None = None) -> AsyncBatch:
        self._check_open()
        return AsyncBatch(self, self._store.batch(durability=durability, claim=claim))

    @documented(LogStore.get_workflow_run)
    async def get_workflow_run(self, run_id: str) -> WorkflowRun | None:
        return await self._run(self._threads.read, self._store.get_workflow_run, run_id)

    @documented(LogStore.get_active_workflow_runs)
    async def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        return await self._run(self._threads.read, self._store.get_active_workflow_runs, workflow)

    @documented(LogStore.get_all_workflow_runs)
    async def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        return await self._run(self._threads.read, self._store.get_all_workflow_runs, workflow)

    @documented(LogStore.query_workflow_runs)
    async def query_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Expected | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> list[WorkflowRun]:
        return await self._run(
            self._threads.read,
            self._store.query_workflow_runs,
            workflow=workflow,
            status=status,
            since=since,
            until=until,
            after=after,
            limit=limit,
            descending=descending,
        )

    @documented(LogStore.iter_workflow_runs)
    def iter_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Expected | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> AsyncIterator[WorkflowRun]:
        return self._pages(
            lambda: partial(
                self._store.iter_workflow_runs(
                    workflow=workflow,
                    status=status,
                    since=since,
                    until=until,
                    after=after,
                    limit=limit,
                    descending=descending,
                )._take,
                _PAGE_RUNS,
            )
        )

    @documented(LogStore.count_workflow_runs)
    async def count_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Expected | None = None,
    ) -> Counter[WorkflowRunStatus]:
        return await self._run(self._threads.read, self._store.count_workflow_runs, workflow=workflow, status=status)

    @documented(LogStore.delete_workflow_runs)
    async def delete_workflow_runs(self, *, before: Timestamp, workflow: str | Collection[str] | None = None) -> int:
        return await self._run(self._threads.job, self._store.delete_workflow_runs, before=before, workflow=workflow)

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
