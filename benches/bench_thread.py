"""Reading the thread of one run of a million rows, beside the predecessor's statements."""

from __future__ import annotations

import json
from typing import Any

import nerve_store as ns
from figures import Target
from peers import MESSAGES, NEWEST_ROUNDS, ROUND_COUNT, PeerLog, on_each
from turns import Compare
from workload import THE_RUN

LIMIT = 20


def bench_messages(large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare) -> None:
    def ours(_: None) -> list[ns.ThreadMessage]:
        return large_store.get_thread_messages(THE_RUN)

    def peer(log: PeerLog, _: None) -> list[Any]:
        return [json.loads(row[4]) for row in log.fetch(MESSAGES, [THE_RUN])]

    peers = on_each(large_peers, peer)
    messages = ours(None)
    assert messages
    assert all(contents(run(None)) == [one.content for one in messages] for run in peers.values())
    compare(
        f"get_thread_messages: {len(messages):,} messages",
        ours=ours,
        peers=peers,
        work=lambda: None,
        rounds=20,
        target=Target(bound=10),
    )


def bench_rounds(large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare) -> None:
    def ours(_: None) -> list[ns.ThreadRound]:
        return large_store.get_thread_rounds(THE_RUN, limit=LIMIT)

    def peer(log: PeerLog, _: None) -> list[Any]:
        rows = log.fetch(NEWEST_ROUNDS, [THE_RUN, LIMIT])
        return [(number, log_id, timestamp, json.loads(payload)) for number, log_id, timestamp, payload in rows]

    peers = on_each(large_peers, peer)
    rounds = ours(None)
    assert len(rounds) == LIMIT
    for run in peers.values():
        assert [row[:3] for row in run(None)] == [(one.round, one.log_id, one.timestamp) for one in rounds]
    compare(
        f"get_thread_rounds(limit={LIMIT}) there",
        ours=ours,
        peers=peers,
        work=lambda: None,
        rounds=20,
        target=Target(bound=20),
    )


def bench_round_count(large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare) -> None:
    def ours(_: None) -> int:
        return large_store.get_thread_round_count(THE_RUN)

    def peer(log: PeerLog, _: None) -> int:
        return int(log.fetch(ROUND_COUNT, [THE_RUN])[0][0])

    peers = on_each(large_peers, peer)
    assert all(run(None) == ours(None) for run in peers.values())
    compare(
        "get_thread_round_count there",
        ours=ours,
        peers=peers,
        work=lambda: None,
        rounds=20,
        target=Target(bound=50),
    )


def contents(messages: list[Any]) -> list[str]:
    return [message["content"] for message in messages]
