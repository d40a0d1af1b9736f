"""TFRecord files without TensorFlow's runtime: frames to write, and reading up to where a file ends in the middle.

A record is its length (uint64), the masked CRC-32C of the length, its bytes, and their masked CRC-32C, all
little-endian (TensorFlow, `tensorflow/core/lib/io/record_writer.h`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

_MASK_DELTA = 0xA282EAD8
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size


class TornFileError(ValueError):
    """A file that does not end where a record does, or holds what is no record.

    Attributes:
      path: the file.
      whole_bytes: size of its whole records before that.
      reason: what is wrong there, in words.
    """

    def __init__(self, path: Path, whole_bytes: int, reason: str):
        super().__init__(f"{path}: {reason} at byte {whole_bytes}; the records before are whole")
        self.path = path
        self.whole_bytes = whole_bytes
        self.reason = reason


def frame(record: bytes) -> bytes:
    """Returns a record as it is written to a file."""
    length = _LENGTH.pack(len(record))
    return b"".join((length, _masked_checksum(length), record, _masked_checksum(record)))


def read_records(path: Path) -> Iterator[bytes]:
    """Yields a file's records, oldest first.

    Raises:
      TornFileError: after the last whole record, if the file does not end there.
      OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        whole_bytes = 0
        while header := file.read(_HEADER_BYTES):
            if len(header) < _HEADER_BYTES:
                raise TornFileError(path, whole_bytes, "a record's header is cut off")
            if header[_LENGTH.size :] != _masked_checksum(header[: _LENGTH.size]):
                raise TornFileError(path, whole_bytes, "a record's length is damaged")
            (length,) = _LENGTH.unpack_from(header)
            body = file.read(length + _CHECKSUM.size)
            if len(body) < length + _CHECKSUM.size:
                raise TornFileError(path, whole_bytes, "a record is cut off")
            record = body[:length]
            if body[length:] != _masked_checksum(record):
                raise TornFileError(path, whole_bytes, "a record is damaged")
            whole_bytes += _HEADER_BYTES + len(body)
            yield record


def _masked_checksum(data: bytes) -> bytes:
    checksum = google_crc32c.value(data)
    rotated = ((checksum >> 15) | (checksum << 17)) & 0xFFFFFFFF
    return _CHECKSUM.pack((rotated + _MASK_DELTA) & 0xFFFFFFFF)
