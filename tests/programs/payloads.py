"""Programs that read payloads under conditions that may end the process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import nerve_store as ns
from programs import say


def drop_nested_lists(*, levels: int, stack_kib: int) -> None:
    """Plain Python: what the interpreter itself needs of the stack to let go of nested objects."""

    def work() -> None:
        nested: list[object] = []
        for _ in range(levels):
            nested = [nested]

    on_a_small_stack(work, stack_kib)


def on_a_small_stack(work: Callable[[], None], stack_kib: int) -> None:
    threading.stack_size(stack_kib * 1024)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def read_on_a_small_stack(*, path: str, opening: str, closing: str, levels: int, stack_kib: int) -> None:
    """Read nested payloads in every way there is, on a thread with a stack of `stack_kib` KiB."""
    nested = opening * levels + "1" + closing * levels
    payloads = [
        f'{{"role":"coder","content":"deep","type":"t","meta":{nested}}}',
        f'{{"triggerPayload":{{"deep":{nested}}}}}',
    ]
    said: dict[str, int] = {}

    def work() -> None:
        with ns.Store(path) as store:
            logs = store.logs
            for payload in payloads:
                for row_type in ("started", "thread_workflow_message", "thread_command_event"):
                    logs.append("workflow", row_type, "run-1", payload, 0)
            said["messages"] = len(logs.get_thread_messages("run-1"))
            said["events"] = len(logs.get_thread_events("run-1"))
            said["rounds"] = len(logs.get_thread_rounds("run-1", limit=100))
            said["round_count"] = logs.get_thread_round_count("run-1")
            said["trigger"] = logs.get_trigger_payload("run-1") is not None
            said["json"] = len([entry.json() for entry in logs.query(type="started")])
            logs.archive_logs()
            said["archived"] = len(logs.get_thread_messages("run-1"))
            said["archived_rounds"] = len(logs.get_thread_rounds("run-1", limit=100))
            assert logs.verify().ok
            logs.reindex()
            said["reindexed"] = logs.get_thread_round_count("run-1")

    on_a_small_stack(work, stack_kib)
    say(said)
