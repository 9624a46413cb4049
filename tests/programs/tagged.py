"""Rows and blobs that follow from their tag: a writer and a number."""

from __future__ import annotations

import hashlib

DAY_MS = 86_400_000
DAYS = 11
NOW = 400 * DAY_MS
"""Late enough that every row is to be archived."""
BIG = 1_500_000
"""Bytes of the payload of a row that a checkpoint soon follows."""
SIZES = (0, 1, 100, 4096, 5000, 70_000, 300_000)
NewRow = tuple[str, str, str | None, str, int]


def row_of(writer: str, number: int) -> NewRow:
    """The row with this tag."""
    tag = f"{writer}.{number}"
    digest = hashlib.sha256(tag.encode())
    noise = digest.digest()
    ref_id = (None, "ref-1", "ref-2", f"ref-{tag}")[noise[2] % 4]
    timestamp = (1 + noise[4] % DAYS) * DAY_MS + int.from_bytes(noise[5:9]) % DAY_MS
    payload = f"{tag}|" + digest.hexdigest() * (1 + noise[3] % 5)
    return (f"source-{noise[0] % 3}", f"type-{noise[1] % 3}", ref_id, payload, timestamp)


def big_row_of(writer: str, number: int) -> NewRow:
    source, row_type, ref_id, payload, timestamp = row_of(writer, number)
    return (source, row_type, ref_id, payload.ljust(BIG, "#"), timestamp)


def blob_of(writer: str, number: int) -> bytes:
    """The blob with this tag."""
    tag = f"{writer}.{number}".encode()
    size = SIZES[hashlib.sha256(tag).digest()[0] % len(SIZES)]
    return tag + (hashlib.sha256(tag).digest() * (1 + size // 32))[:size]
