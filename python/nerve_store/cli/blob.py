"""`nerve-store blob`: content-addressed bytes."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from nerve_store import BlobNotFoundError, BlobStore, NerveStoreError
from nerve_store.cli.arguments import add_command
from nerve_store.cli.blob_care import add_care_commands
from nerve_store.cli.hashes import blob_entries, require_hash
from nerve_store.cli.output import Column, print_json, print_line, print_table
from nerve_store.cli.problem import Problem, report, standard_input
from nerve_store.cli.progress import Progress, progress_bar
from nerve_store.cli.stores import open_blobs
from nerve_store.cli.text import escape, format_timestamp

if TYPE_CHECKING:
    from nerve_store.remote import ObjectBlobStore

__all__ = ["add_arguments"]

_STANDARD_STREAM = "-"
_PIECE_BYTES = 1024 * 1024
_SNIFFED_BYTES = 4096


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subcommands = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    put = add_command(subcommands, "put", common, "store files and print their hashes", example="blob put report.pdf")
    put.set_defaults(run=_put)
    put.add_argument("files", metavar="FILE", nargs="+", help="'-' is standard input")
    get = add_command(
        subcommands,
        "get",
        common,
        "write a blob's bytes to standard output or a file",
        example="blob get 3f2a9c > report.pdf",
    )
    get.set_defaults(run=_get)
    get.add_argument("hash", metavar="HASH", help="64 digits, or the first 6 or more of them")
    get.add_argument("--output", metavar="FILE", default=_STANDARD_STREAM, help="write there; '-' is standard output")
    get.add_argument("--force", action="store_true", help="write bytes that are no text to a terminal, too")
    listing = add_command(subcommands, "ls", common, "list the blobs with their sizes", example="blob ls --long")
    listing.set_defaults(run=_list)
    listing.add_argument("--long", action="store_true", help="with the time of their last write, and their paths")
    remove = add_command(subcommands, "rm", common, "remove blobs", example="blob rm 3f2a9c")
    remove.set_defaults(run=_remove)
    remove.add_argument("hashes", metavar="HASH", nargs="+", help="64 digits, or the first 6 or more of them")
    add_care_commands(subcommands, common)


def _put(arguments: argparse.Namespace) -> int:
    blobs = open_blobs(arguments.place, writable=True, create=True)
    stored: list[dict[str, object]] = []
    problems = 0
    total = sum(_size(file) for file in arguments.files)
    done = 0
    with progress_bar("storing bytes") as progress:
        for file in arguments.files:
            try:
                digest, size = _store(blobs, file, progress, done, total)
            except NerveStoreError:
                raise
            except OSError as error:
                report(error)
                problems += 1
                continue
            done += size
            stored.append({"hash": digest, "size": size, "file": file})
            if not arguments.json:
                print_line(f"{digest}  {escape(file)}")
    if arguments.json:
        print_json(stored)
    return 1 if problems else 0


def _size(file: str) -> int:
    """What it looks like beforehand; a pipe has none."""
    with suppress(OSError):
        return 0 if file == _STANDARD_STREAM else os.stat(file).st_size
    return 0


def _store(
    blobs: BlobStore | ObjectBlobStore, file: str, progress: Progress | None, before: int, total: int
) -> tuple[str, int]:
    """The hash and the size."""
    if file == _STANDARD_STREAM:
        source = _Watched(standard_input().buffer, progress, before, total)
        return blobs.write_file(source), source.size
    with open(file, "rb", buffering=0) as stream:
        source = _Watched(stream, progress, before, total)
        return blobs.write_file(source), source.size


class _Watched:
    """Counts what is read from a file."""

    def __init__(self, stream: BinaryIO, progress: Progress | None, before: int, total: int) -> None:
        self._stream = stream
        self._progress = progress
        self._before = before
        self._total = total
        self.size = 0

    def read(self, size: int) -> bytes:
        """What the file has next."""
        piece = self._stream.read(size)
        self.size += len(piece)
        if self._progress is not None:
            done = self._before + self.size
            self._progress(done, max(done, self._total))
        return piece


def _get(arguments: argparse.Namespace) -> int:
    to_standard_output = arguments.output == _STANDARD_STREAM
    if to_standard_output and arguments.json:
        arguments.parser.error("--json needs --output: standard output takes the bytes")
    blobs = open_blobs(arguments.place)
    digest = require_hash(blobs, arguments.hash)
    try:
        stream = blobs.open(digest)
    except BlobNotFoundError:
        raise Problem(f"there is no blob {digest} in {blobs.root!r}") from None
    with stream:
        if to_standard_output:
            _print_bytes(stream, force=arguments.force)
            return 0
        size = _copy_to_file(stream, arguments.output)
    if arguments.json:
        print_json({"hash": digest, "size": size, "file": arguments.output})
    return 0


def _print_bytes(stream: BinaryIO, *, force: bool) -> None:
    sys.stdout.flush()
    piece = stream.read(_PIECE_BYTES)
    if sys.stdout.isatty() and not force and not _is_text(piece[:_SNIFFED_BYTES]):
        raise Problem("these bytes are no text and could upset the terminal: give --output FILE, a pipe, or --force")
    while piece:
        sys.stdout.buffer.write(piece)
        piece = stream.read(_PIECE_BYTES)
    sys.stdout.buffer.flush()


def _is_text(sample: bytes) -> bool:
    """Whether a terminal may show it: UTF-8, cut anywhere, without control characters but white space."""
    text = sample.decode("utf-8", "ignore")
    if len(sample) - len(text.encode()) > 3:
        return False
    return all(character.isprintable() or character in "\t\n\r" for character in text)


def _copy_to_file(stream: BinaryIO, path: str) -> int:
    """Nothing is put under the name before all bytes were verified."""
    if os.path.exists(path) and not os.path.isfile(path):
        size = 0
        with open(path, "wb") as target:  # a pipe, a device
            while piece := stream.read(_PIECE_BYTES):
                size += target.write(piece)
        return size
    path = os.path.realpath(path)
    staged = f"{path}.{os.getpid()}.part"
    try:
        with open(staged, "xb") as target:
            while piece := stream.read(_PIECE_BYTES):
                target.write(piece)
            size = target.tell()
        os.replace(staged, path)
    except BaseException as error:
        if not isinstance(error, FileExistsError):
            with suppress(OSError):
                os.unlink(staged)
        raise
    return size


def _list(arguments: argparse.Namespace) -> int:
    listed = blob_entries(open_blobs(arguments.place), long=arguments.long)
    if arguments.json:
        print_json(list(listed))
    elif arguments.long:
        columns = (Column("hash", least=10), Column("bytes", right=True), Column("written", least=10), Column("file"))
        cells = (
            (str(e["hash"]), str(e["size"]), format_timestamp(int(str(e["written"]))), str(e["path"])) for e in listed
        )
        print_table(columns, cells)
    else:
        for entry in listed:
            print_line(f"{entry['hash']}  {entry['size']:>12}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    blobs = open_blobs(arguments.place, writable=True)
    removed: list[dict[str, object]] = []
    problems = 0
    for text in arguments.hashes:
        try:
            digest = require_hash(blobs, text)
        except Problem as problem:
            removed.append({"hash": text, "removed": False})
            problems += 1
            report(problem)
            continue
        was_there = blobs.delete(digest)
        removed.append({"hash": digest, "removed": was_there})
        if not was_there:
            problems += 1
            report(f"there is no blob {digest}")
        elif not arguments.json:
            print_line(f"removed {digest}")
    if arguments.json:
        print_json(removed)
    return 1 if problems else 0
