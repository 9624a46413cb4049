"""What an agent's tools print goes to the blob store; the log row carries its hash.

Run it with `python examples/agent_artifacts.py [DIRECTORY]`.
"""

import json
import os
import sys
import tempfile

import nerve_store as ns


def record_tool_call(store: ns.Store, run_id: str, tool: str, output: bytes) -> ns.LogEntry:
    """Store the output first, then the row that names it: a row never points at nothing."""
    digest = store.blobs.write(output)  # published and synced when this returns; equal outputs are stored once
    payload = json.dumps({"type": "tool_result", "tool": tool, "output": digest, "bytes": len(output)})
    return store.logs.append("workflow", "thread_command_event", run_id, payload)


def main(directory: str) -> None:
    with ns.Store(directory) as store:
        test_report = b"".join(b"test %d passed\n" % number for number in range(5_000))
        record_tool_call(store, "run-1", "pytest", test_report)
        record_tool_call(store, "run-1", "screenshot", bytes(range(256)) * 200)
        record_tool_call(store, "run-2", "pytest", test_report)

        for entry in store.logs.iter(type="thread_command_event"):
            event = entry.json()
            output = store.blobs.read(event["output"])  # the digest is checked: never wrong bytes
            assert output is not None
            print(f"{entry.ref_id} {event['tool']}: {len(output):,} bytes as {event['output'][:12]}")

        figures = store.blobs.stats()
        print(f"{figures.blob_count} blobs, {figures.size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(os.path.join(temporary, "data"))
