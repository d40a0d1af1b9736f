"""Predict: what it answers, and how it fails."""

from __future__ import annotations

import grpc

from tests.serving_contract.contract import Answer, Failure, RpcCase
from tests.serving_contract.lookup_cases import lookup_failures
from tests.serving_contract.messages import entry, floats, request, spec, tensor

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_UTIL = "servables/tensorflow/predict_util.cc:"
_TENSOR = "TensorFlow: core/framework/tensor.cc, Tensor::FromProto"
_INPUTS = "TensorFlow: cc/saved_model/util.cc, GetInputValues"
_RUNTIME = "Text of TensorFlow's runtime; more may follow."

_ECHOES: dict[str, tuple[str, str, tuple[object, ...]]] = {
    "float": ("DT_FLOAT", "float_val", (0.1, "-inf", "nan")),
    "double": ("DT_DOUBLE", "double_val", (0.1, 1e300)),
    "half": ("DT_HALF", "half_val", (15360, 49152)),
    "bfloat16": ("DT_BFLOAT16", "half_val", (16256, 49152)),
    "int8": ("DT_INT8", "int_val", (-128, 127)),
    "int16": ("DT_INT16", "int_val", (-32768, 32767)),
    "int32": ("DT_INT32", "int_val", (-2147483648, 2147483647)),
    "int64": ("DT_INT64", "int64_val", (-9223372036854775808, 9223372036854775807)),
    "uint8": ("DT_UINT8", "int_val", (0, 255)),
    "uint16": ("DT_UINT16", "int_val", (0, 65535)),
    "uint32": ("DT_UINT32", "uint32_val", (0, 4294967295)),
    "uint64": ("DT_UINT64", "uint64_val", (0, 18446744073709551615)),
    "bool": ("DT_BOOL", "bool_val", ("true", "false")),
    "string": ("DT_STRING", "string_val", (r'"a\000b"', r'"\377"', '""')),
    "complex64": ("DT_COMPLEX64", "scomplex_val", (1.5, -2.5)),
}


def predict_cases() -> list[RpcCase]:
    """Returns every case of Predict."""
    lookups = lookup_failures("Predict", floats("x", 1), "servables/tensorflow/predict_impl.cc:37")
    return (
        lookups
        + _signature_failures()
        + _input_failures()
        + _run_failures()
        + _answers()
        + _input_answers()
        + _echoes()
    )


def _fails(
    name: str, text: str, message: str, source: str, note: str = "", code: grpc.StatusCode = _INVALID
) -> RpcCase:
    return RpcCase("Predict", name, request("Predict", text), Failure(code, message), source, note)


def _answers_with(name: str, text: str, answer: str, source: str, note: str = "") -> RpcCase:
    return RpcCase("Predict", name, request("Predict", text), Answer(answer), source, note)


def _output(name: str, *values: object, shape: tuple[int, ...] | None = None) -> str:
    shape = (len(values),) if shape is None else shape
    return entry("outputs", name, tensor("DT_FLOAT", shape, "float_val", *values))


def _half_plus(version: int, output: str, signature: str = "serving_default") -> str:
    return output + spec(version=version, signature_name=signature)


def _signature_failures() -> list[RpcCase]:
    unknown = 'Serving signature key "{}" not found.'
    long_name = "s" * 2000
    return [
        _fails(
            "unknown signature",
            spec(signature_name="absent") + floats("x", 1),
            unknown.format("absent"),
            _UTIL + "92",
            code=grpc.StatusCode.FAILED_PRECONDITION,
        ),
        _fails(
            "model without a default signature",
            spec("misfits") + floats("x", 1),
            unknown.format("serving_default"),
            _UTIL + "92",
            code=grpc.StatusCode.FAILED_PRECONDITION,
        ),
        _fails(
            "message of more than 1024 bytes",
            spec(signature_name=long_name) + floats("x", 1),
            unknown.format(long_name)[:1024] + "...TRUNCATED",
            "model_servers/grpc_status_util.cc:25",
            code=grpc.StatusCode.FAILED_PRECONDITION,
        ),
        _fails(
            "unknown output in output_filter",
            spec() + floats("x", 1) + 'output_filter: "z" ',
            "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
            _UTIL + "138",
        ),
        _fails(
            "output named twice in output_filter",
            spec() + floats("x", 1) + 'output_filter: "y" output_filter: "y" ',
            "duplicate output tensor alias: y",
            _UTIL + "146",
        ),
    ]


def _input_failures() -> list[RpcCase]:
    size = "input size does not match signature: "
    content = "dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: "
    parsing = "tensor parsing error: x"

    def unparsable(name: str, value: str, note: str = "") -> RpcCase:
        return _fails(name, spec() + entry("inputs", "x", value), parsing, _INPUTS, note)

    return [
        _fails(
            "no inputs",
            spec(),
            size + "0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
            _UTIL + "63",
        ),
        _fails(
            "one input of two",
            spec("tensors") + floats("b", 1),
            size + "1!=2 len({b}) != len({a,b}). Sent extra: {}. Missing but required: {a}.",
            _UTIL + "63",
        ),
        _fails(
            "one input too many",
            spec() + floats("x", 1) + floats("z", 1),
            size + "2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
            _UTIL + "63",
        ),
        _fails(
            "other inputs, and too many",
            spec() + floats("v", 1) + floats("w", 1),
            size + "2!=1 len({v,w}) != len({x}). Sent extra: {v,w}. Missing but required: {x}.",
            _UTIL + "63",
        ),
        _fails(
            "misnamed input",
            spec("plain") + floats("z", 1),
            "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
            "Inputs expected to be in the request {z}, or default input alias set: ",
            _INPUTS,
        ),
        _fails(
            "misnamed input where the signature has a default",
            spec("tensors", signature_name="with_default") + floats("a", 1) + floats("z", 1),
            "Inputs contains invalid name. Used request inputs: a, request input: a,z",
            _INPUTS,
        ),
        unparsable("tensor without a data type", "float_val: 1"),
        unparsable("tensor_content too short for the shape", content + r'"\000\000\200\077"'),
        unparsable("tensor_content too long for the shape", content + r'"123456789012"'),
        unparsable("negative dimension", tensor("DT_FLOAT", (-1,), "float_val", 1)),
        unparsable(
            "dimensions whose product overflows",
            tensor("DT_FLOAT", (1 << 40, 1 << 40), "float_val", 1),
            "A request cannot make the server take memory for a shape that it only declares.",
        ),
        unparsable("more elements than memory has addresses", tensor("DT_FLOAT", (1 << 62,), "float_val", 1)),
        unparsable("reference data type", tensor("DT_FLOAT_REF", (1,), "float_val", 1)),
    ]


def _run_failures() -> list[RpcCase]:
    def fails(name: str, text: str, pattern: str, source: str) -> RpcCase:
        return RpcCase("Predict", name, request("Predict", text), Failure(_INVALID, None, pattern), source, _RUNTIME)

    strings = entry("inputs", "x", tensor("DT_STRING", (1,), "string_val", '"1"'))
    doubles = entry("inputs", "x", tensor("DT_DOUBLE", (1,), "double_val", 1))
    garbage = entry("inputs", "inputs", tensor("DT_STRING", (1,), "string_val", '"garbage"'))
    empty = entry("inputs", "inputs", tensor("DT_STRING", (1,), "string_val", '""'))
    matrix = entry("inputs", "inputs", tensor("DT_STRING", (1, 1), "string_val", '""'))
    source = "servables/tensorflow/predict_util_test.cc:"
    runtime = "TensorFlow: core/util/example_proto_fast_parsing.cc"
    return [
        fails(
            "strings for floats",
            spec("plain") + strings,
            r"^Expects arg\[0\] to be float but string is provided",
            source + "329",
        ),
        fails(
            "doubles for floats",
            spec("plain") + doubles,
            r"^Expects arg\[0\] to be float but double is provided",
            source + "271",
        ),
        fails(
            "output that is an input",
            spec("tensors", signature_name="fed_and_fetched") + floats("a", 1),
            "^a:0 is both fed and fetched",
            "TensorFlow: core/graph/subgraph.cc",
        ),
        fails(
            "shapes that do not fit each other",
            spec("tensors") + floats("a", 1, 2) + floats("b", 1, 2, 3),
            r"Incompatible shapes: \[2\] vs\. \[3\]",
            "TensorFlow: core/util/bcast.h",
        ),
        fails(
            "garbage for an Example",
            spec(signature_name="regress_x_to_y") + garbage,
            "Could not parse example input, value: 'garbage'",
            runtime,
        ),
        fails(
            "Example without a required feature",
            spec(signature_name="regress_x_to_y") + empty,
            r"Feature: x \(data type: float\) is required but could not be found",
            runtime,
        ),
        fails(
            "matrix of Examples",
            spec(signature_name="regress_x_to_y") + matrix,
            r"serialized.*\[1,1\]|\[1,1\].*serialized",
            "TensorFlow: core/kernels/example_parsing_ops.cc",
        ),
    ]


def _answers() -> list[RpcCase]:
    both = floats("a", 1, 2) + floats("b", 3, 4)
    total, product = _output("sum", 4, 6), _output("product", 3, 8)
    tensors = spec("tensors", version=1, signature_name="serving_default")
    spec_source = _UTIL + "97"
    return [
        _answers_with("latest version", spec() + floats("x", 1, 2), _half_plus(3, _output("y", 3.5, 4)), spec_source),
        _answers_with("version", spec(version=2) + floats("x", 1), _half_plus(2, _output("y", 2.5)), spec_source),
        _answers_with(
            "label",
            spec(version_label="stable") + floats("x", 1),
            _half_plus(2, _output("y", 2.5)),
            "model_servers/server_core.cc:853",
            "The response names the version, not the label.",
        ),
        _answers_with(
            "another label",
            spec(version_label="canary") + floats("x", 1),
            _half_plus(3, _output("y", 3.5)),
            "model_servers/server_core.cc:853",
        ),
        _answers_with(
            "version folder with leading zeros",
            spec("plain") + floats("x", 1),
            _output("y", 4.5) + spec("plain", version=4, signature_name="serving_default"),
            "sources/storage_path/file_system_storage_path_source.cc:87",
        ),
        _answers_with(
            "older version beside one that could not be loaded",
            spec("broken") + floats("x", 1),
            _output("y", 1.5) + spec("broken", version=1, signature_name="serving_default"),
            "core/basic_manager.cc:132",
        ),
        _answers_with(
            "signature of a method name that is none of the three",
            spec(signature_name="unusual_method") + floats("x", 1),
            _half_plus(3, _output("y", 3.5), "unusual_method"),
            "model_servers/server.h:102",
            "--enable_signature_method_name_check is off by default.",
        ),
        _answers_with("every output", spec("tensors") + both, total + product + tensors, _UTIL + "156"),
        _answers_with(
            "output_filter", spec("tensors") + both + 'output_filter: "sum" ', total + tensors, _UTIL + "135"
        ),
        _answers_with(
            "default value of an input",
            spec("tensors", signature_name="with_default") + floats("a", 1, 2),
            _output("sum", 11, 12) + spec("tensors", version=1, signature_name="with_default"),
            _INPUTS,
        ),
        _answers_with(
            "own value for an input with a default",
            spec("tensors", signature_name="with_default") + both,
            total + spec("tensors", version=1, signature_name="with_default"),
            _INPUTS,
        ),
        _answers_with(
            "scalar output",
            spec("tensors", signature_name="scalar") + floats("a", 1, 2),
            _output("sum", 3, shape=()) + spec("tensors", version=1, signature_name="scalar"),
            _UTIL + "177",
        ),
        _answers_with(
            "strings in, strings and numbers out",
            spec("recommender", signature_name="similar")
            + entry("inputs", "item_ids", tensor("DT_STRING", (1,), "string_val", '"i3"')),
            entry(
                "outputs",
                "item_ids",
                tensor("DT_STRING", (1, 5), "string_val", *('"i0"', '"i1"', '"i2"', '"i4"', '"i5"')),
            )
            + _output("scores", 1, -1, -2, -4, -5, shape=(1, 5))
            + spec("recommender", version=1, signature_name="similar"),
            _UTIL + "177",
        ),
    ]


def _input_answers() -> list[RpcCase]:
    def answers(name: str, value: str, output: str, note: str = "") -> RpcCase:
        answer = output + spec("tensors", version=1, signature_name="echo_float")
        text = spec("tensors", signature_name="echo_float") + entry("inputs", "value", value)
        return _answers_with(name, text, answer, _TENSOR, note)

    content = r'dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: "\000\000\200\077\000\000\000\100"'
    return [
        answers(
            "tensor_content", content, _output("echo", 1, 2), "Outputs are in the fields of their type all the same."
        ),
        answers(
            "fewer values than the shape has elements",
            tensor("DT_FLOAT", (4,), "float_val", 1, 2),
            _output("echo", 1, 2, 2, 2),
            "The last value fills the rest.",
        ),
        answers("no values", tensor("DT_FLOAT", (2,), "float_val"), _output("echo", 0, 0), "Zeros fill the shape."),
        answers(
            "more values than the shape has elements",
            tensor("DT_FLOAT", (1,), "float_val", 1, 2),
            _output("echo", 1),
            "The surplus is ignored.",
        ),
        answers("values in the field of another type", tensor("DT_FLOAT", (1,), "double_val", 5), _output("echo", 0)),
        answers("no elements", tensor("DT_FLOAT", (0, 3), "float_val"), _output("echo", shape=(0, 3))),
        answers("scalar", tensor("DT_FLOAT", (), "float_val", 1), _output("echo", 1, shape=())),
        _answers_with(
            "scalar string",
            spec("tensors", signature_name="echo_string")
            + entry("inputs", "value", tensor("DT_STRING", (), "string_val", '"a"')),
            entry("outputs", "echo", tensor("DT_STRING", (), "string_val", '"a"'))
            + spec("tensors", version=1, signature_name="echo_string"),
            _TENSOR,
        ),
        answers("matrix", tensor("DT_FLOAT", (1, 2), "float_val", 1, 2), _output("echo", 1, 2, shape=(1, 2))),
        _answers_with(
            "rank other than the signature's",
            spec() + floats("x", 1, 2, shape=(1, 1, 2)),
            _half_plus(3, _output("y", 3.5, 4, shape=(1, 1, 2))),
            _UTIL + "121",
            "The declared shapes are not enforced.",
        ),
        _answers_with(
            "integer out of its type's range",
            spec("tensors", signature_name="echo_int8")
            + entry("inputs", "value", tensor("DT_INT8", (1,), "int_val", 300)),
            entry("outputs", "echo", tensor("DT_INT8", (1,), "int_val", 44))
            + spec("tensors", version=1, signature_name="echo_int8"),
            _TENSOR,
            "It wraps around.",
        ),
    ]


def _echoes() -> list[RpcCase]:
    cases = []
    for name, (dtype, field, values) in _ECHOES.items():
        count = len(values) // (2 if name == "complex64" else 1)
        value = tensor(dtype, (count,), field, *values)
        signature = f"echo_{name}"
        text = spec("tensors", signature_name=signature) + entry("inputs", "value", value)
        answer = entry("outputs", "echo", value) + spec("tensors", version=1, signature_name=signature)
        cases.append(_answers_with(f"{name} in and out", text, answer, _UTIL + "177", f"Values are in `{field}`."))
    return cases
