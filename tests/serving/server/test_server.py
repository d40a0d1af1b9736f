"""The server over real gRPC sockets: its answers, and TensorFlow Serving's codes and texts for every error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import (
    CATALOGUE,
    TOP_K,
    export_arithmetic,
    export_half_plus_two,
    export_recommender,
    publish,
)
from tests.serving.server.servers import PLAIN_CHANNEL, Stubs, connected, request, running_server


@pytest.fixture(scope="module")
def recommender_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    base_path = tmp_path_factory.mktemp("serving") / "recommender"
    publish(export_recommender(base_path.with_name("model")), base_path, 3)
    (base_path / "notes").mkdir()
    (base_path / "4").mkdir()  # A version whose files have not arrived.
    with running_server(model_base_path=str(base_path), model_name="recommender") as server:
        yield server


@pytest.fixture(scope="module")
def recommender(recommender_server: ModelServer) -> Iterator[Stubs]:
    with connected(recommender_server.address) as stubs:
        yield stubs


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    base_path = tmp_path_factory.mktemp("serving") / "arithmetic"
    publish(export_arithmetic(base_path.with_name("model")), base_path, 1)
    with _serving(base_path, "arithmetic") as stubs:
        yield stubs


@contextlib.contextmanager
def _serving(base_path: Path, name: str, **options: Any) -> Iterator[Stubs]:
    with (
        running_server(model_base_path=str(base_path), model_name=name, **options) as server,
        connected(server.address) as stubs,
    ):
        yield stubs


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
        (
            UNKNOWN_OUTPUT,
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: ids Outputs expected to be in the set {item_ids,scores}.",
        ),
        (REPEATED_OUTPUT, "INVALID_ARGUMENT", "duplicate output tensor alias: scores"),
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


def test_classifies_regresses_and_does_both(tmp_path: Path):
    publish(export_half_plus_two(tmp_path / "model"), tmp_path / "half", 5)
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(20.0)
    inputs = input_pb2.Input(example_list={"examples": [example]})
    with _serving(tmp_path / "half", "half") as stubs:
        classified = stubs.prediction.Classify(
            classification_pb2.ClassificationRequest(
                model_spec={"name": "half", "signature_name": "classify_x_to_y"}, input=inputs
            )
        )
        regressed = stubs.prediction.Regress(
            regression_pb2.RegressionRequest(
                model_spec={"name": "half", "signature_name": "regress_x_to_y"}, input=inputs
            )
        )
        task = {
            "model_spec": {"name": "half", "signature_name": "regress_x_to_y2"},
            "method_name": "tensorflow/serving/regress",
        }
        both = stubs.prediction.MultiInference(inference_pb2.MultiInferenceRequest(tasks=[task], input=inputs))
    assert [entry.score for entry in classified.result.classifications[0].classes] == [12.0]
    assert [entry.value for entry in regressed.result.regressions] == [12.0]
    assert [entry.value for entry in both.results[0].regression_result.regressions] == [13.0]
    assert classified.model_spec.version.value == 5


def test_a_request_that_is_no_message_is_an_error(recommender_server: ModelServer):
    with grpc.insecure_channel(recommender_server.address, PLAIN_CHANNEL) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"\xff\xff")
        unknown = channel.unary_unary("/tensorflow.serving.PredictionService/Forget")
        with pytest.raises(grpc.RpcError) as unimplemented:
            unknown(b"")
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert raised.value.details() == "the request is no tensorflow.serving.PredictRequest"
    assert unimplemented.value.code() is grpc.StatusCode.UNIMPLEMENTED
