"""Blobs in object stores: the store's doubtful answers, its faults, and deleting beside writing.

What every blob store can do is in `contract/`.
"""
