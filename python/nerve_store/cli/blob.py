"""`nerve-store blob`: content-addressed bytes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from nerve_store import BlobNotFoundError, BlobStore, normalize_blob_hash
from nerve_store.cli.arguments import add_command
from nerve_store.cli.output import print_json, print_line
from nerve_store.cli.problem import Problem, report
from nerve_store.cli.stores import blob_root, open_blobs
from nerve_store.cli.text import escape

__all__ = ["add_arguments"]

_STANDARD_STREAM = "-"


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subcommands = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    put = add_command(subcommands, "put", common, "store files and print their hashes")
    put.set_defaults(run=_put)
    put.add_argument("files", metavar="FILE", nargs="+", help="'-' is standard input")
    get = add_command(subcommands, "get", common, "write a blob's bytes to standard output or a file")
    get.set_defaults(run=_get)
    get.add_argument("hash", metavar="HASH")
    get.add_argument("--output", metavar="FILE", default=_STANDARD_STREAM, help="write there; '-' is standard output")
    add_command(subcommands, "ls", common, "list the blobs with their sizes").set_defaults(run=_list)
    remove = add_command(subcommands, "rm", common, "remove blobs")
    remove.set_defaults(run=_remove)
    remove.add_argument("hashes", metavar="HASH", nargs="+")


def _put(arguments: argparse.Namespace) -> int:
    blobs = BlobStore(blob_root(arguments.data))
    stored: list[dict[str, object]] = []
    problems = 0
    for file in arguments.files:
        try:
            content = _read(file)
        except OSError as error:
            report(error)
            problems += 1
            continue
        digest = blobs.write(content)
        stored.append({"hash": digest, "size": len(content), "file": file})
        if not arguments.json:
            print_line(f"{digest}  {escape(file)}")
    if arguments.json:
        print_json(stored)
    return 1 if problems else 0


def _read(file: str) -> bytes:
    if file == _STANDARD_STREAM:
        return sys.stdin.buffer.read()
    with open(file, "rb") as stream:
        return stream.read()


def _get(arguments: argparse.Namespace) -> int:
    digest = _require_hash(arguments.hash)
    content = open_blobs(arguments.data).read(digest)
    if content is None:
        raise Problem(f"there is no blob {digest} in {blob_root(arguments.data)!r}")
    if arguments.output != _STANDARD_STREAM:
        with open(arguments.output, "wb") as stream:
            stream.write(content)
        if arguments.json:
            print_json({"hash": digest, "size": len(content), "file": arguments.output})
        return 0
    if arguments.json:
        arguments.parser.error("--json needs --output: standard output takes the bytes")
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return 0


def _list(arguments: argparse.Namespace) -> int:
    listed = _sizes(open_blobs(arguments.data))
    if arguments.json:
        print_json([{"hash": digest, "size": size} for digest, size in listed])
        return 0
    for digest, size in listed:
        print_line(f"{digest}  {size:>12}")
    return 0


def _sizes(blobs: BlobStore) -> Iterator[tuple[str, int]]:
    for digest in blobs:
        try:
            yield digest, blobs.size(digest)
        except BlobNotFoundError:
            continue  # removed since its name came up


def _remove(arguments: argparse.Namespace) -> int:
    blobs = open_blobs(arguments.data, writable=True)
    removed: list[dict[str, object]] = []
    problems = 0
    for text in arguments.hashes:
        digest = normalize_blob_hash(text)
        was_there = digest is not None and blobs.delete(digest)
        removed.append({"hash": text if digest is None else digest, "removed": was_there})
        if not was_there:
            problems += 1
            what = f"{text!r} is not a sha256 hash" if digest is None else f"there is no blob {digest}"
            report(what)
        elif not arguments.json:
            print_line(f"removed {digest}")
    if arguments.json:
        print_json(removed)
    return 1 if problems else 0


def _require_hash(text: str) -> str:
    digest = normalize_blob_hash(text)
    if digest is None:
        raise Problem(f"{text!r} is not a sha256 hash: 64 hexadecimal digits")
    return digest
