"""Object stores (S3, Google Cloud Storage, Azure): blobs there, with the methods, records and errors of `BlobStore`.

Needs the extra `s3` (obstore).
"""

try:
    import obstore as _obstore
except ImportError as error:
    raise ImportError("object stores need obstore: pip install 'nerve-store[s3]'") from error

from nerve_store.remote.aio import AsyncObjectBlobStore
from nerve_store.remote.blobs.store import ObjectBlobStore

__all__ = ["AsyncObjectBlobStore", "ObjectBlobStore"]


del _obstore
