"""Operations that TensorFlow does not have itself, for whoever loads SavedModels."""

from __future__ import annotations

import contextlib
import importlib
import os

import tensorflow as tf

_SCANN_PREFIX = b"Scann>"


def register_custom_ops(saved_model: str) -> None:
    """Makes the operations known that a SavedModel needs, if the package that has them is installed.

    Where it is not, TensorFlow's error tells which operation is missing.

    Args:
      saved_model: folder of the SavedModel.
    """
    file = os.path.join(saved_model, "saved_model.pb")
    if not tf.io.gfile.exists(file):
        return
    with tf.io.gfile.GFile(file, "rb") as opened:
        needs_scann = _SCANN_PREFIX in opened.read()
    if needs_scann:
        with contextlib.suppress(ImportError):
            importlib.import_module("scann.scann_ops.py.scann_ops")
