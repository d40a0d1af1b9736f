"""JSON requests to tensors and tensors to JSON answers, to the byte, and TensorFlow Serving's words for errors."""

from __future__ import annotations

import json
import math
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import (
    classification_pb2,
    meta_graph_pb2,
    predict_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)
from pipeline.serving.server import json_tensors
from pipeline.serving.server.json_answers import write_classifications, write_predict_response, write_regressions
from pipeline.serving.server.json_examples import read_examples_request
from pipeline.serving.server.json_tensors import data_type_name, read_predict_request
from pipeline.serving.server.json_writing import decimals, error_text
from pipeline.serving.tensors import make_tensor, read_tensor


def read(body: str | bytes, **types: str) -> tuple[bool, dict[str, list]]:
    """Returns whether a request is in rows, and its tensors as nested lists."""
    infos = {name: meta_graph_pb2.TensorInfo(dtype=types_pb2.DataType.Value(f"DT_{t}")) for name, t in types.items()}
    request = predict_pb2.PredictRequest()
    in_rows = read_predict_request(body.encode() if isinstance(body, str) else body, request, lambda name: infos)
    return in_rows, {name: read_tensor(tensor).tolist() for name, tensor in request.inputs.items()}


def refuse(body: str, **types: str) -> str:
    with pytest.raises(StatusError) as raised:
        read(body, **types)
    assert raised.value.code.name == "INVALID_ARGUMENT"
    return raised.value.message


def write(in_rows: bool, **arrays: object) -> str:
    tensors = {name: make_tensor(np.asarray(array)) for name, array in arrays.items()}
    return write_predict_response(tensors, in_rows).decode("utf-8", "surrogateescape")


def strings(*values: object) -> np.ndarray:
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    ("body", "types", "tensors"),
    [
        ('{"instances": [[1,2],[3,4],[5,6]]}', {"x": "INT32"}, {"x": [[1, 2], [3, 4], [5, 6]]}),
        ('{"instances": [1, 2.0, 5.5]}', {"x": "FLOAT"}, {"x": [1.0, 2.0, 5.5]}),
        ('{"instances": [1435774380]}', {"x": "FLOAT"}, {"x": [1435774336.0]}),
        ('{"instances": [1.7e308, -1.7e308, 2.3e-308]}', {"x": "FLOAT"}, {"x": [math.inf, -math.inf, 0.0]}),
        ('{"instances": [Infinity, -Inf, 1e308]}', {"x": "DOUBLE"}, {"x": [math.inf, -math.inf, 1e308]}),
        ('{"instances": ["a", {"b64": "aGVsbG8="}, {"b64": "aGVs\\nbG8"}]}', {"x": "STRING"},
         {"x": [b"a", b"hello", b"hello"]}),
        ('{"instances": [true, false]}', {"x": "BOOL"}, {"x": [True, False]}),
        ('{"instances": [0, 18446744073709551615]}', {"x": "UINT64"}, {"x": [0, 2**64 - 1]}),
        ('{"instances": [-9223372036854775808]}', {"x": "INT64"}, {"x": [-(2**63)]}),
        ('{"instances": [300, -1]}', {"x": "UINT8"}, {"x": [44, 255]}),
        ('{"instances": [[], []]}', {"x": "INT32"}, {"x": [[], []]}),
        ('{"instances": [{"a": 1, "b": [["x"]]}, {"b": [["y"]], "a": 2}]}', {"a": "INT64", "b": "STRING"},
         {"a": [1, 2], "b": [[[b"x"]], [[b"y"]]]}),
        ('{"instances": [{"x": [1]}, {"x": [2]}]}', {"x": "INT32"}, {"x": [[1], [2]]}),
        ('{"signature_name": "s", "instances": [1]} and what follows', {"x": "INT32"}, {"x": [1]}),
    ],
)  # fmt: skip
def test_rows(body: str, types: dict[str, str], tensors: dict[str, list]):
    assert read(body, **types) == (True, tensors)


@pytest.mark.parametrize(
    ("body", "types", "tensors"),
    [
        ('{"inputs": [[1],[2]]}', {"x": "INT32"}, {"x": [[1], [2]]}),
        ('{"inputs": 7}', {"x": "INT32"}, {"x": 7}),
        ('{"inputs": {"b64": "aGVsbG8="}}', {"x": "STRING"}, {"x": b"hello"}),
        ('{"inputs": {"x": ["a"]}}', {"x": "STRING"}, {"x": [b"a"]}),
        ('{"inputs": {"a": 1, "b": ["x", {"b64": "/w=="}], "more": 3}}', {"a": "DOUBLE", "b": "STRING"},
         {"a": 1.0, "b": [b"x", b"\xff"]}),
    ],
)  # fmt: skip
def test_columns(body: str, types: dict[str, str], tensors: dict[str, list]):
    assert read(body, **types) == (False, tensors)


def test_text_that_is_no_utf8_stays_as_it_is():
    assert read(b'{"instances": ["\xff\xfe"]}', x="STRING") == (True, {"x": [b"\xff\xfe"]})


FIRST = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "


@pytest.mark.parametrize(
    ("body", "types", "message"),
    [
        ('{"instances": [1.5]}', {"x": "INT32"},
         FIRST.format(0) + "JSON Value: 1.5 Type: Number is not of expected type: int32"),
        ('{"instances": [2147483648]}', {"x": "INT32"},
         FIRST.format(0) + "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ('{"instances": ["x", "y"]}', {"x": "FLOAT"},
         FIRST.format(0) + 'JSON Value: "x" Type: String is not of expected type: float'),
        ('{"instances": [1, true]}', {"x": "FLOAT"},
         FIRST.format(1) + "JSON Value: true Type: True is not of expected type: float"),
        ('{"instances": [null]}', {"x": "STRING"},
         FIRST.format(0) + "JSON Value: null Type: Null is not of expected type: string"),
        ('{"instances": [1]}', {"x": "BOOL"},
         FIRST.format(0) + "JSON Value: 1 Type: Number is not of expected type: bool"),
        ('{"instances": [-1]}', {"x": "UINT64"},
         FIRST.format(0) + "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ('{"instances": [[1,2],[3]]}', {"x": "INT32"}, FIRST.format(1) + "Expecting tensor size: 2 but got: 1"),
        ('{"instances": [[[1,2]],[[3],[4]]]}', {"x": "INT32"},
         FIRST.format(1) + "Expecting shape [1,2] but got: [2,1]"),
        ('{"instances": [[[1,2],[3]]]}', {"x": "INT32"},
         FIRST.format(0) + "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ('{"instances": [[1,[2]]]}', {"x": "INT32"},
         FIRST.format(0) + "Encountered list at unexpected level: 1 expected < 1"),
        ('{"instances": [[[1],2]]}', {"x": "INT32"},
         FIRST.format(0) + "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('{"instances": [1.5]}', {"x": "HALF"}, "Failed to process element: 0 of 'instances' list. Error: "
         "UNIMPLEMENTED: Conversion of JSON Value: 1.5 to type: half"),
        ('{"instances": [{"b64": 1}]}', {"x": "STRING"},
         "Failed to process element: 0 key: b64 of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not "
         "have named input: b64"),
        ('{"instances": [["a", {"c": "b"}]]}', {"x": "STRING"},
         FIRST.format(0) + 'JSON Value: {\n    "c": "b"\n} not formatted correctly for base64 data'),
        ('{"instances": [{"b64": "a"}]}', {"x": "STRING"}, FIRST.format(0) + "Unable to base64 decode"),
        ('{"instances": [{"b64": "YQ="}]}', {"x": "STRING"}, FIRST.format(0) + "Unable to base64 decode"),
        ('{"instances": [{"b64": "-_-_"}]}', {"x": "STRING"}, FIRST.format(0) + "Unable to base64 decode"),
        ('{"instances": [{"x": 1}, 2]}', {"x": "INT32"}, "Expecting object but got list at item 1 of input list"),
        ('{"instances": [1, {"x": 2}]}', {"x": "INT32"}, "Expecting value/list but got object at item 1 of input list"),
        ('{"instances": [{"a": 1}]}', {"a": "INT32", "b": "INT32"},
         "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: "
         "a,b"),
        ('{"instances": [{"a": 1, "c": 1}]}', {"a": "INT32", "b": "INT32"},
         "Failed to process element: 0 key: c of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have "
         "named input: c"),
        ('{"instances": [1]}', {"a": "INT32", "b": "INT32"},
         "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
         "tensorinfo_map"),
        ('{"instances": 1}', {"x": "INT32"},
         "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array"),
        ('{"instances": []}', {"x": "INT32"},
         "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
        ('{"instances": [1], "inputs": [1]}', {"x": "INT32"},
         'JSON Value: {\n    "instances": [1],\n    "inputs": [1]\n} Not formatted correctly expecting only one of '
         "'inputs' or 'instances' keys to exist "),
        ('{"inputs": [1]}', {"a": "INT32", "b": "INT32"},
         "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
         "tensorinfo_map"),
        ('{"inputs": {"a": 1}}', {"a": "INT32", "b": "INT32"}, "Missing named input: b in 'inputs' object."),
        ('{"inputs": [1, "a"]}', {"x": "INT32"}, 'JSON Value: "a" Type: String is not of expected type: int32'),
        ('{"signature_name": 5, "inputs": 1}', {"x": "INT32"},
         'JSON Value: {\n    "signature_name": 5,\n    "inputs": 1\n} not formatted correctly. \'signature_name\' key '
         "must be a string value."),
        ("{}", {"x": "INT32"}, "Missing 'inputs' or 'instances' key"),
        ('{"instances": [1]}', {}, "Failed to get input map for signature: DEFAULT"),
        ('{"signature_name": "s", "instances": [1]}', {}, "Failed to get input map for signature: s"),
        ('{"inputs": [1e400]}', {"x": "DOUBLE"},
         "JSON Parse error: Number too big to be stored in double. at offset: 12"),
        ('{"inputs": [Infinity, ' + "9" * 400 + "]}", {"x": "DOUBLE"},
         "JSON Parse error: Number too big to be stored in double. at offset: 22"),
        ('{"instances": [' + "9" * 400 + "]}", {"x": "INT64"},
         "JSON Parse error: Number too big to be stored in double. at offset: 15"),
        ('{"instances": [1e999]}', {"x": "STRING"},
         "JSON Parse error: Number too big to be stored in double. at offset: 15"),
    ],
)  # fmt: skip
def test_bad_requests(body: str, types: dict[str, str], message: str):
    assert refuse(body, **types) == message


NUMBERS = st.integers(-(2**31), 2**31 - 1) | st.floats(width=32)
NESTED = st.recursive(
    NUMBERS | st.booleans() | st.text(max_size=3) | st.none(), lambda child: st.lists(child, max_size=3), max_leaves=8
)


@hypothesis.given(
    st.lists(NESTED, min_size=1, max_size=4) | st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=1),
    st.sampled_from(["FLOAT", "DOUBLE", "INT32", "INT64", "STRING", "BOOL"]),
    st.booleans(),
)
def test_bulk_conversion_agrees_with_the_walk(values: list, data_type: str, in_rows: bool):
    """Whatever is sent, converting in bulk only saves time."""
    body = json.dumps({"instances" if in_rows else "inputs": values})

    def outcome() -> str:
        try:
            return repr(read(body, x=data_type))
        except StatusError as error:
            return error.message

    quick = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tensors, "_convert_in_bulk", lambda *unused: None)
        assert outcome() == quick


def test_rows_of_one_output():
    assert write(True, y=np.array([2.5, 3, 4.5], np.float32)) == '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'
    assert write(True, y=np.zeros((0, 2), np.int32)) == '{\n    "predictions": []\n}'
    assert write(True, y=np.zeros((2, 0, 3), np.int32)) == '{\n    "predictions": [[], []\n    ]\n}'
    assert write(True, y=np.zeros((1, 2, 0), np.int32)) == '{\n    "predictions": [[[], []]\n    ]\n}'


def test_rows_of_several_outputs():
    answer = write(
        True, b=np.array([[1, 2], [3, 4]]), a_bytes=strings(b"\x00", b"\xff"), c=strings(b'"\xc3\xa9\n', b"")
    )
    assert answer == (
        '{\n    "predictions": [\n'
        '        {\n            "a_bytes": {\n                "b64": "AA=="\n            },\n'
        '            "b": [1, 2],\n            "c": "\\"é\\n"\n        },\n'
        '        {\n            "a_bytes": {\n                "b64": "/w=="\n            },\n'
        '            "b": [3, 4],\n            "c": ""\n        }\n'
        "    ]\n}"
    )


def test_columns_of_one_output():
    assert write(False, y=np.array([[True], [False]])) == (
        '{\n    "outputs": [\n        [\n            true\n        ],\n'
        "        [\n            false\n        ]\n    ]\n}"
    )
    assert write(False, y=np.float64(0.1)) == '{\n    "outputs": 0.1\n}'
    assert write(False, y=np.zeros((0, 2), np.float32)) == '{\n    "outputs": []\n}'


def test_columns_of_several_outputs():
    assert write(False, b=np.array([1, 2], np.uint8), a=np.float32(1)) == (
        '{\n    "outputs": {\n        "a": 1.0,\n        "b": [\n            1,\n            2\n        ]\n    }\n}'
    )


def test_text_that_is_no_utf8_is_answered_as_it_is():
    tensors = {"y": make_tensor(strings(b"\xff\x1f"))}
    assert write_predict_response(tensors, True) == b'{\n    "predictions": ["\xff\\u001F"\n    ]\n}'


@pytest.mark.parametrize(
    ("tensors", "in_rows", "message"),
    [
        ({}, True, "Cannot convert empty tensor map to JSON"),
        ({"y": make_tensor(np.array(1, np.float32))}, True, "Tensor name: y has no shape information "),
        (
            {"a": make_tensor(np.zeros(2)), "b": make_tensor(np.zeros(1))},
            True,
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
        (
            {"y": make_tensor(np.zeros(1, np.float16))},
            False,
            "Failed to write JSON value for tensor type: half",
        ),
    ],
)
def test_answers_that_json_cannot_hold(tensors: dict[str, tensor_pb2.TensorProto], in_rows: bool, message: str):
    with pytest.raises(StatusError) as raised:
        write_predict_response(tensors, in_rows)
    assert raised.value.message == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2, "0.2"),
        (1.0, "1.0"),
        (9000000, "9e+06"),
        (0.00003, "3e-05"),
        (123456, "123456.0"),
        (1234567, "1234567.0"),
        (1 / 3, "0.333333343"),
        (-0.0, "-0.0"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_floats_are_written_as_there(value: float, text: str):
    assert decimals(np.array([value], np.float32)) == [text]


def test_doubles_are_written_as_there():
    assert decimals(np.array([0.1, 1 / 3, 1e22, 12345678.5])) == ["0.1", "0.33333333333333331", "1e+22", "12345678.5"]


@hypothesis.given(
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint64, np.int16]).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(max_dims=3, max_side=4), elements=hnp.from_dtype(np.dtype(dtype))
        )
    ),
    st.booleans(),
)
def test_an_answer_sent_back_is_the_same_tensor(array: np.ndarray, in_rows: bool):
    answer = write(in_rows, y=array)
    body = answer.replace('"predictions"', '"instances"', 1).replace('"outputs"', '"inputs"', 1)
    data_type = data_type_name(make_tensor(array).dtype).upper()
    expected = make_tensor(array)
    request = predict_pb2.PredictRequest()
    infos = {"y": meta_graph_pb2.TensorInfo(dtype=expected.dtype)}
    assert read_predict_request(body.encode(), request, lambda name: infos) == in_rows, data_type
    np.testing.assert_array_equal(read_tensor(request.inputs["y"]), array)


@hypothesis.given(hnp.arrays(object, hnp.array_shapes(max_dims=3, max_side=3), elements=st.binary(max_size=4)))
def test_bytes_sent_back_are_the_same(array: np.ndarray):
    body = write(False, y_bytes=array).replace('"outputs"', '"inputs"', 1)
    _, tensors = read(body, y="STRING")
    assert tensors["y"] == array.tolist()


def read_examples(body: str) -> classification_pb2.ClassificationRequest:
    request = classification_pb2.ClassificationRequest()
    read_examples_request(body.encode(), request)
    return request


def features(example: Any) -> dict[str, tuple[str, list]]:
    return {
        name: (feature.WhichOneof("kind"), list(getattr(feature, feature.WhichOneof("kind")).value))
        for name, feature in example.features.feature.items()
        if feature.WhichOneof("kind")
    }


def test_examples():
    request = read_examples(
        '{"signature_name": "s", "examples": ['
        '{"names": ["foo", {"b64": "aGVsbG8="}], "ratings": [8.0, NaN, -Infinity], "age": 20, "mix": [1, true, false]},'
        '{"ratings": 6.0, "nothing": []}]}'
    )
    assert request.model_spec.signature_name == "s"
    first, second = request.input.example_list.examples
    found = features(first)
    assert found.pop("ratings")[1] == [8.0, pytest.approx(math.nan, nan_ok=True), -math.inf]
    assert found == {
        "names": ("bytes_list", [b"foo", b"hello"]),
        "age": ("int64_list", [20]),
        "mix": ("int64_list", [1, 1, 0]),
    }
    assert features(second) == {"ratings": ("float_list", [6.0])}
    assert "nothing" in second.features.feature


def test_examples_with_a_context():
    request = regression_pb2.RegressionRequest()
    read_examples_request(b'{"context": {"query": "pizza"}, "examples": [{"x": 1}, {"x": 2}]}', request)
    assert features(request.input.example_list_with_context.context) == {"query": ("bytes_list", [b"pizza"])}
    assert [features(example) for example in request.input.example_list_with_context.examples] == [
        {"x": ("int64_list", [1])},
        {"x": ("int64_list", [2])},
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"signature_name": ["s"], "examples": [{}]}', "'signature_name' key must be a string value."),
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": {}}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [[1]]}', "Example must be JSON object but got JSON Array"),
        ('{"context": [1], "examples": [{}]}', "Example must be JSON object but got JSON Array"),
        ('{"examples": [{"n": [10, null]}]}', "Feature: n has element with unexpected JSON type: Null"),
        ('{"examples": [{"n": [10, 10.0]}]}', "Unexpected element type in feature: n expecting type: int64"),
        ('{"examples": [{"n": ["a", 1]}]}', "Unexpected element type in feature: n expecting type: bytes"),
        ('{"examples": [{"n": [1.5, true]}]}', "Unexpected element type in feature: n expecting type: float"),
        ('{"examples": [{"n": [10, {"test": 10}]}]}', "Feature: n has element with unexpected JSON type: Object"),
        ('{"examples": [{"n": [[10], 20]}]}', "Feature: n has element with unexpected JSON type: Array"),
        ('{"examples": [{"n": {"b64": "*"}}]}', "Unable to base64 decode"),
        (
            '{"examples": [{"n": [20, 18446744073709551603]}]}',
            "Feature: n has uint64_t element. Only int64_t is supported.",
        ),
        ('{"examples": [{"n": 1e999}]}', "JSON Parse error: Number too big to be stored in double. at offset: 20"),
    ],
)
def test_bad_examples(body: str, message: str):
    with pytest.raises(StatusError) as raised:
        read_examples(body)
    assert raised.value.code.name == "INVALID_ARGUMENT"
    assert raised.value.message.endswith(message)


def test_classifications_and_regressions():
    result = classification_pb2.ClassificationResult()
    for scores in ((0.2, 0.7), (0.7, float("nan"))):
        classes = [{"label": label, "score": score} for label, score in zip(("car", "b"), scores, strict=True)]
        result.classifications.add(classes=classes)
    assert write_classifications(result) == (
        b'{\n    "results": [[["car", 0.2], ["b", 0.7]], [["car", 0.7], ["b", NaN]]\n    ]\n}'
    )
    values = regression_pb2.RegressionResult(regressions=[{"value": 0.2}, {"value": 1}])
    assert write_regressions(values) == b'{\n    "results": [0.2, 1.0]\n}'


def test_results_without_any_entry_are_refused():
    with pytest.raises(StatusError, match="Cannot convert empty ClassificationResults to JSON"):
        write_classifications(classification_pb2.ClassificationResult())
    with pytest.raises(StatusError, match="Cannot convert empty RegressionResults to JSON"):
        write_regressions(regression_pb2.RegressionResult())


def test_errors_are_json():
    assert error_text('Bad key: "key"\n') == '{\n    "error": "Bad key: \\"key\\"\\n"\n}'
