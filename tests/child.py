"""Runs one of the `programs` in this process: `child.py PROGRAM ARGUMENTS`, with the arguments as a JSON object."""

from __future__ import annotations

import json
import sys

from programs import (
    backups,
    blobs,
    campaign,
    care,
    claims,
    commits,
    families,
    forked_work,
    forks,
    logs,
    payloads,
    reading,
    soak,
    thread_starts,
    vacuum,
)

PROGRAMS = {
    program.__name__: program
    for program in (
        logs.append,
        logs.runs,
        logs.archive,
        logs.restore,
        logs.reindex,
        logs.hold_archive,
        logs.hold_archived,
        logs.hold_lock,
        logs.hold_snapshot,
        logs.outcomes,
        logs.memory,
        logs.deep_payload,
        payloads.drop_nested_lists,
        payloads.read_on_a_small_stack,
        reading.read_only,
        reading.command,
        reading.leave_open,
        reading.read_beside_a_writer,
        vacuum.vacuum_memory,
        vacuum.vacuum_watched,
        forks.call_forked,
        forks.drop_forked,
        forks.inherited_streams,
        families.family,
        families.inherited,
        families.open_files,
        forked_work.fork_in_progress,
        forked_work.fork_in_loop,
        forked_work.fork_with_streams,
        forked_work.killed_archiver,
        blobs.write_each,
        blobs.write_in_other_ways,
        thread_starts.raise_as_a_thread_begins,
        backups.back_up,
        backups.write_all,
        campaign.work,
        care.look_after,
        care.append_as,
        care.salvage_as,
        soak.soak,
        commits.leave_commits_in_the_log,
        campaign.work_among_others,
        campaign.work_in_turn,
        campaign.follow,
        claims.append_keyed,
        claims.claim_all,
        claims.batches,
    )
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](**json.loads(sys.argv[2]))
