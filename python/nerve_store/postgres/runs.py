"""Workflow runs: changing and listing them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from nerve_store._core import Check, LogEntry
from nerve_store._pages import Pages
from nerve_store.postgres.base import OpenPostgres
from nerve_store.postgres.claims import carried
from nerve_store.postgres.connections import Session
from nerve_store.postgres.operations import as_run, change_operation, create_operation, run_operation
from nerve_store.postgres.texts import decode, encode, encode_all
from nerve_store.records import RunClaim, WorkflowRun, WorkflowRunStatus
from nerve_store.types import Durability, JsonArgument, Row, Status, Timestamp

_COLUMNS = "run_id, workflow, status, timestamp, exit_code"
_ACTIVE = "status IN ('queued', 'started')"
_PAGE_RUNS = 1_000


def _read(row: tuple[Any, ...]) -> WorkflowRun:
    return WorkflowRun(decode(row[0]), decode(row[1]), WorkflowRunStatus(row[2]), row[3], row[4])


def _order(*, backwards: bool, is_active: bool) -> str:
    """By the timestamp and the id, in words that lead to the index: that of active runs has no ids.

    The other one has the beginnings of ids: pages of many runs with one timestamp are read from it in order.
    """
    columns = ("timestamp", "run_id") if is_active else ("timestamp", "left(run_id, 512)", "run_id")
    return ", ".join(f"{column} DESC" if backwards else column for column in columns)


class Runs(OpenPostgres):
    """Workflow runs."""

    def create_workflow_run(
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
        """Log (workflow, <status>, run_id, payload) and create the run.

        A run that is there is a `RunExistsError`, or with `exist_ok` returned as it is if it is of the same workflow.
        `not_before` keeps a queued run from being claimed before.
        """
        state = Check.status(status)
        row = self._row("workflow", str(state), Check.run_id(run_id), Check.payload(payload, json), timestamp)
        job = self._job(durability)
        job.change(create_operation(row, workflow, state, not_before=not_before, exist_ok=exist_ok), row)
        return self._commit(job, lambda job: as_run(job.results[0]))

    def upsert_workflow_run(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry:
        """Append `entry` and bring the run to the state `run`, both in one transaction.

        A run that is not there may begin in any state; otherwise the transition must be legal
        (`IllegalTransitionError`), unless forced. Repeating the current state is allowed and logged. The exit code of
        a finished run is never lost to an update that has none. The entry's `ref_id` is the run's id, and a run keeps
        its workflow (`ValueError`).
        """
        row, operation = run_operation(entry, run, force=force, rules=self._rules)
        job = self._job(durability, carried(claim, row.ref_id))
        job.change(operation, row)
        return self._commit(job, lambda job: row.stored(job.results[0]["id"]))

    append_with_workflow_update = upsert_workflow_run

    def transition(
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
        """Take an existing run to `status`, logging the row (workflow, status, run_id, payload), in one transaction.

        `expect`: the state, or states, that the run must be in now. A run that is not there, is in another state,
        cannot go there, or is under a live lease that `claim` does not carry, is an `IllegalTransitionError` and
        changes nothing; `killed` is allowed without the claim.
        """
        run_id = Check.run_id(run_id)
        state = Check.status(status)
        row = self._row("workflow", str(state), run_id, Check.payload(payload, json), timestamp)
        job = self._job(durability, carried(claim, run_id))
        job.change(change_operation(row, state, expect=expect, exit_code=exit_code), row)
        return self._commit(job, lambda job: as_run(job.results[0]))

    def get_workflow_run(self, run_id: str) -> WorkflowRun | None:
        """The run, or None."""
        found = self._runs("run_id = %(run_id)s", {"run_id": encode(Check.text(run_id, "run_id"))}, "run_id", None)
        return found[0] if found else None

    def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        """The queued and started runs, oldest first."""
        return self._runs_of(workflow, f" AND {_ACTIVE}", _order(backwards=False, is_active=True))

    def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        """All runs, newest first."""
        return self._runs_of(workflow, "", _order(backwards=True, is_active=False))

    def _runs_of(self, workflow: str | None, condition: str, order: str) -> list[WorkflowRun]:
        wanted = encode(Check.optional_text(workflow, "workflow"))
        of_workflow = "true" if wanted is None else "workflow = %(workflow)s"
        return self._runs(of_workflow + condition, {"workflow": wanted}, order, None)

    def query_workflow_runs(
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
        """The runs that match, by (timestamp, run_id); bounds are on the run's timestamp, both inclusive.

        `workflow` and `status` take one value or a collection. `after` is the last run of the previous page.
        """
        conditions, parameters = ["true"], dict[str, Any]()
        workflows, wanted = encode_all(Check.texts(workflow, "workflow")), Check.statuses(status)
        if workflows is not None:
            conditions.append("workflow = ANY(%(workflow)s)")
            parameters["workflow"] = workflows
        if wanted is not None:
            conditions.append("status = ANY(%(status)s)")
            parameters["status"] = [str(item) for item in wanted]
        is_active = wanted is not None and all(item.is_active for item in wanted)
        if is_active:
            conditions.append(_ACTIVE)
        for name, value, operator in (
            ("since", Check.optional_time(since, "since"), ">="),
            ("until", Check.optional_time(until, "until"), "<="),
        ):
            if value is not None:
                conditions.append(f"timestamp {operator} %({name})s")
                parameters[name] = value
        most, backwards = Check.optional_count(limit, "limit"), Check.flag(descending, "descending")
        if after is not None:
            after, _ = Check.run(after, "after")
            conditions.append(f"(timestamp, run_id) {'<' if backwards else '>'} (%(after)s, %(after_id)s)")
            # What the index can begin at.
            begin = "<=" if backwards else ">="
            of_index = ("timestamp", "%(after)s")
            if not is_active:
                of_index = ("(timestamp, left(run_id, 512))", "(%(after)s, left(%(after_id)s, 512))")
            conditions.append(f" {begin} ".join(of_index))
            parameters |= {"after": after.timestamp, "after_id": encode(after.run_id)}
        return self._runs(" AND ".join(conditions), parameters, _order(backwards=backwards, is_active=is_active), most)

    def iter_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> Pages[WorkflowRun]:
        """The runs of `query_workflow_runs`, page by page, any number of them in constant memory."""
        most = Check.optional_count(limit, "limit")

        def pages(last: WorkflowRun | None, left: int | None) -> Iterator[list[WorkflowRun]]:
            last = last or after
            while left != 0:
                size = _PAGE_RUNS if left is None else min(left, _PAGE_RUNS)
                page = self.query_workflow_runs(
                    workflow=workflow, status=status, since=since, until=until, after=last, limit=size,
                    descending=descending,
                )  # fmt: skip
                yield page
                if len(page) < size:
                    return
                last = page[-1]
                left = None if left is None else left - len(page)

        # Wrong arguments are told by the call and not by the first step.
        self.query_workflow_runs(
            workflow=workflow, status=status, since=since, until=until, after=after, limit=0, descending=descending
        )
        return Pages(pages, self._connections.check, most)

    def count_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
    ) -> dict[WorkflowRunStatus, int]:
        """How many runs are in each state."""
        wanted = encode_all(Check.texts(workflow, "workflow"))
        statuses = Check.statuses(status)
        states = list(WorkflowRunStatus) if statuses is None else statuses

        def read(session: Session) -> list[tuple[Any, ...]]:
            return session.execute(
                f"SELECT status, count(*) FROM {self._schema}.workflow_runs "
                "WHERE (%(workflow)s::text[] IS NULL OR workflow = ANY(%(workflow)s)) AND status = ANY(%(status)s) "
                "GROUP BY status",
                {"workflow": wanted, "status": [str(item) for item in states]},
            ).fetchall()

        return {WorkflowRunStatus(name): count for name, count in self._connections.read(read)}

    def delete_workflow_runs(self, *, before: Timestamp, workflow: str | Collection[str] | None = None) -> int:
        """Delete the runs that are not active and took their state before; returns how many. Their rows stay."""
        job = self._job(None)
        job.change({
            "op": "delete_runs",
            "before": Check.time(before, "before"),
            "workflow": encode_all(Check.texts(workflow, "workflow")),
        })  # fmt: skip
        return self._commit(job, lambda job: int(job.results[0]))

    def _runs(self, condition: str, parameters: dict[str, Any], order: str, limit: int | None) -> list[WorkflowRun]:
        self._connections.check()
        if limit == 0:
            return []
        statement = f"SELECT {_COLUMNS} FROM {self._schema}.workflow_runs WHERE {condition} ORDER BY {order}"
        if limit is not None:
            statement += f" LIMIT {limit}"
        rows = self._connections.read(lambda session: session.execute(statement.encode(), parameters).fetchall())
        return [_read(row) for row in rows]
