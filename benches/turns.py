"""Timing in turns: each round times ours and every peer once, on fresh work, and who goes first moves on."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pytest_benchmark.fixture import BenchmarkFixture

from figures import NO_TARGET, Figure, Target

T = TypeVar("T")

APSW = "apsw"
"""The names of peers that have their own column begin with it."""


@dataclass(frozen=True)
class Seconds:
    """What is returned by one that has measured itself."""

    value: float


@dataclass
class Timed(Generic[T]):
    """Ours or a peer, and its times."""

    run: Callable[[T], object]
    times: list[float] = field(default_factory=list)

    def time(self, work: T) -> None:
        """Run a round of it."""
        start = time.perf_counter()
        measured = self.run(work)
        elapsed = time.perf_counter() - start
        self.times.append(measured.value if isinstance(measured, Seconds) else elapsed)


def repeated(run: Callable[[T], object], calls: int) -> Callable[[T], object]:
    """So many calls in a row."""
    if calls == 1:
        return run

    def run_all(work: T) -> None:
        for _ in range(calls):
            run(work)

    return run_all


class Compare(Protocol):
    """The fixture `compare`."""

    def __call__(
        self,
        case: str,
        *,
        ours: Callable[[T], object],
        peers: Mapping[str, Callable[[T], object]],
        work: Callable[[], T],
        rounds: int,
        calls: int = ...,
        target: Target = ...,
        rows: int = 0,
    ) -> Figure:
        """Time `ours` and `peers` in turns, `rounds` times, each time on work that `work` made beforehand.

        The best peer counts; those named apsw stand in a column of their own. With `rows`, how many a round has, the
        table shows rows a second. The first round of each warms up and does not count.

        A round is `calls` calls in a row on the same work, whose mean counts: what takes microseconds would be lost in
        one call that follows the others' turns.
        """


def compare_in_turns(
    benchmark: BenchmarkFixture,
    case: str,
    *,
    ours: Callable[[T], object],
    peers: Mapping[str, Callable[[T], object]],
    work: Callable[[], T],
    rounds: int,
    calls: int = 1,
    target: Target = NO_TARGET,
    rows: int = 0,
) -> Figure:
    """See `Compare`."""
    mine = Timed(repeated(ours, calls))
    timed = {name: Timed(repeated(run, calls)) for name, run in peers.items()}
    order = list(timed.values())
    turn = 0

    def prepared() -> T:
        made = work()
        gc.collect()
        return made

    def before() -> tuple[tuple[T], dict[str, object]]:
        for peer in order[: turn % (len(order) + 1)]:
            peer.time(prepared())
        return (prepared(),), {}

    def after(_: T) -> None:
        nonlocal turn
        for peer in order[turn % (len(order) + 1) :]:
            peer.time(prepared())
        turn += 1

    pedantic: Callable[..., object] = benchmark.pedantic
    pedantic(mine.time, setup=before, teardown=after, rounds=rounds, warmup_rounds=1)
    assert benchmark.stats is not None, "give --benchmark-enable"
    assert all(len(one.times) == rounds + 1 for one in (mine, *order))

    medians = {name: statistics.median(peer.times[1:]) / calls for name, peer in timed.items()}
    best = min((name for name in medians if not name.startswith(APSW)), key=lambda name: medians[name], default="")
    figure = Figure(
        case=case,
        unit="s",
        ours=statistics.median(mine.times[1:]) / calls,
        target=target,
        peer=medians.get(best),
        peer_name=best,
        apsw=min((seconds for name, seconds in medians.items() if name.startswith(APSW)), default=None),
        rows=rows,
    )
    benchmark.extra_info.update(case=case, value=figure.value, peers=medians, rows=rows)
    return figure
