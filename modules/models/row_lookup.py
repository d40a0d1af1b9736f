"""Rows of a variable that is also read whole."""

from __future__ import annotations

import tensorflow as tf


def gather_rows(table: tf.Variable | tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns `tf.gather(table, rows)`, but never by `ResourceGather`, which `tf.gather` makes of a variable.

    That kernel changes how its variable is kept: from its first run on, each operation that reads the variable whole is
    given a copy of its own. A single request for similar titles would slow down all recommendations after it, as the
    whole catalogue's vectors would be copied for each of them.
    """
    return tf.gather(tf.convert_to_tensor(table), rows)
