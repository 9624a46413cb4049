"""Blobs in an object store: the parts of `ObjectBlobStore`."""
