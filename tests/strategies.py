"""What hypothesis draws for several test files: the kinds of rows, and options to read them by."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SOURCES = st.sampled_from(["workflow", "workflow", "system", ""])
TYPES = st.sampled_from(["thread_workflow_message", "thread_command_event", "started", "tick"])


def query_options(
    *,
    refs: st.SearchStrategy[str | None],
    timestamps: st.SearchStrategy[int],
    greatest_id: int,
    limit: int,
    sources: st.SearchStrategy[str] = SOURCES,
) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the options of `query`; `greatest_id` and `limit`: the most that is drawn."""
    ids = st.integers(-1, greatest_id)
    return st.fixed_dictionaries(
        {},
        optional={
            "source": sources,
            "type": TYPES,
            "ref_id": refs,
            "since": timestamps,
            "until": timestamps,
            "after_id": ids,
            "before_id": ids,
            "limit": st.integers(0, limit),
            "descending": st.booleans(),
        },
    )
