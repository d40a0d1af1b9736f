"""Classify, Regress, the state of models and their metadata over REST, and the routes themselves."""

from __future__ import annotations

from tests.serving_contract.contract import RestCase
from tests.serving_contract.rest_requests import error

_JSON = "util/json_tensor.cc:"
_API = "model_servers/http_rest_api_util.cc:"
_HANDLER = "model_servers/http_rest_api_handler.cc:"
_PLAIN_METADATA = """{
"model_spec":{
 "name": "plain",
 "version": "4",
 "signature_name": ""
}
,
"metadata": {"signature_def": {
 "signature_def": {
  "serving_default": {
   "inputs": {
    "x": {
     "name": "x:0",
     "dtype": "DT_FLOAT",
     "tensor_shape": {
      "dim": [
       {
        "size": "-1",
        "name": ""
       }
      ],
      "unknown_rank": false
     }
    }
   },
   "outputs": {
    "y": {
     "name": "y:0",
     "dtype": "DT_FLOAT",
     "tensor_shape": {
      "dim": [
       {
        "size": "-1",
        "name": ""
       }
      ],
      "unknown_rank": false
     }
    }
   },
   "method_name": "tensorflow/serving/predict",
   "defaults": {}
  }
 }
}
}
}
"""


def rest_cases() -> list[RestCase]:
    """Returns every case over REST other than Predict's."""
    return [
        *_results(),
        *_input_failures("classify"),
        *_input_failures("regress"),
        *_status(),
        *_metadata(),
        *_routes(),
    ]


def _case(
    route: str, name: str, target: str, body: str, status: int, answer: str, source: str, note: str = ""
) -> RestCase:
    method = route.partition(" ")[0]
    return RestCase(route, name, method, f"/v1/models{target}", body, status, source, (answer,), note=note)


def _input_failures(method: str) -> list[RestCase]:
    route, signature = f"POST …:{method}", f'"signature_name": "{method}_x_to_y", '

    def fails(name: str, body: str, message: str, line: int, note: str = "") -> RestCase:
        return _case(route, name, f"/half_plus:{method}", body, 400, error(message), f"{_JSON}{line}", note)

    def example(name: str, example: str, message: str, line: int) -> RestCase:
        return fails(name, f'{{{signature}"examples": [{example}]}}', message, line)

    unexpected = "Feature: x has element with unexpected JSON type: "
    return [
        fails("empty body", "", "JSON Parse error: The document is empty", 475),
        fails(
            "no examples",
            "{}",
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
            839,
            "It says classify for both methods.",
        ),
        fails(
            "signature_name that is no string",
            '{"signature_name": ["a"], "examples": []}',
            'JSON Value: {\n    "signature_name": ["a"],\n    "examples": []\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
            281,
        ),
        fails(
            "examples that are no list",
            '{"examples": {"x": 1.0}}',
            'JSON Value: {\n    "examples": {\n        "x": 1.0\n    }\n} '
            "Expecting 'examples' value to be an list/array",
            844,
        ),
        fails(
            "empty list of examples",
            '{"examples": []}',
            "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
            849,
        ),
        fails(
            "context that is no object",
            '{"context": [1], "examples": [{}]}',
            "Example must be JSON object but got JSON Array",
            799,
        ),
        example("example that is a number", "1", "Example must be JSON object but got JSON Number", 799),
        example("example that is a list", "[1]", "Example must be JSON object but got JSON Array", 799),
        example("null for a feature", '{"x": null}', unexpected + "Null", 741),
        example("list of lists for a feature", '{"x": [[1.0]]}', unexpected + "Array", 764),
        example("object for a feature", '{"x": {"y": 1}}', unexpected + "Object", 753),
        example(
            "integer and float in a feature",
            '{"x": [1, 1.5]}',
            "Unexpected element type in feature: x expecting type: int64",
            731,
        ),
        example(
            "float and string in a feature",
            '{"x": [1.5, "a"]}',
            "Unexpected element type in feature: x expecting type: float",
            731,
        ),
        example(
            "string and boolean in a feature",
            '{"x": ["a", true]}',
            "Unexpected element type in feature: x expecting type: bytes",
            731,
        ),
        example(
            "integer out of int64's range",
            '{"x": 18446744073709551603}',
            "Feature: x has uint64_t element. Only int64_t is supported.",
            785,
        ),
        RestCase(
            route,
            "integer for a float feature",
            "POST",
            f"/v1/models/half_plus:{method}",
            f'{{{signature}"examples": [{{"x": 1}}]}}',
            400,
            "TensorFlow: core/util/example_proto_fast_parsing.cc",
            pattern="Data types don't match",
            note="Text of TensorFlow's runtime; more may follow.",
        ),
        _case(
            route,
            "unknown signature",
            f"/half_plus:{method}",
            '{"signature_name": "absent", "examples": [{"x": 1.0}]}',
            400,
            error("No signature was found with the name: absent"),
            f"servables/tensorflow/{'classifier.cc:159' if method == 'classify' else 'regressor.cc:154'}",
        ),
        _case(
            route,
            "unknown model",
            f"/absent:{method}",
            '{"examples": [{"x": 1.0}]}',
            404,
            error("Servable not found for request: Latest(absent)"),
            "core/basic_manager.cc:139",
        ),
    ]


def _results() -> list[RestCase]:
    def classify(name: str, signature: str, examples: str, rows: str, target: str = "half_plus") -> RestCase:
        body = f'{{"signature_name": "{signature}", "examples": {examples}}}'
        answer = f'{{\n    "results": [{rows}\n    ]\n}}'
        return _case("POST …:classify", name, f"/{target}:classify", body, 200, answer, _JSON + "1068")

    def regress(name: str, signature: str, rest: str, values: str, target: str = "half_plus") -> RestCase:
        body = f'{{"signature_name": "{signature}", {rest}}}'
        answer = f'{{\n    "results": [{values}]\n}}'
        return _case("POST …:regress", name, f"/{target}:regress", body, 200, answer, _JSON + "1104")

    two = '[{"x": 1.0}, {"x": [4.0]}]'
    context = '"context": {"x2": 4.0}, "examples": [{"x": 1.0}, {"x": 2.0}]'
    return [
        classify("scores only", "classify_x_to_y", two, '[["", 3.5]], [["", 5.0]]'),
        classify("classes only", "classify_x_to_labels", two[:11] + "]", '[["half", 0.0], ["whole", 0.0]]'),
        classify(
            "classes and scores", "classify_x", two, '[["half", 3.5], ["whole", 7.0]], [["half", 5.0], ["whole", 10.0]]'
        ),
        classify("label", "classify_x_to_y", two[:11] + "]", '[["", 2.5]]', "half_plus/labels/stable"),
        regress("two examples", "regress_x_to_y", f'"examples": {two}', "3.5, 5.0"),
        regress("label", "regress_x_to_y", f'"examples": {two}', "2.5, 4.0", "half_plus/labels/stable"),
        regress("context", "regress_x2_to_y", context, "5.0, 5.0"),
        regress("infinite feature", "regress_x_to_y", '"examples": [{"x": Infinity}, {"x": NaN}]', "Infinity, NaN"),
    ]


def _status() -> list[RestCase]:
    def version(number: int) -> str:
        return (
            f'  {{\n   "version": "{number}",\n   "state": "AVAILABLE",\n   "status": {{\n    "error_code": "OK",\n'
            '    "error_message": ""\n   }\n  }'
        )

    def states(*numbers: int) -> str:
        return '{\n "model_version_status": [\n' + ",\n".join(map(version, numbers)) + "\n ]\n}\n"

    def case(name: str, target: str, status: int, answer: str, source: str, note: str = "") -> RestCase:
        return _case("GET /v1/models/…", name, target, "", status, answer, source, note)

    implementation = "model_servers/get_model_status_impl.cc:"
    none, absent = "Could not find any versions of model absent", "Could not find version 99 of model half_plus"
    return [
        case("one version", "/plain", 200, states(4), _API + "133"),
        case("two versions", "/half_plus", 200, states(3, 2), _API + "133"),
        case("version", "/half_plus/versions/2", 200, states(2), _API + "133"),
        case("label", "/half_plus/labels/stable", 200, states(3, 2), implementation + "102", "Labels are ignored."),
        case(
            "query",
            "/plain?verbose=1",
            404,
            error("Could not find any versions of model plain?verbose=1"),
            "util/net_http/server/internal/evhttp_request.cc:136",
            "A query is no query but part of the path.",
        ),
        case("unknown model", "/absent", 404, error(none), implementation + "99"),
        case("unknown version", "/half_plus/versions/99", 404, error(absent), implementation + "89"),
        case("no model", "", 400, error("Missing model name in request."), _HANDLER + "188"),
    ]


def _metadata() -> list[RestCase]:
    def case(name: str, target: str, status: int, answer: str, source: str, note: str = "") -> RestCase:
        return _case("GET …/metadata", name, f"{target}/metadata", "", status, answer, source, note)

    not_found = "Servable not found for request: "
    label = error("Unrecognized servable version label: nightly")
    return [
        case("signatures", "/plain", 200, _PLAIN_METADATA, _API + "194", "Fields come in the order of their numbers."),
        case("version", "/plain/versions/4", 200, _PLAIN_METADATA, _API + "194"),
        case("unknown model", "/absent", 404, error(not_found + "Latest(absent)"), "core/basic_manager.cc:139"),
        case(
            "unknown version",
            "/plain/versions/9",
            404,
            error(not_found + "Specific(plain, 9)"),
            "core/basic_manager.cc:139",
        ),
        case("unknown label", "/plain/labels/nightly", 400, label, "model_servers/server_core.cc:890"),
        case(
            "no model",
            "",
            404,
            error("Could not find any versions of model metadata"),
            _API + "34",
            "`metadata` is taken for the model's name, and its state asked for.",
        ),
    ]


def _routes() -> list[RestCase]:
    def malformed(method: str, path: str, note: str = "", body: str = "") -> RestCase:
        answer = error(f"Malformed request: {method} {path}")
        return RestCase("routes", f"{method} {path}", method, path, body, 400, _HANDLER + "74", (answer,), note=note)

    too_large = "/v1/models/plain/versions/18446744073709551615"
    return [
        malformed("GET", "/v1/other"),
        malformed("POST", "/v1/other"),
        malformed("GET", "/v1/models/plain:predict"),
        malformed("POST", "/v1/models/plain"),
        malformed("POST", "/v1/models"),
        malformed("POST", "/v1/models/plain/metadata"),
        malformed("POST", "/v1/models/plain:recommend"),
        malformed("POST", "/v1/models/plain:Predict", "Paths match in any case, but a method so matched is none."),
        malformed("POST", "/v1/models/plain:predict?verbose=1", "A query is no query but part of the path."),
        malformed("GET", "/v1/models/plain/other"),
        malformed("GET", "/v1/models/plain/version/4"),
        malformed("GET", "/v1/models/plain/versions/four"),
        malformed("GET", "/v1/models/plain/versions/-4"),
        malformed("POST", "/v1/models/plain/versions/4/labels/stable:predict"),
        malformed("POST", "/v1/models/:predict"),
        malformed("PUT", "/v1/models/plain:predict", body='{"instances": [1]}'),
        malformed("DELETE", "/v1/models/plain"),
        RestCase(
            "routes",
            "version out of int64's range",
            "GET",
            too_large,
            "",
            400,
            _API + "118",
            ("",),
            note="The message is lost, and the body empty.",
        ),
        RestCase(
            "routes",
            "OPTIONS without an origin",
            "OPTIONS",
            "/v1/models/plain",
            "",
            400,
            "model_servers/http_server.cc:175",
            ("",),
        ),
        RestCase(
            "routes",
            "path in capitals",
            "GET",
            "/V1/Models/plain/Metadata",
            "",
            200,
            _API + "34",
            note="`Metadata` is not `metadata`, so the state of the model is the answer.",
            pattern=r'^\{\n "model_version_status": \[',
        ),
        RestCase("routes", "GET /", "GET", "/", "", 404, "model_servers/http_server.cc:148", note="Any body."),
        RestCase(
            "routes",
            "GET /v2/models/plain",
            "GET",
            "/v2/models/plain",
            "",
            404,
            "model_servers/http_server.cc:148",
            note="Any body.",
        ),
    ]
