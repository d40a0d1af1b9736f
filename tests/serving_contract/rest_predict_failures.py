"""How Predict over REST fails."""

from __future__ import annotations

import json

from tests.serving_contract.contract import RestCase
from tests.serving_contract.rest_requests import JSON, PREDICT, echo, error, predict_fails

_INSTANCE = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"


def rest_predict_failures() -> list[RestCase]:
    """Returns every case of Predict over REST that fails."""
    return [
        *_route_failures(),
        *_document_failures(),
        *_instances_failures(),
        *_inputs_failures(),
        *_output_failures(),
    ]


def _route_failures() -> list[RestCase]:
    body, manager = '{"instances": [1]}', "core/basic_manager.cc:139"
    label = "Unrecognized servable version label: nightly"
    return [
        predict_fails(
            "unknown model", body, "Servable not found for request: Latest(absent)", manager, path="absent", status=404
        ),
        predict_fails(
            "unknown version",
            body,
            "Servable not found for request: Specific(half_plus, 99)",
            manager,
            path="half_plus/versions/99",
            status=404,
        ),
        predict_fails(
            "unknown label", body, label, "model_servers/server_core.cc:890", path="half_plus/labels/nightly"
        ),
        predict_fails(
            "unknown model and malformed JSON",
            "[",
            "JSON Parse error: Invalid value. at offset: 1",
            487,
            path="absent",
            note="The body is read first.",
        ),
        predict_fails(
            "unknown signature",
            '{"signature_name": "absent", "instances": [1]}',
            'Serving signature name: "absent" not found in signature def',
            "model_servers/http_rest_api_handler.cc:237",
            note="Another text than over gRPC.",
        ),
    ]


def _document_failures() -> list[RestCase]:
    one_of = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
    signature = "not formatted correctly. 'signature_name' key must be a string value."

    def malformed(name: str, body: str, message: str) -> RestCase:
        return predict_fails(name, body, f"JSON Parse error: {message}", 487, note="Words of RapidJSON's parser.")

    return [
        predict_fails("empty body", "", "JSON Parse error: The document is empty", 475),
        predict_fails("no JSON", "instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0", 487),
        malformed("list cut off", '{"instances": [1, 2', "Missing a comma or ] after an array element. at offset: 19"),
        malformed("object cut off", '{"instances": [1]', "Missing a comma or } after an object member. at offset: 17"),
        malformed("string cut off", '{"instances": ["a', "Missing a closing quotation mark in string. at offset: 17"),
        malformed("no comma", '{"instances": [1 2]}', "Missing a comma or ] after an array element. at offset: 17"),
        malformed("no colon", '{"instances" [1]}', "Missing a colon after a name of object member. at offset: 13"),
        malformed("comma at the end", '{"instances": [1],}', "Missing a name for object member. at offset: 18"),
        malformed("name without quotes", "{instances: [1]}", "Missing a name for object member. at offset: 1"),
        RestCase(
            PREDICT,
            "number too large for a double",
            "POST",
            "/v1/models/half_plus:predict",
            '{"instances": [1e999]}',
            400,
            JSON + "487",
            pattern=r'"JSON Parse error: Number too big to be stored in double\. at offset: \d+"',
            note="The offset differs by RapidJSON version.",
        ),
        predict_fails("array", "[1, 2]", "JSON Value: [1, 2] Is not object", 499),
        predict_fails("string", '"instances"', 'JSON Value: "instances" Is not object', 499),
        predict_fails("number", "1.5", "JSON Value: 1.5 Is not object", 499),
        predict_fails("empty object", "{}", "Missing 'inputs' or 'instances' key", 704),
        predict_fails(
            "instances and inputs",
            '{"instances": [1], "inputs": [1]}',
            f'JSON Value: {{\n    "instances": [1],\n    "inputs": [1]\n}} {one_of}',
            679,
        ),
        predict_fails(
            "signature_name that is no string",
            '{"signature_name": 100, "instances": [1]}',
            f'JSON Value: {{\n    "signature_name": 100,\n    "instances": [1]\n}} {signature}',
            281,
        ),
        predict_fails(
            "instances that is no list",
            '{"instances": 5}',
            "JSON Value: {\n    \"instances\": 5\n} Expecting 'instances' to be an list/array",
            684,
        ),
        predict_fails(
            "empty instances",
            '{"instances": []}',
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
            688,
        ),
        predict_fails(
            "long value in a message",
            json.dumps({"instances": 5, "text": 300 * "a"}),
            f'JSON Value: {{\n    "instances": 5,\n    "text": "{300 * "a"}" '
            "Expecting 'instances' to be an list/array",
            229,
            note="A value is printed until it has 256 bytes; the element that passes the limit is whole.",
        ),
    ]


def _instances_failures() -> list[RestCase]:
    def fails(name: str, instances: str, message: str, line: int, index: int = 0) -> RestCase:
        return predict_fails(name, f'{{"instances": {instances}}}', _INSTANCE.format(index, message), line)

    text = 'JSON Value: "a" Type: String is not of expected type: float'
    multiple = (
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map"
    )
    keys = "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: {}"
    unknown = "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
    return [
        fails("string for a float", '["a"]', text, 263),
        fails("string for a float in the second instance", '[1, "a"]', text, 263, 1),
        fails("null for a float", "[null]", "JSON Value: null Type: Null is not of expected type: float", 263),
        fails("boolean for a float", "[true]", "JSON Value: true Type: True is not of expected type: float", 263),
        fails("instances of different lengths", "[[1, 2], [3]]", "Expecting tensor size: 2 but got: 1", 463, 1),
        fails("instances of different ranks", "[1, [1]]", "Expecting shape [] but got: [1]", 466, 1),
        fails("instances of different shapes", "[[1, 2], [[3, 4]]]", "Expecting shape [2] but got: [1,2]", 466, 1),
        fails(
            "ragged lists within an instance",
            "[[[1, 2], [3]]]",
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
            424,
        ),
        fails("list after a value", "[[1, [2]]]", "Encountered list at unexpected level: 1 expected < 1", 418),
        fails(
            "value after a list",
            "[[[1], 2]]",
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
            399,
        ),
        predict_fails(
            "value after an object",
            '{"instances": [{"x": 1}, 2]}',
            "Expecting object but got list at item 1 of input list",
            553,
        ),
        predict_fails(
            "object after a value",
            '{"instances": [1, {"x": 1}]}',
            "Expecting value/list but got object at item 1 of input list",
            576,
        ),
        predict_fails(
            "unknown input",
            '{"instances": [{"x": 1, "z": 2}]}',
            unknown + "JSON object: does not have named input: z",
            449,
        ),
        predict_fails("plain values for two inputs", '{"instances": [1, 2]}', multiple, 527, path="tensors"),
        predict_fails(
            "one input of two",
            '{"instances": [{"a": 1}]}',
            keys.format('{\n    "a": 1\n}', "a,b"),
            569,
            path="tensors",
        ),
        predict_fails("object without inputs", '{"instances": [{}]}', keys.format("{}", "x"), 569),
    ]


def _inputs_failures() -> list[RestCase]:
    def fails(name: str, dtype: str, inputs: str, message: str, line: int, status: int = 400) -> RestCase:
        body = f'{{"signature_name": "echo_{dtype}", "inputs": {inputs}}}'
        return predict_fails(name, body, message, line, path="tensors", status=status)

    wrong = "JSON Value: {} Type: {} is not of expected type: {}"
    multiple = (
        "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
    )
    base64 = '{\n    "b64": "AA=="\n}'
    return [
        predict_fails("plain inputs for two", '{"inputs": [1]}', multiple, 619, path="tensors"),
        predict_fails(
            "inputs without one",
            '{"inputs": {"a": [1]}}',
            "Missing named input: b in 'inputs' object.",
            635,
            path="tensors",
        ),
        fails(
            "inputs of ragged lists",
            "float",
            "[[1, 2], [3]]",
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
            424,
        ),
        fails("fraction for an integer", "int32", "[1.5]", wrong.format("1.5", "Number", "int32"), 263),
        fails(
            "whole number written as a fraction for an integer",
            "int64",
            "[1.0]",
            wrong.format("1.0", "Number", "int64"),
            263,
        ),
        fails(
            "integer out of int32's range", "int32", "[3000000000]", wrong.format("3000000000", "Number", "int32"), 263
        ),
        fails(
            "integer out of int64's range",
            "int64",
            "[9223372036854775808]",
            wrong.format("9223372036854775808", "Number", "int64"),
            263,
        ),
        fails("negative unsigned integer", "uint32", "[-1]", wrong.format("-1", "Number", "uint32"), 263),
        fails("number for a boolean", "bool", "[1]", wrong.format("1", "Number", "bool"), 263),
        fails("number for a string", "string", "[1]", wrong.format("1", "Number", "string"), 263),
        fails("base64 for a float", "float", '[{"b64": "AA=="}]', wrong.format(base64, "Object", "float"), 263),
        fails("broken base64", "string", '[{"b64": "?"}]', "Unable to base64 decode", 386),
        fails(
            "object that is no base64",
            "string",
            '[{"text": "a"}]',
            'JSON Value: {\n    "text": "a"\n} not formatted correctly for base64 data',
            270,
        ),
        fails("data type without JSON", "half", "[1]", "Conversion of JSON Value: 1 to type: half", 337, 501),
        predict_fails(
            "data type without JSON, in instances",
            echo("half", "[1]"),
            "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: "
            "Conversion of JSON Value: 1 to type: half",
            584,
            path="tensors",
            note="400, where `inputs` gives 501.",
        ),
    ]


def _output_failures() -> list[RestCase]:
    def uneven(name: str, size: int, other: int) -> str:
        return error(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {other}")

    return [
        predict_fails(
            "scalar output for instances",
            '{"signature_name": "scalar", "instances": [1, 2]}',
            "Tensor name: sum has no shape information ",
            987,
            path="tensors",
        ),
        RestCase(
            PREDICT,
            "outputs of different lengths for instances",
            "POST",
            "/v1/models/tensors:predict",
            '{"signature_name": "uneven", "instances": [1]}',
            400,
            JSON + "992",
            (uneven("one", 1, 2), uneven("two", 2, 1)),
            note="Which output is named depends on a map's order.",
        ),
        RestCase(
            PREDICT,
            "inputs that do not fit each other",
            "POST",
            "/v1/models/tensors:predict",
            '{"inputs": {"a": [1, 2], "b": [1, 2, 3]}}',
            400,
            "TensorFlow: core/util/bcast.h",
            pattern=r"Incompatible shapes: \[2\] vs\. \[3\]",
            note="Text of TensorFlow's runtime; more may follow.",
        ),
    ]
