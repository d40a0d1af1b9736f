"""The clients against servers that are down, slow, full, or answer garbage: clear errors, within the deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from pipeline.serving.async_client import AsyncRecommenderClient
from pipeline.serving.client import RecommenderClient, RetryPolicy
from pipeline.serving.errors import ServingError
from pipeline.serving.messages import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from pipeline.serving.rest_client import RestRecommenderClient
from pipeline.serving.tensors import string_array, write_tensor
from tests.serving.every_client import CLIENTS, GRPC_CLIENTS, ask
from tests.serving.misbehaving_servers import GrpcServer, HttpServer, RawServer, failing_first, unheard_address

SLACK_SECONDS = 1.0
"""What a busy machine may take on top of a deadline."""
SETTINGS = bytes.fromhex("000000040000000000")
"""The frame that an HTTP/2 server begins with."""
JSON_STATUS = {"model_version_status": [{"version": "4", "state": "AVAILABLE", "status": {"error_code": "OK"}}]}


def answer_of(version: int | None = 7, **outputs: Any) -> bytes:
    response = predict_pb2.PredictResponse()
    if version is not None:
        response.model_spec.version.value = version
    for name, array in outputs.items():
        write_tensor(array, response.outputs[name])
    return response.SerializeToString(deterministic=True)  # It becomes part of tests' names.


GOOD = answer_of(item_ids=string_array([["a", "b"]]), scores=np.array([[2.0, 1.0]], np.float32))


def failure(client: str, address: str, method: str = "recommend", *arguments: Any, **options: Any) -> ServingError:
    """Asks, and returns the error that must come of it."""
    with pytest.raises(ServingError) as raised:
        ask(client, address, method, *(arguments or ({},)), options=options)
    assert raised.value.address == address
    return raised.value


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_is_down_is_named_with_the_time_it_was_tried(client: str):
    with unheard_address() as address:
        started = time.monotonic()
        error = failure(client, address, timeout_seconds=3.0)
        took = time.monotonic() - started
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert str(error).startswith(f"{address}: UNAVAILABLE: no server answers at this address; is it running? Tried for")
    assert took < 3.0


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_is_down_is_told_from_a_slow_one_however_short_the_deadline(client: str):
    with unheard_address() as address:
        assert failure(client, address, timeout_seconds=0.8).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_never_says_a_word_runs_into_the_deadline(client: str):
    with RawServer() as server:
        started = time.monotonic()
        error = failure(client, server.address, timeout_seconds=0.4)
        took = time.monotonic() - started
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.message == "no answer within 0.4 s"
    assert 0.35 < took < 0.4 + SLACK_SECONDS


def test_an_answer_in_drops_does_not_stretch_the_deadline():
    drops = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b" " * 1000
    with RawServer(then=drops, pause_seconds=0.02) as server:
        started = time.monotonic()
        error = failure("REST", server.address, timeout_seconds=0.5)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 0.5 + SLACK_SECONDS


@pytest.mark.parametrize("client", GRPC_CLIENTS)
def test_a_slow_handler_is_given_up_and_not_asked_again(client: str):
    def sleep(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(0.8)
        return GOOD

    with GrpcServer(sleep) as server:
        error = failure(client, server.address, timeout_seconds=0.3)
        assert (error.code, error.message) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no answer within 0.3 s")
        time.sleep(0.7)
        assert len(server.paths) == 1


def test_one_deadline_covers_all_requests_of_a_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.serving.calls.MAX_BATCH", 1)

    def sleep(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(0.3)
        return GOOD

    with GrpcServer(sleep) as server:
        for client in GRPC_CLIENTS:
            started = time.monotonic()
            with pytest.raises(ServingError, match=r"DEADLINE_EXCEEDED: no answer within 0\.7 s"):
                ask(client, server.address, "similar_batch", ["a"] * 20, options={"timeout_seconds": 0.7})
            assert time.monotonic() - started < 0.7 + SLACK_SECONDS
        assert len(server.paths) <= 6


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "server",
    [
        lambda: RawServer(close=True),
        lambda: RawServer(then=b"\x00\xff\x13garbage\r\n\r\n" * 40, close=True),
        lambda: RawServer(first=b"220 smtp.example.com ESMTP\r\n" * 3),
        lambda: RawServer(first=SETTINGS, then=b"\xff" * 300),
        lambda: RawServer(first=SETTINGS, then=b"\x00" * 3, close=True),
    ],
    ids=["hangs up", "garbage", "mail server", "garbage after a handshake", "hangs up after a handshake"],
)
def test_what_speaks_another_language_is_an_error_before_the_deadline(client: str, server: Callable[[], RawServer]):
    with server() as running:
        started = time.monotonic()
        error = failure(client, running.address, timeout_seconds=2.0)
        assert time.monotonic() - started < 2.0 + SLACK_SECONDS
        assert 1 <= running.connections <= 40
    codes = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
    if client == "REST":
        codes.add(grpc.StatusCode.DEADLINE_EXCEEDED)  # HTTP has headers without end.
    assert error.code in codes
    assert error.message


def test_each_kind_of_server_on_the_others_port():
    with HttpServer(lambda path, body: (200, JSON_STATUS)) as server:
        assert failure("blocking", server.address, timeout_seconds=2.0).code is grpc.StatusCode.UNAVAILABLE
    with GrpcServer(lambda request, context: GOOD) as server_of_grpc:
        assert failure("REST", server_of_grpc.address, timeout_seconds=2.0).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("client", GRPC_CLIENTS)
def test_a_server_that_is_full_for_a_moment_is_asked_again(client: str):
    with GrpcServer(failing_first(2, grpc.StatusCode.UNAVAILABLE, GOOD)) as server:
        answer = ask(client, server.address, "recommend", {})
    assert [entry.item_id for entry in answer] == ["a", "b"]
    assert len(server.paths) == 3


@pytest.mark.parametrize("client", GRPC_CLIENTS)
def test_a_server_that_stays_full_is_asked_five_times_and_quoted(client: str):
    with GrpcServer(failing_first(99, grpc.StatusCode.UNAVAILABLE, GOOD)) as server:
        error = failure(client, server.address, retry=RetryPolicy(initial_backoff_seconds=0.01))
    assert error.message.startswith("not now (tried for ")
    assert len(server.paths) == 5


@pytest.mark.parametrize("client", GRPC_CLIENTS)
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
    ],
)
def test_other_errors_are_passed_on_at_once(client: str, code: grpc.StatusCode):
    with GrpcServer(failing_first(99, code, GOOD)) as server:
        error = failure(client, server.address)
    assert (error.code, error.message) == (code, "not now")
    assert len(server.paths) == 1


def test_retries_can_be_switched_off():
    with GrpcServer(failing_first(1, grpc.StatusCode.UNAVAILABLE, GOOD)) as server:
        failure("blocking", server.address, retry=RetryPolicy(attempts=1))
    with HttpServer(lambda path, body: (503, {"error": "full"})) as http_server:
        failure("REST", http_server.address, retry=RetryPolicy(attempts=1))
    assert (len(server.paths), len(http_server.requests)) == (1, 1)


def test_a_failing_server_is_not_hammered():
    policy = RetryPolicy(initial_backoff_seconds=0.001, budget=10)
    with (
        GrpcServer(failing_first(999, grpc.StatusCode.UNAVAILABLE, GOOD)) as server,
        HttpServer(lambda path, body: (503, {"error": "full"})) as http_server,
        RecommenderClient(server.address, retry=policy) as grpc_client,
        RestRecommenderClient(http_server.address, retry=policy) as rest_client,
    ):
        for client in (grpc_client, rest_client):
            for _ in range(20):
                with pytest.raises(ServingError):
                    client.recommend({})  # type: ignore[attr-defined]
        # Two requests of five attempts use the budget up.
        assert (len(server.paths), len(http_server.requests)) == (28, 28)


@pytest.mark.parametrize("client", GRPC_CLIENTS)
def test_a_server_that_comes_back_is_found(client: str):
    handler = failing_first(0, grpc.StatusCode.UNAVAILABLE, GOOD)
    with GrpcServer(handler) as first:
        port = int(first.address.rpartition(":")[2])

        async def with_restart_async() -> list[str]:
            async with AsyncRecommenderClient(first.address) as connected:
                await connected.recommend({})
                first.__exit__()
                with GrpcServer(handler, port=port):
                    return [entry.item_id for entry in await connected.recommend({})]

        def with_restart() -> list[str]:
            with RecommenderClient(first.address) as connected:
                connected.recommend({})
                first.__exit__()
                with GrpcServer(handler, port=port):
                    return [entry.item_id for entry in connected.recommend({})]

        items = asyncio.run(with_restart_async()) if client == "asynchronous" else with_restart()
    assert items == ["a", "b"]


@pytest.mark.parametrize("client", GRPC_CLIENTS)
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"\xff\xff\xff", "3 bytes are no PredictResponse"),
        (b"", "the output 'item_ids' is missing; received []"),
        (answer_of(scores=np.zeros((1, 2), np.float32)), "the output 'item_ids' is missing; received ['scores']"),
        (
            answer_of(item_ids=string_array([["a"]]), scores=np.array([[1]], np.int64)),
            "'scores' must be floating-point numbers; received int64",
        ),
        (
            answer_of(item_ids=np.zeros((1, 1), np.int64), scores=np.zeros((1, 1), np.float32)),
            "'item_ids' must be strings; received int64",
        ),
        (
            answer_of(item_ids=string_array([["a", "b"]]), scores=np.zeros((1, 3), np.float32)),
            "'item_ids' have the shape [1, 2], 'scores' [1, 3]",
        ),
        (
            answer_of(item_ids=string_array([["a"], ["b"]]), scores=np.zeros((2, 1), np.float32)),
            "'item_ids' must have 1 rows; received the shape [2, 1]",
        ),
        (
            answer_of(item_ids=string_array(["a"]), scores=np.zeros(1, np.float32)),
            "'item_ids' must have 1 rows; received the shape [1]",
        ),
        (
            answer_of(item_ids=string_array([[b"\xff"]]), scores=np.zeros((1, 1), np.float32)),
            r"the item id b'\xff' is no UTF-8",
        ),
        (
            answer_of(item_ids=string_array([["a"]]), scores=np.full((1, 1), np.nan, np.float32)),
            "the score of 'a' is no number",
        ),
        (
            answer_of(item_ids=string_array([["a", "b"]]), scores=np.array([[1, 2]], np.float32)),
            "the list is not in order: 'a' (1) comes before 'b' (2)",
        ),
    ],
)
def test_an_answer_that_makes_no_sense_is_said_to(client: str, answer: bytes, message: str):
    with GrpcServer(lambda request, context: answer) as server:
        error = failure(client, server.address)
    assert error.code is grpc.StatusCode.DATA_LOSS
    assert error.message == f"the answer cannot be read: {message}"


@pytest.mark.parametrize("client", GRPC_CLIENTS)
def test_tensors_that_lie_about_their_size_are_refused(client: str):
    response = predict_pb2.PredictResponse.FromString(GOOD)
    response.outputs["scores"].tensor_shape.dim[1].size = 1 << 40
    with GrpcServer(lambda request, context: response.SerializeToString()) as server:
        error = failure(client, server.address)
    assert error.code is grpc.StatusCode.DATA_LOSS
    assert "may have at most" in error.message


@pytest.mark.parametrize("client", GRPC_CLIENTS)
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((1, 1), np.float32), "'scores' have the shape [1, 1]; expected [1, 2]"),
        (np.array([[0, np.nan]], np.float32), "the score of 'b' is no number"),
        (np.zeros((2, 2), np.float32), "'scores' must have 1 rows; received the shape [2, 2]"),
    ],
)
def test_a_ranking_that_makes_no_sense_is_said_to(client: str, scores: np.ndarray, message: str):
    with GrpcServer(lambda request, context: answer_of(scores=scores)) as server, pytest.raises(ServingError) as raised:
        ask(client, server.address, "rank", {}, candidates=["a", "b"])
    assert raised.value.code is grpc.StatusCode.DATA_LOSS
    assert raised.value.message == f"the answer cannot be read: {message}"


def metadata_of(kind: str, content: bytes) -> bytes:
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata[kind].type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    response.metadata[kind].value = content
    return response.SerializeToString()


def test_metadata_that_makes_no_sense_are_said_to():
    other_type = get_model_metadata_pb2.GetModelMetadataResponse()
    other_type.metadata["signature_def"].Pack(get_model_status_pb2.GetModelStatusRequest())
    for answer, message in (
        (b"", r"the metadata lacks 'signature_def'; it has \[\]"),
        (metadata_of("other", b""), r"the metadata lacks 'signature_def'; it has \['other'\]"),
        (metadata_of("signature_def", b"\xff"), "the metadata's 'signature_def' cannot be decoded"),
        (
            other_type.SerializeToString(deterministic=True),
            r"the metadata's 'signature_def' is a '.*GetModelStatusRequest'",
        ),
    ):
        with (
            GrpcServer(lambda request, context, answer=answer: answer) as server,  # type: ignore[misc]
            pytest.raises(ServingError, match=f"DATA_LOSS: the answer cannot be read: {message}"),
        ):
            ask("blocking", server.address, "metadata")


def test_states_and_types_that_are_newer_than_the_client_are_shown_by_number():
    status = get_model_status_pb2.GetModelStatusResponse()
    status.model_version_status.add(version=3, state=77)  # type: ignore[arg-type]
    with GrpcServer(lambda request, context: status.SerializeToString()) as server:
        assert [entry.state for entry in ask("blocking", server.address, "status")] == ["77"]


@pytest.mark.parametrize(
    ("status", "content", "code", "message"),
    [
        (404, {"error": "Servable not found"}, grpc.StatusCode.NOT_FOUND, "Servable not found"),
        (400, {"error": "bad"}, grpc.StatusCode.INVALID_ARGUMENT, "bad"),
        (429, {"error": "much"}, grpc.StatusCode.RESOURCE_EXHAUSTED, "much"),
        (501, {"error": "no"}, grpc.StatusCode.UNIMPLEMENTED, "no"),
        (504, {"error": "late"}, grpc.StatusCode.DEADLINE_EXCEEDED, "late"),
        (500, b"<html>oops</html>", grpc.StatusCode.INTERNAL, "HTTP status 500: '<html>oops</html>'"),
        (418, ["tea"], grpc.StatusCode.UNKNOWN, "HTTP status 418: '[\"tea\"]'"),
        (302, b"", grpc.StatusCode.UNKNOWN, "HTTP status 302: ''"),
        (404, {"error": 5}, grpc.StatusCode.NOT_FOUND, "HTTP status 404: '{\"error\": 5}'"),
    ],
)
def test_rest_errors_carry_grpcs_codes(status: int, content: object, code: grpc.StatusCode, message: str):
    with HttpServer(lambda path, body: (status, content)) as server:
        error = failure("REST", server.address)
    assert (error.code, error.message) == (code, message)
    assert len(server.requests) == 1


def test_rest_asks_again_while_a_server_is_full():
    statuses = iter([503, 502, 200])
    outputs = {"outputs": {"item_ids": [["a"]], "scores": [[1.5]]}}
    with HttpServer(lambda path, body: (next(statuses), outputs)) as server:
        answer = ask("REST", server.address, "recommend", {})
    assert [(entry.item_id, entry.score) for entry in answer] == [("a", 1.5)]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "'<html>' is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        ([1], "expected a JSON object; received '[1]'"),
        ({"predictions": []}, "'outputs' is missing; received ['predictions']"),
        ({"outputs": {"item_ids": [["a"]]}}, "the output 'scores' is missing; received ['item_ids']"),
        ({"outputs": {"item_ids": [["a"]], "scores": [["b"]]}}, "'scores' must be floating-point numbers"),
        ({"outputs": {"item_ids": [["a"]], "scores": [[1.5, None]]}}, "'scores' is no tensor"),
        ({"outputs": {"item_ids": [["a"], []], "scores": [[1.5]]}}, "'item_ids' is no tensor"),
        ({"outputs": {"item_ids": [["a", 1]], "scores": [[1.5]]}}, "'item_ids' mixes ['bytes', 'int']"),
        ({"outputs": {"item_ids": [["a"]], "scores": [[10**400]]}}, "'scores' holds a number out of range"),
        ({"outputs": {"item_ids": [[{"b64": "?"}]], "scores": [[1.5]]}}, "'item_ids' holds invalid base64"),
        ({"outputs": {"item_ids": [[{"b64": 5}]], "scores": [[1.5]]}}, "'item_ids' holds invalid base64"),
        ({"outputs": {"item_ids": "a", "scores": 1.5}}, "'item_ids' must have 1 rows; received the shape []"),
        ({"outputs": [[1.5]]}, "the output 'item_ids' is missing; received ['outputs']"),
    ],
)
def test_a_rest_answer_that_makes_no_sense_is_said_to(content: object, message: str):
    with HttpServer(lambda path, body: (200, content)) as server:
        error = failure("REST", server.address)
    assert error.code is grpc.StatusCode.DATA_LOSS
    assert error.message.startswith("the answer cannot be read: ") and message in error.message


def test_rest_metadata_and_states_that_make_no_sense_are_said_to():
    for method, content in (
        ("status", {"model_version_status": 5}),
        ("status", {"model_version_status": [{"version": "x"}]}),
        ("metadata", {}),
        ("metadata", {"metadata": 3}),
        ("metadata", {"metadata": {"signature_def": {"signature_def": 3}}}),
    ):
        with (
            HttpServer(lambda path, body, content=content: (200, content)) as server,  # type: ignore[misc]
            pytest.raises(ServingError, match="DATA_LOSS"),
        ):
            ask("REST", server.address, method)


def test_a_cancelled_task_cancels_its_request():
    ended: list[bool] = []

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        ended.append(True)
        return GOOD

    async def run(address: str) -> None:
        async with AsyncRecommenderClient(address, timeout_seconds=30.0) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.recommend({}), 0.3)
            for _ in range(100):
                if ended:
                    return
                await asyncio.sleep(0.02)

    with GrpcServer(wait) as server:
        asyncio.run(run(server.address))
    assert ended
