"""Opens ML Metadata, without TensorFlow."""

from __future__ import annotations

import ml_metadata
from ml_metadata.proto import metadata_store_pb2


def open_metadata(path: str, writable: bool = False) -> ml_metadata.MetadataStore:
    """Opens an SQLite file of ML Metadata.

    Args:
      path: the file, which must exist.
      writable: whether it may be changed.

    Raises:
      RuntimeError: if it holds no metadata.
    """
    modes = metadata_store_pb2.SqliteMetadataSourceConfig
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = path
    config.sqlite.connection_mode = modes.READWRITE if writable else modes.READONLY
    return ml_metadata.MetadataStore(config)
