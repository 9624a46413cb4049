"""`nerve-store export`: rows to a file, in the format that its name says."""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from nerve_store.cli.arguments import since, until
from nerve_store.cli.output import ENTRY_FIELDS, print_json, print_text
from nerve_store.cli.problem import Problem
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import format_bytes, format_count
from nerve_store.protocols import Log

__all__ = ["add_arguments"]

_PREFIX = ".export-"
"""Of a file that is not whole yet."""


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the file and the filters."""
    parser.set_defaults(run=_run, usage_error=parser.error)
    parser.add_argument("file", metavar="FILE", help=f"a file that is not there yet: {', '.join(_WRITERS)}")
    parser.add_argument("--source", metavar="TEXT", help="rows of this source")
    parser.add_argument("--type", metavar="TEXT", help="rows of this type")
    parser.add_argument("--ref-id", metavar="TEXT", help="rows of this run, or whatever the row refers to")
    parser.add_argument("--since", metavar="TIME", type=since, help="this time or later: 2h, today, ISO 8601")
    parser.add_argument("--until", metavar="TIME", type=until, help="this time or earlier; a bare date: its end")
    parser.add_argument("--live", action="store_true", help="leave out rows that left the database for the archive")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def _run(arguments: argparse.Namespace) -> int:
    suffix = os.path.splitext(arguments.file)[1].lower()
    write = _WRITERS.get(suffix)
    if write is None:
        arguments.usage_error(f"FILE ends with one of {', '.join(_WRITERS)}, and not with {suffix!r}")
        raise AssertionError
    filters = {name: getattr(arguments, name) for name in ("source", "type", "ref_id", "since", "until")}
    filters["archived"] = not arguments.live
    if os.path.lexists(arguments.file) and not arguments.force:
        raise Problem(f"{arguments.file!r} is there already; --force replaces it")
    with open_logs(arguments.place) as store, _staged(arguments.file) as stream:
        count = write(store, filters, stream)
    size = os.stat(arguments.file).st_size
    if arguments.json:
        print_json({"path": os.path.abspath(arguments.file), "row_count": count, "size": size})
    else:
        print_text(f"wrote {format_count(count, 'row')} to {arguments.file} ({format_bytes(size)})")
    return 0


@contextmanager
def _staged(path: str) -> Generator[IO[bytes]]:
    """A file that takes the place of `path` when it is whole; what is cut short leaves nothing.

    Where the system has files without names, that holds for a kill as well.
    """
    directory = os.path.dirname(os.path.abspath(path))
    descriptor, name = _created(directory)
    with os.fdopen(descriptor, "w+b") as stream:
        try:
            yield stream
            stream.flush()
            os.fsync(descriptor)
            if name is None:
                name = os.path.join(directory, f"{_PREFIX}{secrets.token_hex(8)}")
                # With a directory to start from, which an absolute path does not need, the link is followed.
                os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor)
            os.replace(name, path)
        except BaseException:
            if name is not None:
                with suppress(FileNotFoundError):
                    os.unlink(name)
            raise


def _created(directory: str) -> tuple[int, str | None]:
    """A new file, and its name; None: it has none, and goes with the process."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):
            return os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600), None
    return tempfile.mkstemp(dir=directory, prefix=_PREFIX)


def _jsonl(store: Log, filters: dict[str, Any], stream: IO[bytes]) -> int:
    count = 0
    for entry in store.iter(**filters):
        line = json.dumps({name: getattr(entry, name) for name in ENTRY_FIELDS}, ensure_ascii=False)
        stream.write(line.encode() + b"\n")
        count += 1
    return count


def _csv(store: Log, filters: dict[str, Any], stream: IO[bytes]) -> int:
    import io

    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ENTRY_FIELDS)
    count = 0
    for entry in store.iter(**filters):
        writer.writerow([getattr(entry, name) for name in ENTRY_FIELDS])
        count += 1
    text.flush()
    text.detach()
    return count


def _batches(store: Log, filters: dict[str, Any], pyarrow: Any) -> Iterator[Any]:
    """The schema, then record batches of the rows: texts as they are, which every reader takes."""
    schema = pyarrow.schema(
        [
            ("id", pyarrow.int64()),
            ("source", pyarrow.string()),
            ("type", pyarrow.string()),
            ("ref_id", pyarrow.string()),
            ("payload", pyarrow.string()),
            ("timestamp", pyarrow.timestamp("ms", tz="UTC")),
        ]
    )
    yield schema
    for batch in pyarrow.RecordBatchReader.from_stream(store.arrow(**filters)):
        yield pyarrow.record_batch([batch.column(field.name).cast(field.type) for field in schema], schema=schema)


def _arrow(store: Log, filters: dict[str, Any], stream: IO[bytes]) -> int:
    pyarrow = _pyarrow("pyarrow")
    batches = _batches(store, filters, pyarrow)
    count = 0
    with pyarrow.ipc.new_file(stream, next(batches)) as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _parquet(store: Log, filters: dict[str, Any], stream: IO[bytes]) -> int:
    pyarrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    batches = _batches(store, filters, pyarrow)
    count = 0
    with parquet.ParquetWriter(stream, next(batches), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _pyarrow(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise Problem("this format needs pyarrow: pip install nerve-store[query]") from None


_WRITERS: dict[str, Callable[[Log, dict[str, Any], IO[bytes]], int]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".arrow": _arrow,
    ".parquet": _parquet,
}
