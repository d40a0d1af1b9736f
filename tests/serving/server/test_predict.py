"""The Predict API. Expected codes and texts are those in TensorFlow Serving's `predict_util.cc`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import predict_pb2, tensor_pb2, types_pb2
from pipeline.serving.server.servable import Servable
from tests.serving.saved_models import export_arithmetic, export_labeller, set_default


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> Servable:
    return Servable(str(export_arithmetic(tmp_path_factory.mktemp("models") / "arithmetic")))


@pytest.fixture(scope="module")
def with_defaults(tmp_path_factory: pytest.TempPathFactory) -> Servable:
    model = export_arithmetic(tmp_path_factory.mktemp("models") / "arithmetic")
    set_default(model, "serving_default", "b", [10.0])
    return Servable(str(model))


@pytest.fixture(scope="module")
def labeller(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(export_labeller(tmp_path_factory.mktemp("models") / "labeller"))


def _request(signature: str = "", output_filter: tuple[str, ...] = (), **inputs: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = "model"
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(
            value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        )
    return request


def _refused(servable: Servable, request: predict_pb2.PredictRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(StatusError) as caught:
        servable.predict(request)
    return caught.value.code, caught.value.message


def test_all_outputs_come_without_a_filter(arithmetic: Servable):
    response = arithmetic.predict(_request(a=[2.0, 3.0], b=[4.0, 5.0]))
    assert sorted(response.outputs) == ["product", "sum"]
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["product"]), [8, 15])
    assert list(response.outputs["sum"].float_val) == [6, 8]  # Not in `tensor_content`.
    assert response.model_spec.name == "model"
    assert response.model_spec.signature_name == "serving_default"


def test_a_filter_chooses_outputs(arithmetic: Servable):
    assert list(arithmetic.predict(_request(output_filter=("sum",), a=[1.0], b=[1.0])).outputs) == ["sum"]
    both = arithmetic.predict(_request(output_filter=("sum", "product"), a=[1.0], b=[1.0]))
    assert sorted(both.outputs) == ["product", "sum"]


def test_every_type_goes_through_unchanged(arithmetic: Servable):
    values: dict[str, Any] = {
        "i32": np.array([-(2**31), 2**31 - 1], np.int32),
        "i64": np.array([-(2**63), 2**63 - 1], np.int64),
        "f64": np.array([np.nan, -np.inf]),
        "flag": np.array([True, False]),
        "text": np.array([b"\xff\x00", b""], object),
        "f16": np.array([1.5, -65504], np.float16),
        "bf16": np.array([1.5, 3e38], tf.bfloat16.as_numpy_dtype),
        "u8": np.array([0, 255], np.uint8),
    }
    outputs = arithmetic.predict(_request("echo", **values)).outputs
    for name, value in values.items():
        answer = tf.make_ndarray(outputs[f"{name}_out"])
        assert answer.dtype == value.dtype
        np.testing.assert_array_equal(answer, value)


def test_the_stream_options_and_the_client_id_of_a_request_mean_nothing_to_predict(arithmetic: Servable):
    request = _request(a=[1.0], b=[1.0])
    expected = arithmetic.predict(request)
    request.predict_streamed_options.request_state = predict_pb2.PredictStreamedOptions.SPLIT
    assert arithmetic.predict(request) == expected


def test_many_numbers_in_the_typed_field_arrive(arithmetic: Servable):
    numbers = [float(number) for number in range(999)]
    protos = {}
    for alias in "ab":
        protos[alias] = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=numbers)
        protos[alias].tensor_shape.dim.add(size=len(numbers))
    assert list(arithmetic.predict(_request(**protos)).outputs["sum"].float_val) == [2 * number for number in numbers]


def test_an_unknown_signature(arithmetic: Servable):
    assert _refused(arithmetic, _request("nothing")) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        'Serving signature key "nothing" not found.',
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"a": [1.0]},
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {b}.",
        ),
        (
            {},
            "input size does not match signature: 0!=2 len({}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {a,b}.",
        ),
        (
            {"a": [1.0], "b": [1.0], "d": [1.0], "c": [1.0]},
            "input size does not match signature: 4!=2 len({a,b,c,d}) != len({a,b}). Sent extra: {c,d}. "
            "Missing but required: {}.",
        ),
        (
            {"a": [1.0], "c": [1.0]},
            "Signature input alias: b(feed name: serving_default_b:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {a,c}, or default input alias set: ",
        ),
        ({"a": [1.0], "b": tensor_pb2.TensorProto(dtype=1, tensor_content=b"123")}, "tensor parsing error: b"),
        ({"a": [1.0], "b": tensor_pb2.TensorProto()}, "tensor parsing error: b"),
    ],
)
def test_inputs_that_do_not_fit_the_signature(arithmetic: Servable, inputs: dict[str, Any], message: str):
    assert _refused(arithmetic, _request(**inputs)) == (grpc.StatusCode.INVALID_ARGUMENT, message)


@pytest.mark.parametrize(
    ("output_filter", "message"),
    [
        (
            ("sum", "difference"),
            "output tensor alias not found in signature: difference Outputs expected to be in the set {product,sum}.",
        ),
        (("sum", "sum"), "duplicate output tensor alias: sum"),
    ],
)
def test_outputs_that_do_not_exist_or_come_twice(arithmetic: Servable, output_filter: tuple[str, ...], message: str):
    request = _request(output_filter=output_filter, a=[1.0], b=[1.0])
    assert _refused(arithmetic, request) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_types_and_shapes_are_checked_by_the_runtime(arithmetic: Servable):
    code, message = _refused(arithmetic, _request(a=[1], b=[1.0]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == "Expects arg[0] to be float but int32 is provided"
    assert _refused(arithmetic, _request(a=[1.0], b=["x"]))[1] == "Expects arg[1] to be float but string is provided"
    halves = np.ones(1, np.float16)
    assert _refused(arithmetic, _request(a=halves, b=[1.0]))[1] == "Expects arg[0] to be float but half is provided"
    code, message = _refused(arithmetic, _request(a=[1.0, 2.0, 3.0], b=[1.0, 2.0]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Incompatible shapes: [3] vs. [2]")


def test_defaults_stand_in_for_inputs_that_are_not_sent(with_defaults: Servable):
    assert list(with_defaults.predict(_request(a=[1.0])).outputs["sum"].float_val) == [11]
    assert list(with_defaults.predict(_request(a=[1.0], b=[2.0])).outputs["sum"].float_val) == [3]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"b": [1.0]},
            "Signature input alias: a(feed name: serving_default_a:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {b}, or default input alias set: b",
        ),
        ({"a": [1.0], "c": [1.0]}, "Inputs contains invalid name. Used request inputs: a, request input: a,c"),
    ],
)
def test_what_defaults_do_not_stand_in_for(with_defaults: Servable, inputs: dict[str, Any], message: str):
    assert _refused(with_defaults, _request(**inputs)) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_a_garbage_example_is_an_invalid_argument(labeller: str):
    code, message = _refused(Servable(labeller), _request("scores_only", inputs=[b"\xff garbage"]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "Could not parse example input" in message


def test_method_names_are_checked_if_so_chosen(tmp_path: Path):
    model = export_arithmetic(tmp_path / "model")
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "__saved_model_init_op"
    expected = (
        grpc.StatusCode.INTERNAL,
        "Expected prediction signature method_name to be one of {tensorflow/serving/predict, "
        "tensorflow/serving/classify, tensorflow/serving/regress}. Was: ",
    )
    assert _refused(Servable(str(model), check_method_names=True), request) == expected
    _, message = _refused(Servable(str(model)), request)  # The runtime cannot fetch an operation without outputs.
    assert "NoOp" in message


def test_signatures_of_any_method_answer_predict(labeller: str):
    example = tf.train.Example().SerializeToString()
    servable = Servable(labeller, check_method_names=True)
    for signature in ("serving_default", "regress", "three_outputs"):
        assert servable.predict(_request(signature, inputs=[example])).outputs
