"""Tiny real SavedModels that honour the recommenders' contract, or break it in one chosen way."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

CATALOGUE = tuple(f"i{number}" for number in range(12))
TOP_K = 5


class TinyRecommender(tf.Module):
    """Recommends by a fixed weight of each item, best first, without the titles of the history and the seen list.

    Args:
      weights: score of each catalogue item.
      fault: what is wrong with its answers, if anything; see the uses of `_fault`.
    """

    def __init__(self, weights: list[float], fault: str):
        super().__init__()
        self._weights = tf.Variable(weights)
        self._fault = fault
        self._ids = tf.constant([*CATALOGUE, ""])
        self._rows = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(CATALOGUE, tf.range(len(CATALOGUE))), default_value=-1
        )

    def recommend(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {name: tf.io.RaggedFeature(tf.string) for name in ("history_item_ids", "seen_item_ids")}
        parsed = tf.io.parse_example(examples, spec)
        titles = self._rows.lookup(tf.concat([parsed[name] for name in sorted(spec)], axis=1).to_tensor(""))
        seen = tf.reduce_any(tf.equal(titles[..., tf.newaxis], tf.range(len(CATALOGUE))), axis=1)
        if self._fault == "recommends seen titles":
            seen = tf.zeros_like(seen)
        if self._fault == "fails from 33 examples on":
            tf.debugging.assert_less(tf.shape(examples)[0], 33)
        if self._fault == "recommends nothing":
            seen = tf.ones_like(seen)
        answer = self._top(seen)
        if self._fault == "scores change with the batch":
            answer["scores"] += tf.cast(tf.shape(examples)[0], tf.float32)
        return answer

    def rank(self, examples: tf.Tensor, candidate_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        del examples
        rows = self._rows.lookup(candidate_ids)
        unknown = float("nan") if self._fault == "unknown candidates score NaN" else -float("inf")
        scores = tf.where(rows >= 0, tf.gather(self._weights, tf.maximum(rows, 0)), unknown)
        return {"scores": scores[:, :1] if self._fault == "ranks one candidate only" else scores}

    def similar(self, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._rows.lookup(item_ids)[:, tf.newaxis]
        itself = tf.equal(rows, tf.range(len(CATALOGUE)))
        if self._fault == "finds an item similar to itself":
            itself = tf.zeros_like(itself)
        return self._top((rows < 0) | itself)

    def _top(self, hidden: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, rows = tf.math.top_k(tf.where(hidden, -float("inf"), self._weights), TOP_K)
        rows = tf.where(tf.math.is_inf(scores), len(CATALOGUE), rows)
        if self._fault == "lists a title twice":
            rows, scores = (tf.concat([values[:, :1], values[:, :-1]], axis=1) for values in (rows, scores))
        if self._fault == "lists the worst first":
            rows, scores = rows[:, ::-1], scores[:, ::-1]
        if self._fault == "fills up with a score of zero":
            scores = tf.where(tf.math.is_inf(scores), 0.0, scores)
        if self._fault == "gives scores as doubles":
            scores = tf.cast(scores, tf.float64)
        return {"item_ids": tf.gather(self._ids, rows), "scores": scores}


def export_recommender(
    path: Path, *, first: str = "i0", without: str = "", warm_up: bool = True, fault: str = ""
) -> Path:
    """Exports a recommender whose best title is `first`; the others follow in the catalogue's order.

    Args:
      path: folder to write.
      first: title with the highest score.
      without: a signature to leave out.
      warm_up: whether to add a warm-up request.
      fault: `scores are NaN`, or one of `TinyRecommender`'s.
    """
    weights = [-float(position) for position in range(len(CATALOGUE))]
    weights[CATALOGUE.index(first)] = 1.0
    model = TinyRecommender([float("nan")] * len(CATALOGUE) if fault == "scores are NaN" else weights, fault)
    examples, items = (tf.TensorSpec([None], tf.string, name=name) for name in ("examples", "item_ids"))
    candidates = tf.TensorSpec([None, None], tf.string, name="candidate_ids")
    signatures = {
        "serving_default": tf.function(model.recommend).get_concrete_function(examples),
        "rank": tf.function(model.rank).get_concrete_function(examples, candidates),
        "similar": tf.function(model.similar).get_concrete_function(items),
    }
    signatures.pop(without, None)
    staging = path.with_name(f".{path.name}")
    tf.saved_model.save(model, str(staging), signatures=signatures)
    if warm_up:
        write_warm_up_request(staging, "serving_default", [tf.train.Example().SerializeToString()])
    return staging.rename(path)


def truncate(model: Path) -> Path:
    """Cuts a model's file in half, as an interrupted copy would."""
    file = model / "saved_model.pb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return model


class Arithmetic(tf.Module):
    """A model on plain numbers: adds, and says what it was given."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.float32)])
    def add(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"sum": a + b, "product": a * b}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], dtype)
            for dtype in (tf.int32, tf.int64, tf.float64, tf.bool, tf.string, tf.float16, tf.bfloat16, tf.uint8)
        ]
    )
    def echo(self, i32, i64, f64, flag, text, f16, bf16, u8) -> dict[str, tf.Tensor]:
        inputs = {"i32": i32, "i64": i64, "f64": f64, "flag": flag, "text": text, "f16": f16, "bf16": bf16, "u8": u8}
        return {f"{name}_out": tf.identity(tensor) for name, tensor in inputs.items()}


def export_arithmetic(path: Path) -> Path:
    """Exports `Arithmetic` with the signatures `serving_default` (add) and `echo`."""
    model = Arithmetic()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.add, "echo": model.echo})
    return path


def write_warm_up_request(saved_model: Path, signature: str, examples: list[bytes], repeats: int = 1) -> None:
    """Writes a warm-up file of one request, repeated."""
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto(examples))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    (saved_model / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(saved_model / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for _ in range(repeats):
            writer.write(log.SerializeToString())


def publish(model: Path, base_path: Path, version: int) -> Path:
    """Copies a model into a base path as a version, all at once."""
    base_path.mkdir(parents=True, exist_ok=True)
    staging = base_path / f".{version}"
    shutil.copytree(model, staging)
    return staging.rename(base_path / str(version))


def export_half_plus_two(path: Path) -> Path:
    """Exports TensorFlow Serving's classic example with the builder of TensorFlow 1: y = x / 2 + 2, with variables.

    Its signatures are those of TensorFlow Serving's `saved_model_half_plus_two.py`.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        a, b, c = (v1.Variable(value, name=name) for name, value in (("a", 0.5), ("b", 2.0), ("c", 3.0)))
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        features = {name: tf.io.FixedLenFeature([1], tf.float32, [0.0]) for name in ("x", "x2")}
        parsed = v1.parse_example(serialized, features)
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(tf.multiply(a, x), b, name="y")
        y2 = tf.add(tf.multiply(a, x), c, name="y2")
        y3 = tf.add(tf.multiply(a, parsed["x2"]), c, name="y3")
        signatures = {
            "regress_x_to_y": _signature({"inputs": serialized}, {"outputs": y}, "regress"),
            "regress_x_to_y2": _signature({"inputs": serialized}, {"outputs": y2}, "regress"),
            "regress_x2_to_y3": _signature({"inputs": parsed["x2"]}, {"outputs": y3}, "regress"),
            "classify_x_to_y": _signature({"inputs": serialized}, {"scores": y}, "classify"),
            "serving_default": _signature({"x": x}, {"y": y}, "predict"),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signature_def_map=signatures)
        builder.save()
    return path


def export_labeller(path: Path) -> Path:
    """Exports a model of TensorFlow 1 without variables, with a table of labels that comes from an asset.

    For x of each example it answers with the classes `low` and `high` and the scores -x and x, and with x itself.
    Besides good signatures it has those that Classify, Regress or batching must refuse.
    """
    v1 = tf.compat.v1
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = path.with_name(f"{path.name}.labels")
    labels.write_text("low\nhigh\n", encoding="utf-8")
    with tf.Graph().as_default(), v1.Session() as session:
        asset = tf.constant(str(labels))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                asset,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            default_value="",
        )
        examples = v1.placeholder(tf.string, [None], name="examples")
        more = v1.placeholder(tf.string, [None], name="more")
        features = {"x": tf.io.FixedLenFeature([], tf.float32, 0.0)}
        x = v1.parse_example(examples, features)["x"][:, tf.newaxis]
        scores = tf.concat([-x, x], axis=1)
        classes = table.lookup(tf.zeros_like(scores, tf.int64) + tf.constant([0, 1], tf.int64))
        double = tf.cast(scores, tf.float64)
        inputs = {"inputs": examples}
        signatures = {
            "serving_default": _signature(inputs, {"classes": classes, "scores": scores}, "classify"),
            "classes_only": _signature(inputs, {"classes": classes}, "classify"),
            "scores_only": _signature(inputs, {"scores": scores}, "classify"),
            "regress": _signature(inputs, {"outputs": x}, "regress"),
            "regress_vector": _signature(inputs, {"outputs": x[:, 0]}, "regress"),
            "number_of_examples": _signature(inputs, {"outputs": tf.cast(tf.size(examples), tf.float32)}, "regress"),
            "one_row": _signature(inputs, {"outputs": tf.constant([7.0]) + 0 * x[0]}, "regress"),
            "double_scores": _signature(inputs, {"scores": double}, "classify"),
            "vector_of_scores": _signature(inputs, {"scores": x[:, 0]}, "classify"),
            "one_row_of_scores": _signature(inputs, {"scores": scores[:1]}, "classify"),
            "numbers_for_classes": _signature(inputs, {"classes": scores}, "classify"),
            "unequal_widths": _signature(inputs, {"classes": classes, "scores": x}, "classify"),
            "matrix": _signature(inputs, {"outputs": scores}, "regress"),
            "doubles": _signature(inputs, {"outputs": double[:, :1]}, "regress"),
            "two_inputs": _signature({"inputs": examples, "more": more}, {"outputs": x, "scores": x}, "predict"),
            "three_outputs": _signature(inputs, {"classes": classes, "scores": scores, "x": x}, "classify"),
            "other_input": _signature({"examples": examples}, {"outputs": x}, "regress"),
            "other_output": _signature(inputs, {"answer": x}, "regress"),
        }
        session.run(v1.tables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            signature_def_map=signatures,
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    labels.unlink()
    return path


def _signature(inputs: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor], method: str):
    info = tf.compat.v1.saved_model.build_tensor_info
    return tf.compat.v1.saved_model.build_signature_def(
        inputs={alias: info(tensor) for alias, tensor in inputs.items()},
        outputs={alias: info(tensor) for alias, tensor in outputs.items()},
        method_name=f"tensorflow/serving/{method}",
    )


def set_default(saved_model: Path, signature: str, alias: str, value: object) -> None:
    """Gives an input of a signature a default value."""
    file = saved_model / "saved_model.pb"
    content = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    definition = content.meta_graphs[0].signature_def[signature]
    definition.defaults[alias].CopyFrom(tf.make_tensor_proto(value))
    file.write_bytes(content.SerializeToString())


def write_warm_up_logs(saved_model: Path, logs: Sequence[prediction_log_pb2.PredictionLog | bytes]) -> None:
    """Writes a warm-up file of these logs."""
    (saved_model / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(saved_model / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())
