"""The REST API over a real socket: TensorFlow Serving's URLs, answers, statuses and errors, to the byte."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import parser

from pipeline.serving.server import rest
from pipeline.serving.server.admission import Admission
from pipeline.serving.server.metrics import ServerMetrics
from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import export_arithmetic, export_half_plus_two, export_recommender, publish
from tests.serving.server.servers import export_counter, models_config, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("rest")
    exports = {"half": export_half_plus_two, "arithmetic": export_arithmetic, "films": export_recommender}
    for name, export in exports.items():
        publish(export(folder / f"{name}.model"), folder / name, 123)
    config = folder / "models.config"
    text = models_config(**{name: folder / name for name in exports})
    label = 'version_labels { key: "stable/1" value: 123 } '
    config.write_text(text.replace('name: "half"', f'name: "half" {label}'))
    with running_server(
        wait_for=3,
        model_config_file=str(config),
        allow_version_labels_for_unavailable_models=True,
        metrics_path="/metrics",
        rest_api_enable_cors_support=True,
        max_message_bytes=1 << 20,
    ) as server:
        yield server


Answer = tuple[int, str, dict[str, str]]


def send(
    server: ModelServer, method: str, path: str, body: str | bytes | None = None, headers: dict[str, str] | None = None
) -> Answer:
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    try:
        connection.request(method, path, body.encode() if isinstance(body, str) else body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.headers)
    finally:
        connection.close()


def error(text: str) -> str:
    return f'{{\n    "error": {json.dumps(text)}\n}}'


@pytest.mark.parametrize("place", ["", "/versions/123", "/labels/stable%2F1"])
@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        ("predict", '{"instances": [1.0, 2.0]}', '{\n    "predictions": [2.5, 3.0\n    ]\n}'),
        (
            "predict",
            '{"signature_name": "serving_default", "inputs": [3.0, 4.0]}',
            '{\n    "outputs": [\n        3.5,\n        4.0\n    ]\n}',
        ),
        (
            "regress",
            '{"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}',
            '{\n    "results": [42.0]\n}',
        ),
        (
            "classify",
            '{"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]}',
            '{\n    "results": [[["", 12.0]]\n    ]\n}',
        ),
    ],
)
def test_models_answer(server: ModelServer, place: str, method: str, body: str, answer: str):
    status, text, headers = send(server, "POST", f"/v1/models/half{place}:{method}", body)
    assert (status, text) == (200, answer)
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) == len(answer)


def test_recommendations_over_rest(server: ModelServer):
    status, text, _ = send(server, "POST", "/v1/models/films:predict", '{"instances": [{"b64": ""}]}')
    (answer,) = json.loads(text)["predictions"]
    assert (status, answer["item_ids"]) == (200, ["i0", "i1", "i2", "i3", "i4"])


@pytest.mark.parametrize("place", ["", "/versions/123", "/labels/stable%2F1"])
def test_status(server: ModelServer, place: str):
    status, text, headers = send(server, "GET", f"/v1/models/half{place}")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert text == (
        '{\n "model_version_status": [\n  {\n   "version": "123",\n   "state": "AVAILABLE",\n   "status": {\n'
        '    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
    )


def test_metadata(server: ModelServer):
    status, text, _ = send(server, "GET", "/v1/models/half/metadata")
    assert status == 200
    assert text.startswith(
        '{\n"model_spec":{\n "name": "half",\n "version": "123",\n "signature_name": ""\n}\n,\n'
        '"metadata": {"signature_def": {\n "signature_def": {\n  "classify_x_to_y": {\n   "inputs": {\n'
    )
    assert text.endswith("}\n}\n}\n")
    signature = json.loads(text)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "name": "x:0",
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
    }
    assert signature["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/v1/foo", None, 400, "Malformed request: GET /v1/foo"),
        ("POST", "/v1/foo", "", 400, "Malformed request: POST /v1/foo"),
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("GET", "/v1/models/debug/name", None, 400, "Malformed request: GET /v1/models/debug/name"),
        ("POST", "/v1/models", "", 400, "Malformed request: POST /v1/models"),
        ("GET", "/v1/models/half:predict", None, 400, "Malformed request: GET /v1/models/half:predict"),
        ("POST", "/v1/models/half/version/50:predict", "", 400,
         "Malformed request: POST /v1/models/half/version/50:predict"),
        ("POST", "/v1/models/half/versions/x:predict", "", 400,
         "Malformed request: POST /v1/models/half/versions/x:predict"),
        ("POST", "/v1/models/half/versions/1/labels/a:predict", "", 400,
         "Malformed request: POST /v1/models/half/versions/1/labels/a:predict"),
        ("POST", "/v1/models/half:PREDICT", '{"instances": [1]}', 400,
         "Malformed request: POST /v1/models/half:PREDICT"),
        ("POST", "/v1/models/half:predict?x=1", "{}", 400, "Malformed request: POST /v1/models/half:predict?x=1"),
        ("PUT", "/v1/models/half:predict", "{}", 400, "Malformed request: PUT /v1/models/half:predict"),
        ("DELETE", "/v1/models/half", None, 400, "Malformed request: DELETE /v1/models/half"),
        ("POST", "/v1/models/foo:predict", '{"instances": [1]}', 404, "Servable not found for request: Latest(foo)"),
        ("POST", "/v1/models/half/versions/50:predict", '{"instances": [1]}', 404,
         "Servable not found for request: Specific(half, 50)"),
        ("POST", "/v1/models/half/labels/x:predict", '{"instances": [1]}', 400,
         "Unrecognized servable version label: x"),
        ("POST", "/v1/models/half:predict", "", 400, "JSON Parse error: The document is empty"),
        ("POST", "/v1/models/half:predict", "instances = [1, 2]", 400,
         "JSON Parse error: Invalid value. at offset: 0"),
        ("POST", "/v1/models/half:predict", '{"instances": ["x", "y"]}', 400,
         "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"x\" Type: String is "
         "not of expected type: float"),
        ("POST", "/v1/models/half:predict", '{"instances": [' + "9" * 400 + "]}", 400,
         "JSON Parse error: Number too big to be stored in double. at offset: 15"),
        ("POST", "/v1/models/half:predict", '{"signature_name": "x", "instances": [1]}', 400,
         'Serving signature name: "x" not found in signature def'),
        ("POST", "/v1/models/half:classify", '{"examples": [{"x": 1.0}]}', 400, None),
        ("POST", "/v1/models/half:regress", '{"signature_name": "x", "examples": [{"x": 1.0}]}', 400, None),
        ("GET", "/v1/models/foo", None, 404, "Could not find any versions of model foo"),
        ("GET", "/v1/models/half/versions/7", None, 404, "Could not find version 7 of model half"),
        ("GET", "/v1/models/foo/metadata", None, 404, "Servable not found for request: Latest(foo)"),
    ],
)  # fmt: skip
def test_errors(server: ModelServer, method: str, path: str, body: str | None, status: int, message: str | None):
    received, text, headers = send(server, method, path, body)
    assert received == status
    assert headers["Content-Type"] == "application/json"
    assert text == (error(message) if message is not None else error(json.loads(text)["error"]))


def test_a_version_beyond_64_bits_is_refused_without_a_word(server: ModelServer):
    """TensorFlow Serving finds it while it takes the URL apart, before it begins an answer."""
    status, text, headers = send(server, "POST", f"/v1/models/half/versions/{2**64 - 1}:regress", "")
    assert (status, text, headers["Content-Type"]) == (400, "", "application/json")


@pytest.mark.parametrize("path", ["/", "/v2/models/half", "/v1", "/metric"])
def test_other_paths_are_not_found(server: ModelServer, path: str):
    status, text, headers = send(server, "GET", path)
    assert (status, headers["Content-Type"], headers["Connection"]) == (404, "text/html", "close")
    assert text == ("<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n")


def test_head_has_no_body(server: ModelServer):
    status, text, _ = send(server, "HEAD", "/v1/models/half")
    assert (status, text) == (400, "")


def test_other_methods_are_not_implemented(server: ModelServer):
    assert send(server, "PROPFIND", "/v1/models/half")[0] == 501


def test_cross_origin_requests(server: ModelServer):
    preflight = send(server, "OPTIONS", "/v1/models/half:predict", headers={"Origin": "https://example.org"})
    assert preflight[:2] == (200, "")
    for headers in (preflight[2], send(server, "GET", "/v1/models/half")[2], send(server, "GET", "/v1/foo")[2]):
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Allow-Methods"] == "POST, GET"
        assert headers["Access-Control-Allow-Headers"] == "Content-Type"
    assert send(server, "OPTIONS", "/v1/models/half:predict")[:2] == (400, "")


def test_compressed_requests(server: ModelServer):
    packed = gzip.compress(b'{"instances": [2]}')
    headers = {"Content-Encoding": "gzip"}
    assert send(server, "POST", "/v1/models/half:predict", packed, headers)[1] == '{\n    "predictions": [3.0\n    ]\n}'
    status, text, _ = send(server, "POST", "/v1/models/half:predict", packed[:-9], headers)
    assert (status, text) == (400, error("JSON Parse error: The document is empty"))


def test_requests_that_are_too_large_are_refused(server: ModelServer):
    body = b'{"instances": [1' + b" " * (1 << 20) + b"]}"
    for sent, headers in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        status, text, answered = send(server, "POST", "/v1/models/half:predict", sent, headers)
        assert (status, text) == (413, error("The request is larger than 1048576 bytes"))
        assert answered["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("packed", [False, True])
def test_large_requests_and_answers_leave_the_event_loop_alone(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, packed: bool
):
    threads: dict[str, set[str]] = {}

    def noting(name: str) -> None:
        function = getattr(rest, name)

        def call(*arguments: object) -> object:
            threads.setdefault(name, set()).add(threading.current_thread().name.partition("_")[0])
            return function(*arguments)

        monkeypatch.setattr(rest, name, call)

    for name in ("read_predict_request", "write_predict_response", "read_examples_request", "write_regressions"):
        noting(name)

    def post(method: str, document: object) -> list[float]:
        body = json.dumps(document).encode()
        body, headers = (gzip.compress(body), {"Content-Encoding": "gzip"}) if packed else (body, {})
        status, text, _ = send(server, "POST", f"/v1/models/half:{method}", body, headers)
        assert status == 200
        return next(iter(json.loads(text).values()))

    numbers = [float(number) for number in range(40_000)]
    assert post("predict", {"instances": numbers}) == [number / 2 + 2 for number in numbers]
    examples = [{"x": number} for number in numbers]
    assert post("regress", {"signature_name": "regress_x_to_y", "examples": examples})[:2] == [2.0, 2.5]
    assert set.union(*threads.values()) == {"rest-conversion"}
    assert len(threads) == 4
    threads.clear()
    post("predict", {"instances": [1.0]})
    assert threads == {"read_predict_request": {"event-loop"}, "write_predict_response": {"event-loop"}}


def test_requests_are_admitted_before_their_body_is_read(tmp_path: Path):
    publish(export_half_plus_two(tmp_path / "model"), tmp_path / "base", 1)
    with running_server(model_base_path=str(tmp_path / "base"), model_name="half", max_queued_requests=1) as server:
        host, _, port = server.rest_address.rpartition(":")
        head = "POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"
        with socket.create_connection((host, int(port)), 10) as waiting:
            waiting.sendall(head.encode())
            deadline = time.monotonic() + 10
            while (answer := send(server, "POST", "/v1/models/half:predict", '{"instances": [2]}'))[0] == 200:
                assert time.monotonic() < deadline
            assert answer[:2] == (429, error("Server Threadpool Exhausted"))
            assert send(server, "GET", "/v1/models/half")[0] == 200  # Only runs are bounded.
            waiting.sendall(b'{"instances": [2]}')
            assert waiting.recv(1000).startswith(b"HTTP/1.1 200 OK")
        with socket.create_connection((host, int(port)), 10) as leaving:
            leaving.sendall(head.encode())
        deadline = time.monotonic() + 10
        while send(server, "POST", "/v1/models/half:predict", '{"instances": [2]}')[0] != 200:
            assert time.monotonic() < deadline  # Who goes away leaves its place.


def test_a_cancelled_request_keeps_its_place_until_its_thread_is_done(monkeypatch: pytest.MonkeyPatch):
    may_end, has_begun = threading.Event(), threading.Event()

    def read(*unused: object) -> bool:
        has_begun.set()
        assert may_end.wait(10)
        return True

    monkeypatch.setattr(rest, "read_predict_request", read)
    admission = Admission(1)

    async def run() -> None:
        api = rest.RestApi(None, None, ServerMetrics(), admission, rest.RestOptions())  # type: ignore[arg-type]
        body = b" " * (rest.LARGE_REQUEST_BYTES + 1)
        async with TestClient(TestServer(api.application(), handler_cancellation=True)) as client:
            sending = asyncio.create_task(client.post("/v1/models/half:predict", data=body))
            await asyncio.to_thread(has_begun.wait, 10)
            sending.cancel()
            await asyncio.wait([sending])
            await asyncio.sleep(0.2)
            assert admission.in_flight == 1
            may_end.set()
            deadline = time.monotonic() + 10
            while admission.in_flight:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_body_that_does_not_come_does_not_keep_its_place(tmp_path: Path):
    publish(export_half_plus_two(tmp_path / "model"), tmp_path / "base", 1)
    with running_server(
        model_base_path=str(tmp_path / "base"), model_name="half", rest_api_timeout_in_ms=200
    ) as server:
        host, _, port = server.rest_address.rpartition(":")
        with socket.create_connection((host, int(port)), 10) as connection:
            head = "POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 504 Gateway Timeout")


def test_clients_may_wait_for_leave_to_send_the_body(server: ModelServer):
    host, _, port = server.rest_address.rpartition(":")
    body = b'{"instances": [2]}'
    with socket.create_connection((host, int(port)), 10) as connection:
        head = f"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(head.encode() + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        reader = connection.makefile("rb")
        assert reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert reader.readline() == b"\r\n"
        connection.sendall(body)
        assert b'"predictions": [3.0' in reader.read()


def test_connections_are_kept(server: ModelServer):
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    for _ in range(2):
        connection.request("GET", "/v1/models/half")
        assert connection.getresponse().read().startswith(b'{\n "model_version_status"')
        assert connection.sock is not None
    connection.close()


def test_metrics_page(server: ModelServer):
    def count(name: str, **labels: str) -> float:
        status, text, headers = send(server, "GET", "/metrics")
        assert (status, headers["Content-Type"]) == (200, "text/plain")
        return sum(
            sample.value
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f":tensorflow:serving:{name}" and labels.items() <= sample.labels.items()
        )

    keys = [
        ("request_count_total", {"model_name": "half", "status": "OK"}),
        ("request_count_total", {"model_name": "half", "status": "INVALID_ARGUMENT"}),
        ("request_count_total", {"model_name": "absent", "status": "NOT_FOUND"}),
        ("request_latency_count", {"model_name": "half", "API": "predict", "entrypoint": "REST"}),
        ("runtime_latency_count", {"model_name": "half", "API": "Predict", "runtime": "TF1"}),
    ]
    before = [count(name, **labels) for name, labels in keys]
    send(server, "POST", "/v1/models/half:predict", '{"instances": [2]}')
    send(server, "POST", "/v1/models/half:predict", "[")
    send(server, "POST", "/v1/models/absent:predict", '{"instances": [2]}')
    assert [count(name, **labels) for name, labels in keys] == [value + 1 for value in before]


def test_the_metrics_page_has_one_address(server: ModelServer):
    status, text, headers = send(server, "GET", "/metrics?x=1")
    assert (status, text) == (400, "Unexpected path: /metrics?x=1. Should be /metrics")
    assert headers["Content-Type"] == "text/plain"


def test_without_metrics_and_cors_there_is_neither(tmp_path: Path):
    publish(export_counter(tmp_path / "model"), tmp_path / "base", 1)
    with running_server(
        model_base_path=str(tmp_path / "base"), model_name="counter", rest_api_timeout_in_ms=200
    ) as server:
        assert send(server, "GET", "/metrics")[0] == 404
        assert "Access-Control-Allow-Origin" not in send(server, "GET", "/v1/models/counter")[2]
        assert send(server, "POST", "/v1/models/counter:predict", '{"inputs": 10}')[1] == '{\n    "outputs": 10\n}'
        status, text, _ = send(server, "POST", "/v1/models/counter:predict", '{"inputs": 100000}')
        assert (status, text) == (504, error("Timed out waiting for notification"))
