"""What every log and every blob store of nerve_store can do, whatever lies beneath: types for programs that take any.

The methods mean what `LogStore` and `BlobStore` document. A `LogStore` and a `PostgresLogStore` are a `Log`; the
asynchronous stores are an `AsyncLog`, in which `iter`, `follow`, `read_archive` and `batch` are not awaited.
"""

from nerve_store.protocols.aio import AsyncFollowing, AsyncLog
from nerve_store.protocols.batch import AsyncBatch, Batch
from nerve_store.protocols.blobs import AsyncBlobs, Blobs, BlobWriting
from nerve_store.protocols.log import Following, Log

__all__ = [
    "AsyncBatch",
    "AsyncBlobs",
    "AsyncFollowing",
    "AsyncLog",
    "Batch",
    "BlobWriting",
    "Blobs",
    "Following",
    "Log",
]
