"""The local server over a real socket: its answers, and TensorFlow Serving's codes and texts for every error."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from pipeline.serving.server import ModelServer
from tests.serving.saved_models import CATALOGUE, TOP_K, export_arithmetic, export_recommender, publish


class Stubs:
    """The services' stubs for one server, as any client of TensorFlow Serving makes them."""

    def __init__(self, channel: grpc.Channel):
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    base_path = tmp_path_factory.mktemp("serving") / "recommender"
    publish(export_recommender(base_path.with_name("model")), base_path, 3)
    (base_path / "notes").mkdir()
    (base_path / "4").mkdir()  # A version whose files have not arrived.
    yield from _serve(base_path, "recommender")


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    base_path = tmp_path_factory.mktemp("serving") / "arithmetic"
    publish(export_arithmetic(base_path.with_name("model")), base_path, 1)
    yield from _serve(base_path, "arithmetic")


def _serve(base_path: Path, name: str) -> Iterator[Stubs]:
    available = threading.Event()
    server = ModelServer(str(base_path), name, port=0, on_available=lambda *_: available.set())
    with server, grpc.insecure_channel(server.address) as channel:
        assert available.wait(60)
        yield Stubs(channel)


def request(model: str | None, *, signature: str = "", **inputs: object) -> predict_pb2.PredictRequest:
    result = predict_pb2.PredictRequest()
    if model is not None:
        result.model_spec.name = model
        result.model_spec.signature_name = signature
    for name, value in inputs.items():
        result.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return result


def example(*history: str) -> bytes:
    result = tf.train.Example()
    result.features.feature["history_item_ids"].bytes_list.value.extend(item.encode() for item in history)
    return result.SerializeToString()


def test_recommends_for_a_batch(recommender: Stubs):
    response = recommender.prediction.Predict(
        request("recommender", examples=[example(), example("i0", "i2", "unknown"), example(*CATALOGUE[2:])])
    )

    assert response.model_spec == model_pb2.ModelSpec(
        name="recommender", version={"value": 3}, signature_name="serving_default"
    )
    item_ids = tf.make_ndarray(response.outputs["item_ids"])
    assert item_ids.astype(str).tolist() == [
        ["i0", "i1", "i2", "i3", "i4"],
        ["i1", "i3", "i4", "i5", "i6"],
        ["i0", "i1", "", "", ""],
    ]
    scores = tf.make_ndarray(response.outputs["scores"])
    assert scores.dtype == np.float32
    assert scores[1:].tolist() == [[-1, -3, -4, -5, -6], [1, -1, -np.inf, -np.inf, -np.inf]]


def test_runs_other_signatures_and_named_versions(recommender: Stubs):
    ranking = request("recommender", signature="rank", examples=[example()], candidate_ids=[["i3", "i1", "unknown"]])
    ranking.model_spec.version.value = 3
    response = recommender.prediction.Predict(ranking)

    assert response.model_spec.signature_name == "rank"
    assert list(response.outputs["scores"].float_val) == [-3, -1, -np.inf]


def test_computes_only_the_outputs_asked_for(arithmetic: Stubs):
    filtered = request("arithmetic", a=[1.0, 2.0], b=[3.0, 4.0])
    assert set(arithmetic.prediction.Predict(filtered).outputs) == {"sum", "product"}

    filtered.output_filter.append("product")
    response = arithmetic.prediction.Predict(filtered)
    assert {name: list(tensor.float_val) for name, tensor in response.outputs.items()} == {"product": [3, 8]}


def test_every_type_arrives_and_comes_back_unchanged(arithmetic: Stubs):
    values: dict[str, np.ndarray] = {
        "i32": np.array([-(2**31), 7], np.int32),
        "i64": np.array([2**63 - 1, -1], np.int64),
        "f64": np.array([1e300, np.nan]),
        "flag": np.array([True, False]),
        "text": np.array([b"caf\xc3\xa9\x00", b"\xff\x00"], object),
        "f16": np.array([0.5, -np.inf], np.float16),
        "bf16": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "u8": np.array([0, 255], np.uint8),
    }
    response = arithmetic.prediction.Predict(request("arithmetic", signature="echo", **values))

    for name, value in values.items():
        answer = tf.make_ndarray(response.outputs[f"{name}_out"])
        assert answer.dtype == value.dtype
        np.testing.assert_array_equal(answer, value)


def test_describes_signatures(recommender: Stubs):
    response = recommender.prediction.GetModelMetadata(
        get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec={"name": "recommender"}, metadata_field=["signature_def"]
        )
    )
    signatures = get_model_metadata_pb2.SignatureDefMap()

    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "rank", "similar"} <= set(signatures.signature_def)
    scores = signatures.signature_def["serving_default"].outputs["scores"]
    assert [dim.size for dim in scores.tensor_shape.dim] == [-1, TOP_K]
    assert (response.model_spec.name, response.model_spec.version.value) == ("recommender", 3)


def test_reports_versions(recommender: Stubs):
    response = recommender.models.GetModelStatus(
        get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "recommender"})
    )
    (status,) = response.model_version_status
    assert (status.version, status.state, status.status.error_code) == (3, status.AVAILABLE, 0)


LABELLED = request("recommender", examples=[b""])
LABELLED.model_spec.version_label = "canary"
OTHER_VERSION = request("recommender", examples=[b""])
OTHER_VERSION.model_spec.version.value = 9
NAMELESS = request("", examples=[b""])
UNPARSABLE = request("recommender", examples=[b"a"])
UNPARSABLE.inputs["examples"].string_val.append(b"b")
UNKNOWN_OUTPUT = request("recommender", examples=[b""])
UNKNOWN_OUTPUT.output_filter.append("ids")
REPEATED_OUTPUT = request("recommender", examples=[b""])
REPEATED_OUTPUT.output_filter.extend(["scores", "scores"])


@pytest.mark.parametrize(
    ("bad", "code", "text"),
    [
        (request(None, examples=[b""]), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (NAMELESS, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (request("other", examples=[b""]), "NOT_FOUND", "Servable not found for request: Latest(other)"),
        (OTHER_VERSION, "NOT_FOUND", "Servable not found for request: Specific(recommender, 9)"),
        (LABELLED, "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
        (request("recommender", signature="x"), "FAILED_PRECONDITION", 'Serving signature key "x" not found.'),
        (
            request("recommender", signature="rank", examples=[b""]),
            "INVALID_ARGUMENT",
            "input size does not match signature: 1!=2 len({examples}) != len({candidate_ids,examples}). "
            "Sent extra: {}. Missing but required: {candidate_ids}.",
        ),
        (
            request("recommender", examples=[b""], b=[1.0], a=[1.0]),
            "INVALID_ARGUMENT",
            "input size does not match signature: 3!=1 len({a,b,examples}) != len({examples}). "
            "Sent extra: {a,b}. Missing but required: {}.",
        ),
        (
            request("recommender", example=[b""]),
            "INVALID_ARGUMENT",
            "Signature input alias: examples(feed name: serving_default_examples:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {example}, or default input alias set: ",
        ),
        (UNPARSABLE, "INVALID_ARGUMENT", "tensor parsing error: examples"),
        (
            UNKNOWN_OUTPUT,
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: ids Outputs expected to be in the set {item_ids,scores}.",
        ),
        (REPEATED_OUTPUT, "INVALID_ARGUMENT", "duplicate output tensor alias: scores"),
        (
            request("recommender", signature="__saved_model_init_op"),
            "INTERNAL",
            "Expected prediction signature method_name to be one of {tensorflow/serving/predict, "
            "tensorflow/serving/classify, tensorflow/serving/regress}. Was: ",
        ),
    ],
)
def test_predict_errors(recommender: Stubs, bad: predict_pb2.PredictRequest, code: str, text: str):
    with pytest.raises(grpc.RpcError) as raised:
        recommender.prediction.Predict(bad)
    assert (raised.value.code().name, raised.value.details()) == (code, text)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (request("recommender", examples=[1.0]), "string"),
        (request("recommender", examples=[b"\xff\xfe no example"]), "Could not parse example input"),
        (request("recommender", examples=[b"no example"]), "Could not parse example input"),
        (request("recommender", examples=[[b""]]), "shape"),
    ],
    ids=["wrong type", "binary garbage", "garbage", "wrong shape"],
)
def test_errors_of_the_runtime_are_the_senders_fault(recommender: Stubs, bad: predict_pb2.PredictRequest, text: str):
    with pytest.raises(grpc.RpcError) as raised:
        recommender.prediction.Predict(bad)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in raised.value.details()


def test_long_messages_are_cut(recommender: Stubs):
    with pytest.raises(grpc.RpcError) as raised:
        recommender.prediction.Predict(request("recommender", signature="é" * 2000))
    text = raised.value.details()
    assert text.startswith('Serving signature key "éé')
    assert text.endswith("é...TRUNCATED")
    assert 1022 < len(text.encode()) - len("...TRUNCATED") <= 1024


@pytest.mark.parametrize(
    ("spec", "fields", "code", "text"),
    [
        (None, ["signature_def"], "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({}, [], "INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"),
        ({"name": "recommender"}, ["size"], "INVALID_ARGUMENT", "Metadata field size is not supported"),
        ({"name": "other"}, ["signature_def"], "NOT_FOUND", "Servable not found for request: Latest(other)"),
    ],
)
def test_metadata_errors(recommender: Stubs, spec: dict | None, fields: list[str], code: str, text: str):
    with pytest.raises(grpc.RpcError) as raised:
        recommender.prediction.GetModelMetadata(
            get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=fields)
        )
    assert (raised.value.code().name, raised.value.details()) == (code, text)


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (None, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({"name": "other"}, "NOT_FOUND", "Could not find any versions of model other"),
        (
            {"name": "recommender", "version": {"value": 9}},
            "NOT_FOUND",
            "Could not find version 9 of model recommender",
        ),
    ],
)
def test_status_errors(recommender: Stubs, spec: dict | None, code: str, text: str):
    with pytest.raises(grpc.RpcError) as raised:
        recommender.models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
    assert (raised.value.code().name, raised.value.details()) == (code, text)


def test_other_calls_are_not_implemented(recommender: Stubs):
    with pytest.raises(grpc.RpcError) as raised:
        recommender.prediction.Classify(classification_pb2.ClassificationRequest())
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_answers_messages_beyond_grpcs_usual_limit(recommender: Stubs):
    padding = tf.train.Example()
    padding.features.feature["unused"].bytes_list.value.append(bytes(5 << 20))
    response = recommender.prediction.Predict(request("recommender", examples=[padding.SerializeToString()]))
    assert response.outputs["item_ids"].string_val[0] == b"i0"


def test_a_port_in_use_is_refused(tmp_path: Path):
    server = ModelServer(str(tmp_path), "recommender", port=0)
    with server, pytest.raises(OSError, match=f"cannot listen on {server.address}"):
        ModelServer(str(tmp_path), "recommender", port=int(server.address.rpartition(":")[2]))


def test_the_command_announces_itself_and_stops_on_sigterm(tmp_path: Path):
    publish(export_recommender(tmp_path / "model"), tmp_path / "base", 12)
    command = [sys.executable, "-m", "pipeline.serving.server", "--model-name=movies", "--port=0"]
    process = subprocess.Popen(
        [*command, f"--base-path={tmp_path / 'base'}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:5] == ["serving", "movies", "version", "12", "on"]
        with grpc.insecure_channel(words[5]) as channel:
            response = Stubs(channel).prediction.Predict(request("movies", examples=[b""]))
        assert response.model_spec.version.value == 12
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
