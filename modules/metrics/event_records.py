"""Metrics that are no sums: what of an event is kept, as bytes, until all of a slice are there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from modules.features import TIMESTAMP, USER_ID
from modules.metrics.model_outputs import read_features
from modules.metrics.user_sums import read_user


class RecordCombiner(beam.CombineFn):
    """Collects records of bytes; `extract_output` is left to the metric."""

    def create_accumulator(self) -> bytearray:
        """Returns no record."""
        return bytearray()

    def add_input(self, accumulator: bytearray, element: bytes) -> bytearray:
        """Adds one record."""
        accumulator += element
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[bytearray]) -> bytearray:
        """Puts the records together."""
        result = bytearray()
        for accumulator in accumulators:
            result += accumulator
        return result


def user_digest(extracts: dict[str, Any]) -> bytes:
    """Returns a hash of an example's user, 8 bytes.

    Raises:
      ValueError: if the example does not hold one user.
    """
    return hashlib.blake2b(read_user(extracts, USER_ID), digest_size=8).digest()


def event_time(extracts: dict[str, Any]) -> int:
    """Returns when an example's event happened, seconds since 1970.

    Raises:
      ValueError: if the example holds no time.
    """
    times = read_features(extracts, TIMESTAMP)
    if not times.size:
        raise ValueError(f"feature {TIMESTAMP!r} must hold a time in every example; received none")
    return int(times[0])
