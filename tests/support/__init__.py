"""What most tests share; what a few need stands in the modules of this package.

`calls`: every public call of a `LogStore`, and what refuses or stops one. `foreign`: another program's SQLite. `rows`:
rows, and the union of database and archive. `processes`: programs in a process of their own. `faults`: sweeps that kill
or fail a program at each of its system calls. `strace`: what a program asked of the kernel, with the paths. `disks`:
file systems that are full, read-only, or lose their power. `ledger`: what a program that is cut short has acknowledged,
and whether it is there; `power`: power cuts; `replay`: images of what a power cut can leave; `damage`: damaged files,
and what a store says; `counts`: the figures of the sweeps. `architecture`: which source file uses which. `archive`,
`blobs`, `runs`, `cli`, `event_loops`, `model`: of one subject.
"""

from support.calls import (
    LOG_STORE_CALLS,
    LOG_STORE_READS,
    LOG_STORE_WRITES,
    Stop,
    StopAfter,
    closed_store,
    is_one_line,
    public_methods,
    refused,
)
from support.foreign import (
    INSERT_ROW,
    INSERT_ROW_WITH_ID,
    INSERT_RUN,
    UPSTREAM_SCHEMA,
    foreign_many,
    foreign_script,
    foreign_sql,
)
from support.processes import (
    KILLED,
    TESTS,
    UPSTREAM,
    acknowledged_ids,
    child_command,
    child_environment,
    run_child,
    start_child,
)
from support.rows import (
    Union,
    as_json,
    as_message,
    as_round,
    as_row,
    as_rows,
    as_run,
    assert_union,
    database_rows,
    day_files,
    read_day_file,
    read_union,
    tree,
    without_sidecars,
)

__all__ = [
    "INSERT_ROW",
    "INSERT_ROW_WITH_ID",
    "INSERT_RUN",
    "KILLED",
    "LOG_STORE_CALLS",
    "LOG_STORE_READS",
    "LOG_STORE_WRITES",
    "TESTS",
    "UPSTREAM",
    "UPSTREAM_SCHEMA",
    "Stop",
    "StopAfter",
    "Union",
    "acknowledged_ids",
    "as_json",
    "as_message",
    "as_round",
    "as_row",
    "as_rows",
    "as_run",
    "assert_union",
    "child_command",
    "child_environment",
    "closed_store",
    "database_rows",
    "day_files",
    "foreign_many",
    "foreign_script",
    "foreign_sql",
    "is_one_line",
    "public_methods",
    "read_day_file",
    "read_union",
    "refused",
    "run_child",
    "start_child",
    "tree",
    "without_sidecars",
]
