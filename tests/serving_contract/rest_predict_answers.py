"""What Predict answers over REST."""

from __future__ import annotations

from tests.serving_contract.contract import RestCase
from tests.serving_contract.rest_requests import JSON, PREDICT, columns_of, echo, predict, rows_of


def rest_predict_answers() -> list[RestCase]:
    """Returns every case of Predict over REST that succeeds."""
    return [*_rows(), *_columns(), *_values(), *_leniencies()]


def _rows() -> list[RestCase]:
    def row(keys: tuple[str, str], values: dict[str, str]) -> str:
        lines = ",\n".join(f'            "{key}": {values[key]}' for key in keys)
        return f"        {{\n{lines}\n        }}"

    def named(*rows: dict[str, str]) -> tuple[str, ...]:
        keys = tuple(rows[0])
        orders = ((keys[0], keys[1]), (keys[1], keys[0]))
        return tuple(
            '{\n    "predictions": [\n' + ",\n".join(row(order, values) for values in rows) + "\n    ]\n}"
            for order in orders
        )

    source = 976
    return [
        predict("instances", '{"instances": [1, 2]}', rows_of("3.5, 4.0"), source),
        predict("instances of a version", '{"instances": [1]}', rows_of("2.5"), source, path="half_plus/versions/2"),
        predict("instances of a label", '{"instances": [1]}', rows_of("2.5"), source, path="half_plus/labels/stable"),
        predict("named instances", '{"instances": [{"x": 1}, {"x": 2}]}', rows_of("3.5, 4.0"), source),
        predict("lists as instances", '{"instances": [[1, 2], [3, 4]]}', rows_of("[3.5, 4.0], [4.5, 5.0]"), source),
        predict("lists of lists as instances", '{"instances": [[[1], [2]]]}', rows_of("[[3.5], [4.0]]"), source),
        predict("signature_name", '{"signature_name": "unusual_method", "instances": [1]}', rows_of("3.5"), source),
        RestCase(
            PREDICT,
            "two outputs in rows",
            "POST",
            "/v1/models/tensors:predict",
            '{"instances": [{"a": 1, "b": 3}, {"a": 2, "b": 4}]}',
            200,
            f"{JSON}{source}",
            named({"sum": "4.0", "product": "3.0"}, {"sum": "6.0", "product": "8.0"}),
            note="The outputs come in a map's order.",
        ),
        RestCase(
            PREDICT,
            "two outputs of lists in rows",
            "POST",
            "/v1/models/tensors:predict",
            '{"signature_name": "mixed", "instances": [{"a": 1, "value": ["p", "q"]}]}',
            200,
            f"{JSON}{source}",
            named({"total": "2.0", "text": '["p", "q"]'}),
            note="The outputs come in a map's order.",
        ),
        predict(
            "bytes out in rows",
            '{"signature_name": "echo_bytes", "instances": [{"b64": "aGVsbG8="}, "tf"]}',
            rows_of('{\n            "b64": "aGVsbG8="\n        }, {\n            "b64": "dGY="\n        }'),
            913,
            path="tensors",
            note="Strings of an output named `…_bytes` are base64.",
        ),
        RestCase(
            PREDICT,
            "strings in, strings and numbers out",
            "POST",
            "/v1/models/recommender:predict",
            '{"signature_name": "similar", "instances": ["i3"]}',
            200,
            f"{JSON}{source}",
            named({"item_ids": '["i0", "i1", "i2", "i4", "i5"]', "scores": "[1.0, -1.0, -2.0, -4.0, -5.0]"}),
            note="The outputs come in a map's order.",
        ),
    ]


def _columns() -> list[RestCase]:
    def named(*outputs: tuple[str, str]) -> str:
        lines = ",\n".join(f'        "{key}": [\n            {value}\n        ]' for key, value in outputs)
        return f'{{\n    "outputs": {{\n{lines}\n    }}\n}}'

    source, total, product = 1028, ("sum", "4.0"), ("product", "3.0")
    nested = '{\n    "outputs": [\n        [\n            3.5,\n            4.0\n        ]\n    ]\n}'
    return [
        predict("inputs", '{"inputs": [1, 2]}', columns_of("3.5", "4.0"), source),
        predict("inputs of a label", '{"inputs": [1]}', columns_of("2.5"), source, path="half_plus/labels/stable"),
        predict("named inputs", '{"inputs": {"x": [1]}}', columns_of("3.5"), source),
        predict("scalar input", '{"inputs": 1}', '{\n    "outputs": 3.5\n}', source),
        predict("matrix input", '{"inputs": [[1, 2]]}', nested, source),
        predict("empty inputs", '{"inputs": []}', '{\n    "outputs": []\n}', source),
        predict(
            "scalar output",
            '{"signature_name": "scalar", "inputs": [1, 2]}',
            '{\n    "outputs": 3.0\n}',
            source,
            path="tensors",
        ),
        RestCase(
            PREDICT,
            "two outputs in columns",
            "POST",
            "/v1/models/tensors:predict",
            '{"inputs": {"a": [1], "b": [3]}}',
            200,
            f"{JSON}{source}",
            (named(total, product), named(product, total)),
            note="The outputs come in a map's order.",
        ),
        predict(
            "inputs that the signature does not have",
            '{"inputs": {"x": [1], "z": [2]}}',
            columns_of("3.5"),
            631,
            note="They are ignored, unlike in `instances`.",
        ),
        predict(
            "base64 as the whole input",
            '{"signature_name": "echo_string", "inputs": {"b64": "aGVsbG8="}}',
            '{\n    "outputs": "hello"\n}',
            617,
            path="tensors",
        ),
        predict(
            "bytes out in columns",
            '{"signature_name": "echo_bytes", "inputs": ["tf"]}',
            '{\n    "outputs": [\n        {\n            "b64": "dGY="\n        }\n    ]\n}',
            913,
            path="tensors",
        ),
    ]


def _values() -> list[RestCase]:
    def values(name: str, dtype: str, sent: str, received: str, source: int, note: str = "") -> RestCase:
        return predict(name, echo(dtype, f"[{sent}]"), rows_of(received), source, path="tensors", note=note)

    return [
        values(
            "floats",
            "float",
            "0.1, 0.5, 16777216, 1e20, 0.00003, 0.333333343, -0.0, 100000, 1000000, 1234567, 0.0000001",
            "0.1, 0.5, 16777216.0, 1e+20, 3e-05, 0.333333343, -0.0, 100000.0, 1e+06, 1234567.0, 1e-07",
            125,
            "Six digits if they give the number back, nine otherwise; `.0` after a whole number.",
        ),
        values(
            "doubles",
            "double",
            "0.1, 2.5, 1234567.5, 1e300, 0.1234567, 4503599627370497",
            "0.1, 2.5, 1234567.5, 1e+300, 0.1234567, 4503599627370497.0",
            125,
            "Six digits if they give the number back, 17 otherwise.",
        ),
        values(
            "numbers that are not finite",
            "float",
            "NaN, Infinity, -Infinity, Inf, -Inf",
            "NaN, Infinity, -Infinity, Infinity, -Infinity",
            163,
        ),
        values("integers", "int32", "0, -2147483648, 2147483647", "0, -2147483648, 2147483647", 903),
        values(
            "long integers",
            "int64",
            "9007199254740993, -9223372036854775808",
            "9007199254740993, -9223372036854775808",
            923,
        ),
        values("unsigned integers", "uint32", "4294967295", "4294967295", 931),
        values("long unsigned integers", "uint64", "18446744073709551615", "18446744073709551615", 935),
        values("bytes as numbers", "uint8", "0, 255", "0, 255", 903),
        values("booleans", "bool", "true, false", "true, false", 927),
        values("strings", "string", '"a", "", "é/"', '"a", "", "é/"', 918),
        values(
            "escapes",
            "string",
            r'"\"\\\n\t\u001f\u00e9"',
            r'"\"\\\n\t\u001F' + 'é"',
            918,
            "Hexadecimal digits are capitals.",
        ),
        values(
            "strings that are no text", "string", '{"b64": "/w=="}', '"\udcff"', 918, "The bytes go out as they are."
        ),
        values("base64 in", "string", '{"b64": "aGVsbG8="}', '"hello"', 383),
    ]


def _leniencies() -> list[RestCase]:
    return [
        predict("text after the document", '{"instances": [1]}x', rows_of("3.5"), 485),
        predict("byte order mark", '\ufeff{"instances": [1]}', rows_of("3.5"), 481),
        predict("keys of no meaning", '{"instances": [1], "note": {"a": [null]}}', rows_of("3.5"), 675),
        predict(
            "key given twice", '{"instances": [1], "instances": [2]}', rows_of("3.5"), 675, note="The first counts."
        ),
        predict(
            "deeply nested value",
            '{"instances": [1], "note": ' + 500 * "[" + 500 * "]" + "}",
            rows_of("3.5"),
            483,
            note="TensorFlow Serving takes any depth.",
        ),
        predict(
            "empty signature_name",
            '{"signature_name": "", "instances": [1]}',
            rows_of("3.5"),
            "model_servers/http_rest_api_handler.cc:233",
        ),
        predict(
            "escaped label",
            '{"instances": [1]}',
            rows_of("2.5"),
            "model_servers/http_rest_api_util.cc:124",
            path="half_plus/labels/st%61ble",
        ),
        predict(
            "escaped model name",
            '{"instances": [1]}',
            rows_of("3.5"),
            "model_servers/http_rest_api_util.cc:110",
            path="half%5Fplus",
        ),
    ]
