"""The models that the serving contract is checked on, as files that any TensorFlow Serving can serve.

`python -m tests.serving_contract.models FOLDER` writes them with the configuration to serve them by.
"""

from __future__ import annotations

import argparse
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tests.serving.saved_models import export_recommender, publish, truncate
from tests.serving_contract.configuration import write_configuration

ECHOED = (
    *("float", "double", "half", "bfloat16", "bool", "string", "complex64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
"""Names of the data types that the model `tensors` echoes, each by a signature `echo_…`."""

_PREDICT, _CLASSIFY, _REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
_Signatures = dict[str, meta_graph_pb2.SignatureDef]


def write_models(folder: Path) -> None:
    """Writes the models and the configuration files into a new folder.

    Args:
      folder: where to write; `models.config` names the models by their absolute paths in it.

    Raises:
      FileExistsError: if the folder exists.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True)
    for version in (2, 3):
        _export(folder / "half_plus" / str(version), functools.partial(_half_plus, version))
    (folder / "half_plus" / "notes").mkdir()  # No number, no version.
    _export(folder / "other_half_plus" / "5", functools.partial(_half_plus, 5))
    for version in (1, 2):
        _export(folder / "broken" / str(version), functools.partial(_plain, version))
    truncate(folder / "broken" / "2")
    for name in ("plain", "movable"):
        _export(folder / name / "00000004", functools.partial(_plain, 4))
    _export(folder / "tensors" / "1", _tensors)
    _export(folder / "misfits" / "1", _misfits)
    exported = export_recommender(folder / "exported", warm_up=False)
    publish(exported, folder / "recommender", 1)
    shutil.rmtree(exported)
    write_configuration(folder)


def _export(path: Path, build: Callable[[], _Signatures]) -> None:
    """Writes the SavedModel whose graph and signatures a function builds, as a TensorFlow 1 program would."""
    path.parent.mkdir(exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = build()
        builder = tf.compat.v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signature_def_map=signatures)
        builder.save()


def _half_plus(number: int) -> _Signatures:
    """The usual example model, x / 2 + `number`, with a signature of each kind."""
    examples, x, x2 = _parse_examples()
    y, y2 = x / 2.0 + float(number), x2 / 2.0 + float(number)
    labels = tf.tile(tf.constant([["half", "whole"]]), tf.stack([tf.shape(x)[0], 1]))
    scores = tf.concat([y, 2.0 * y], axis=1)
    return {
        "serving_default": _signature(_PREDICT, {"x": x}, {"y": y}),
        "unusual_method": _signature("tensorflow/serving/unusual", {"x": x}, {"y": y}),
        "regress_x_to_y": _signature(_REGRESS, {"inputs": examples}, {"outputs": y}),
        "regress_x2_to_y": _signature(_REGRESS, {"inputs": examples}, {"outputs": y2}),
        "classify_x_to_y": _signature(_CLASSIFY, {"inputs": examples}, {"scores": y}),
        "classify_x_to_labels": _signature(_CLASSIFY, {"inputs": examples}, {"classes": labels}),
        "classify_x": _signature(_CLASSIFY, {"inputs": examples}, {"classes": labels, "scores": scores}),
    }


def _plain(number: int) -> _Signatures:
    """x / 2 + `number` with one signature, so that nothing about the model's metadata depends on a map's order."""
    x = tf.compat.v1.placeholder(tf.float32, [None], "x")
    return {"serving_default": _signature(_PREDICT, {"x": x}, {"y": tf.add(x / 2.0, float(number), "y")})}


def _tensors() -> _Signatures:
    """Echoes every data type, adds two vectors, and gives outputs of unusual shapes."""
    signatures = {}
    for name in ECHOED:
        value = tf.compat.v1.placeholder(tf.dtypes.as_dtype(name), None, name)
        signatures[f"echo_{name}"] = _signature(_PREDICT, {"value": value}, {"echo": tf.identity(value)})
    text = tf.compat.v1.placeholder(tf.string, None, "text")
    signatures["echo_bytes"] = _signature(_PREDICT, {"text": text}, {"text_bytes": tf.identity(text)})
    a, b = (tf.compat.v1.placeholder(tf.float32, [None], name) for name in ("a", "b"))
    total, product = tf.add(a, b, "total"), tf.multiply(a, b, "product")
    signatures["serving_default"] = _signature(_PREDICT, {"a": a, "b": b}, {"sum": total, "product": product})
    with_default = _signature(_PREDICT, {"a": a, "b": b}, {"sum": total})
    with_default.defaults["b"].CopyFrom(tf.make_tensor_proto([10.0]))
    signatures["with_default"] = with_default
    signatures["scalar"] = _signature(_PREDICT, {"a": a}, {"sum": tf.reduce_sum(a)})
    signatures["uneven"] = _signature(_PREDICT, {"a": a}, {"one": a + a, "two": tf.concat([a, a], axis=0)})
    signatures["fed_and_fetched"] = _signature(_PREDICT, {"a": a}, {"a": a})
    signatures["mixed"] = _signature(_PREDICT, {"a": a, "value": text}, {"total": a + a, "text": tf.identity(text)})
    return signatures


def _misfits() -> _Signatures:
    """Signatures whose outputs are not what Classify and Regress need, each in one way."""
    examples, x, _ = _parse_examples()
    text = tf.strings.as_string(x)
    one_row, vector = x[:1], tf.squeeze(x, axis=1)
    wide = tf.concat([x, x], axis=1)
    double = tf.cast(x, tf.float64)
    classify = {
        "classes_of_numbers": {"classes": x},
        "classes_of_one_row": {"classes": text[:1]},
        "classes_without_columns": {"classes": tf.squeeze(text, axis=1)},
        "scores_of_doubles": {"scores": double},
        "scores_of_one_row": {"scores": one_row},
        "scores_without_columns": {"scores": vector},
        "more_scores_than_classes": {"classes": text, "scores": wide},
        "three_outputs": {"classes": text, "scores": x, "more": vector},
        "neither_classes_nor_scores": {"labels": text},
    }
    regress = {
        "two_columns": {"outputs": wide},
        "doubles": {"outputs": double},
        "one_row": {"outputs": one_row},
        "vector": {"outputs": vector},
        "two_outputs": {"outputs": x, "more": wide},
        "no_outputs": {"values": x},
    }
    signatures = {name: _signature(_CLASSIFY, {"inputs": examples}, outputs) for name, outputs in classify.items()}
    signatures |= {name: _signature(_REGRESS, {"inputs": examples}, outputs) for name, outputs in regress.items()}
    signatures["no_inputs"] = _signature(_PREDICT, {"examples": examples}, {"scores": x})
    signatures["no_regression_inputs"] = _signature(_PREDICT, {"examples": examples}, {"outputs": x})
    signatures["two_inputs"] = _signature(_CLASSIFY, {"inputs": examples, "x": x}, {"scores": x})
    return signatures


def _parse_examples() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the input of serialized Examples `[B]` and their features x, which is required, and x2, each `[B, 1]`."""
    examples = tf.compat.v1.placeholder(tf.string, [None], "tf_example")
    spec = {
        "x": tf.io.FixedLenFeature([1], tf.float32),
        "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
    }
    parsed = tf.io.parse_example(examples, spec)
    return examples, tf.identity(parsed["x"], "x"), tf.identity(parsed["x2"], "x2")


def _signature(
    method: str, inputs: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]
) -> meta_graph_pb2.SignatureDef:
    signature = meta_graph_pb2.SignatureDef(method_name=method)
    for tensors, infos in ((inputs, signature.inputs), (outputs, signature.outputs)):
        for name, tensor in tensors.items():
            infos[name].name, infos[name].dtype = tensor.name, tensor.dtype.as_datatype_enum
            infos[name].tensor_shape.CopyFrom(tensor.shape.as_proto())
    return signature


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder to write into")
    write_models(parser.parse_args().folder)
