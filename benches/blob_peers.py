"""What a user would write instead of the blob store: `hashlib` and `os`, written well.

Digest, exclusive temporary file, write, fsync where durable, rename, directory fsync where durable; what is there
already is read and hashed again before it is trusted.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

CHUNK = 1024 * 1024


class HashlibBlobs:
    """Blobs under `<root>/<2 hex>/<62 hex>`."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = str(root)
        self.durable = durable
        self._count = itertools.count()
        os.makedirs(root, exist_ok=True)

    def write(self, data: bytes) -> str:
        """Store bytes under their hash."""
        name = hashlib.sha256(data).hexdigest()
        shard = f"{self.root}/{name[:2]}"
        path = f"{shard}/{name[2:]}"
        if self._holds(path, name, len(data)):
            return name
        temporary = f"{self.root}/{name}.{os.getpid()}.{next(self._count)}.tmp"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                self._write_all(file, data)
                if self.durable:
                    os.fsync(file)
            finally:
                os.close(file)
            self._publish(temporary, shard, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return name

    def write_many(self, items: Iterable[bytes]) -> list[str]:
        """One after another: what the standard library offers."""
        return [self.write(item) for item in items]

    def write_file(self, source: Path) -> str:
        """Store a file in constant memory."""
        hasher = hashlib.sha256()
        temporary = f"{self.root}/{os.getpid()}.{next(self._count)}.tmp"
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        with open(source, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(view[:count])
                self._write_all(target, view[:count])
        if self.durable:
            os.fsync(target)
        os.close(target)
        name = hasher.hexdigest()
        shard = f"{self.root}/{name[:2]}"
        self._publish(temporary, shard, f"{shard}/{name[2:]}")
        return name

    def read(self, name: str) -> bytes:
        """Read and verify."""
        with open(f"{self.root}/{name[:2]}/{name[2:]}", "rb", buffering=0) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != name:
            raise ValueError(name)
        return data

    def verify(self) -> int:
        """Read and hash every blob; how many there are."""
        count = 0
        for shard in os.listdir(self.root):
            for name in os.listdir(f"{self.root}/{shard}"):
                with open(f"{self.root}/{shard}/{name}", "rb", buffering=0) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != shard + name:
                        raise ValueError(name)
                count += 1
        return count

    def _holds(self, path: str, name: str, size: int) -> bool:
        try:
            with open(path, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != size:
                    return False
                return hashlib.sha256(file.read()).hexdigest() == name
        except FileNotFoundError:
            return False

    def _publish(self, temporary: str, shard: str, path: str) -> None:
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            os.makedirs(shard, exist_ok=True)
            os.rename(temporary, path)
            if self.durable:
                self._sync_directory(self.root)
        if self.durable:
            self._sync_directory(shard)

    @staticmethod
    def _sync_directory(path: str) -> None:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @staticmethod
    def _write_all(file: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
