"""Joins the inputs of requests into those of one run, and splits the outputs.

Rules and texts are those of TensorFlow Serving's `batching_session.cc` and `batching_util.{h,cc}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import numpy as np

from pipeline.serving.errors import StatusError, invalid_argument

if TYPE_CHECKING:
    from pipeline.serving.server.config_files import BatchingParameters

_MAX_PADDED_DIMENSIONS = 6


def rows_of(values: Sequence[np.ndarray]) -> int:
    """Returns the size along dimension 0, which all inputs of a request share.

    Raises:
      StatusError: INVALID_ARGUMENT if they do not.
    """
    if not values:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    rows = None
    for value in values:
        if not value.ndim:
            raise invalid_argument("Batching Run() input tensors must have at least one dimension")
        if rows is None:
            rows = value.shape[0]
        elif rows != value.shape[0]:
            raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    assert rows is not None
    return rows


def join(
    requests: Sequence[Sequence[np.ndarray]], sizes: Sequence[int], parameters: BatchingParameters
) -> tuple[list[np.ndarray], int]:
    """Concatenates the inputs of requests along dimension 0.

    Args:
      requests: the inputs of each, in the same order, of types and shapes that go together.
      sizes: rows of each request.
      parameters: whether to pad, and to which size to fill up.

    Returns:
      The inputs of the run, and its number of rows. Those in excess repeat the first row of the last request.

    Raises:
      StatusError: INVALID_ARGUMENT if inputs cannot be padded.
    """
    rows = sum(sizes)
    processed = next((size for size in parameters.allowed_batch_sizes if size >= rows), rows) if rows else rows
    joined = []
    for values in zip(*requests, strict=True):
        pieces = _pad(values) if parameters.pad_variable_length_inputs else list(values)
        if processed > rows:
            pieces.append(np.repeat(pieces[-1][:1], processed - rows, axis=0))
        joined.append(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
    return joined, processed


def split(outputs: Sequence[np.ndarray], sizes: Sequence[int], processed: int) -> list[list[np.ndarray]]:
    """Returns the outputs of each request; they share memory.

    Args:
      outputs: of the run.
      sizes: rows of each request.
      processed: rows of the run.

    Raises:
      StatusError: FAILED_PRECONDITION if an output does not have a row for each row of the inputs.
    """
    for output in outputs:
        if not output.ndim:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if output.shape[0] != processed:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
    if len(sizes) == 1 and processed == sizes[0]:
        return [list(outputs)]
    results, start = [], 0
    for size in sizes:
        results.append([output[start : start + size] for output in outputs])
        start += size
    return results


def _pad(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Fills inputs up with their first element, so that they differ in dimension 0 only."""
    dimensions = values[0].ndim
    if dimensions > _MAX_PADDED_DIMENSIONS:
        raise invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
    largest = tuple(max(value.shape[axis] for value in values) for axis in range(1, dimensions))
    padded = []
    for value in values:
        if value.shape[1:] != largest:
            shape = (value.shape[0], *largest)
            if not value.size:
                raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
            whole = np.full(shape, value.flat[0], dtype=value.dtype)
            whole[tuple(slice(size) for size in value.shape)] = value
            value = whole
        padded.append(value)
    return padded
