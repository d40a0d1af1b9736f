"""What a client sees on the wire beyond single answers: states, parallel requests, health and metrics."""

from __future__ import annotations

import concurrent.futures
import json
import re

import grpc
import pytest

from pipeline.serving.messages import get_model_status_pb2, health_pb2, health_pb2_grpc, predict_pb2
from tests.serving_contract.configuration import STATES
from tests.serving_contract.messages import entry, floats, parse, spec, tensor
from tests.serving_contract.server import Server

METRICS_PATH = "/monitoring/prometheus/metrics"
_COUNT = r"^:tensorflow:serving:request_count\{{model_name=\"{}\",status=\"{}\"\}} (\d+)$"
_LATENCY = r"^:tensorflow:serving:request_latency_count\{{model_name=\"plain\",API=\"{}\",entrypoint=\"{}\"\}} (\d+)$"


def predict(server: Server, text: str) -> predict_pb2.PredictResponse:
    response = server.call("Predict", parse(text, predict_pb2.PredictRequest()))
    assert isinstance(response, predict_pb2.PredictResponse)
    return response


def statuses(server: Server, text: str) -> list[get_model_status_pb2.ModelVersionStatus]:
    response = server.call("GetModelStatus", parse(text, get_model_status_pb2.GetModelStatusRequest()))
    assert isinstance(response, get_model_status_pb2.GetModelStatusResponse)
    return list(response.model_version_status)


@pytest.mark.parametrize("model", STATES)
def test_versions_are_in_their_states_newest_first(server: Server, model: str):
    received = server.states(model)
    assert STATES[model].items() <= received.items()
    assert list(received) == sorted(received, reverse=True)


def test_state_numbers_are_those_of_the_protocol(server: Server):
    assert [(status.version, status.state) for status in statuses(server, spec("broken"))] == [(2, 50), (1, 30)]


def test_version_that_could_not_be_loaded_says_why(server: Server):
    (status,) = statuses(server, spec("broken", version=2))
    assert status.status.error_code == grpc.StatusCode.DATA_LOSS.value[0]
    assert re.fullmatch(r"Can't parse .*/broken/2/saved_model\.pb as binary proto", status.status.error_message)


def test_error_of_a_version_is_in_the_state_over_rest(rest: Server):
    status, _, body = rest.http("GET", "/v1/models/broken/versions/2")
    (version,) = json.loads(body)["model_version_status"]
    assert (status, version["state"], version["status"]["error_code"]) == (200, "END", "DATA_LOSS")


def test_outputs_are_in_the_field_of_their_type_even_when_large(server: Server):
    values = [float(value) for value in range(5000)]
    output = predict(server, spec("plain") + floats("x", *values)).outputs["y"]
    assert output.tensor_content == b"" and list(output.float_val) == [value / 2 + 4 for value in values]


def test_equal_values_are_all_sent(server: Server):
    value = tensor("DT_STRING", (1000,), "string_val", '"same"')
    request = spec("tensors", signature_name="echo_string") + entry("inputs", "value", value)
    assert list(predict(server, request).outputs["echo"].string_val) == 1000 * [b"same"]


def test_parallel_requests_each_get_their_own_answer(server: Server):
    def answers(number: int) -> list[tuple[list[float], int]]:
        label, added = (("stable", 2), ("canary", 3))[number % 2]
        responses = []
        for size in range(1, 11):
            x = [1000.0 * number + index for index in range(size)]
            response = predict(server, spec(version_label=label) + floats("x", *x))
            expected = [value / 2 + added for value in x]
            assert list(response.outputs["y"].float_val) == expected
            responses.append((expected, response.model_spec.version.value))
        return responses

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(answers, range(16)))
    assert [{version for _, version in result} for result in results] == 8 * [{2}, {3}]


def test_parallel_rest_requests_each_get_their_own_answer(rest: Server):
    def answer(number: int) -> object:
        body = json.dumps({"instances": [number, number + 1]})
        return json.loads(rest.http("POST", "/v1/models/plain:predict", body.encode())[2])

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(answer, range(16))) == [{"predictions": [n / 2 + 4, n / 2 + 4.5]} for n in range(16)]


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.PredictionService/Recommend",
        "/tensorflow.serving.ModelService/Recommend",
        "/tensorflow.serving.SessionService/SessionRun",
        "/other.Service/Predict",
    ],
)
def test_unknown_method_is_unimplemented(server: Server, method: str):
    with pytest.raises(grpc.RpcError) as raised:
        server.channel.unary_unary(method)(b"", timeout=10)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_request_that_is_no_message_fails_and_the_server_goes_on(server: Server):
    with pytest.raises(grpc.RpcError) as raised:
        server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(b"\xff\xff\xff", timeout=10)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert list(predict(server, spec("plain") + floats("x", 1)).outputs["y"].float_val) == [4.5]


def test_large_request_is_answered(server: Server):
    values = 1_500_000 * [2.0]  # Past gRPC's usual limit of 4 MiB.
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "plain"
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=len(values))
    request.inputs["x"].float_val.extend(values)
    response = server.call("Predict", request)
    assert isinstance(response, predict_pb2.PredictResponse)
    assert list(response.outputs["y"].float_val) == len(values) * [5.0]


@pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
def test_health_service_says_serving(server: Server, service: str):
    assert _health(server, service) == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(server: Server):
    _health(server, "")
    with pytest.raises(grpc.RpcError) as raised:
        _health(server, "OtherService")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_requests_are_counted_by_model_and_status(rest: Server):
    before = _metrics(rest)
    predict(rest, spec("plain") + floats("x", 1))
    with pytest.raises(grpc.RpcError):
        predict(rest, spec("plain"))
    rest.http("POST", "/v1/models/plain:predict", b'{"instances": [1]}')
    after = _metrics(rest)
    assert _value(after, _COUNT.format("plain", "OK")) - _value(before, _COUNT.format("plain", "OK")) == 2
    failures = _COUNT.format("plain", "INVALID_ARGUMENT")
    assert _value(after, failures) - _value(before, failures) == 1
    for api, entry_point in (("Predict", "GRPC"), ("predict", "REST")):
        latency = _LATENCY.format(api, entry_point)
        assert _value(after, latency) - _value(before, latency) == 1


def test_metrics_have_tensorflow_servings_names_and_types(rest: Server):
    predict(rest, spec("plain") + floats("x", 1))
    page = _metrics(rest)
    for name, kind in (
        (":tensorflow:serving:request_count", "counter"),
        (":tensorflow:serving:request_latency", "histogram"),
        (":tensorflow:serving:runtime_latency", "histogram"),
    ):
        assert f"# TYPE {name} {kind}\n" in page
    bucket = (
        r':tensorflow:serving:request_latency_bucket\{model_name="plain",API="Predict",entrypoint="GRPC",le="(.+)"\}'
    )
    limits = re.findall(rf"^{bucket} \d+$", page, re.MULTILINE)
    assert limits[:3] == ["10", "18", "32.4"] and limits[-1] == "+Inf" and len(limits) == 34


def _health(server: Server, service: str) -> int:
    try:
        request = health_pb2.HealthCheckRequest(service=service)
        return health_pb2_grpc.HealthStub(server.channel).Check(request, timeout=10).status
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            pytest.skip("the server runs without --enable_grpc_healthcheck_service")
        raise


def _metrics(server: Server) -> str:
    status, headers, body = server.http("GET", METRICS_PATH)
    if status == 404:
        pytest.skip("the server runs without --monitoring_config_file")
    assert (status, headers["Content-Type"]) == (200, "text/plain")
    return body.decode()


def _value(page: str, pattern: str) -> int:
    match = re.search(pattern, page, re.MULTILINE)
    return int(match[1]) if match else 0
