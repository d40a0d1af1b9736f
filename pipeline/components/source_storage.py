"""Finding and opening source files: local ones directly, any other through Apache Beam.

A command that only looks something up in local tables starts in a fraction of a second, because nothing here imports
Beam before a remote path asks for it.
"""

from __future__ import annotations

import glob
import gzip
import os
from typing import Any, NamedTuple


class DataQualityError(ValueError):
    """Source data that must not be learned from. The message says what is wrong where, and what was expected."""


class StoredFile(NamedTuple):
    """A file of any file system."""

    path: str
    """Where it is."""
    size_in_bytes: int
    """How large it is."""
    modified: float
    """When it was written, seconds since 1970-01-01 UTC; 0 where the file system does not tell."""


def match_files(pattern: str) -> list[StoredFile]:
    """Lists the files that a glob matches, in order of their paths."""
    if _is_local(pattern):
        paths = [path for path in glob.glob(pattern) if os.path.isfile(path)]
        found = ((path, os.stat(path)) for path in sorted(paths))
        return [StoredFile(path, stat.st_size, stat.st_mtime) for path, stat in found]
    from apache_beam.io.filesystems import FileSystems

    matches = FileSystems.match([pattern])[0].metadata_list
    return sorted(
        StoredFile(match.path, match.size_in_bytes, match.last_updated_in_seconds or 0.0) for match in matches
    )


def open_file(path: str, decompress: bool = True) -> Any:
    """Opens a file for reading bytes; a name in `.gz` is decompressed unless told otherwise."""
    if _is_local(path):
        return gzip.open(path, "rb") if decompress and path.endswith(".gz") else open(path, "rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.open(
        path, compression_type=CompressionTypes.AUTO if decompress else CompressionTypes.UNCOMPRESSED
    )


def _is_local(path: str) -> bool:
    return "://" not in path
