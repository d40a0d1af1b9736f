"""The clients against the local server, over sockets: three ways to the same answers."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest

from modules.features import parse_schema
from pipeline.config import load_config
from pipeline.serving.async_client import AsyncRecommenderClient
from pipeline.serving.client import (
    HistoryEvent,
    Query,
    Recommendation,
    RecommenderClient,
    RetryPolicy,
    Signature,
    TensorInfo,
    VersionState,
)
from pipeline.serving.errors import RequestError, ServingError
from pipeline.serving.process import ServerProcess
from pipeline.serving.rest_client import RestRecommenderClient
from pipeline.serving.tensors import string_array
from tests.serving.every_client import CLIENTS, GRPC_CLIENTS, ask, ask_in_turn
from tests.serving.misbehaving_servers import GrpcServer, HttpServer, failing_first, unheard_address
from tests.serving.saved_models import CATALOGUE, export_arithmetic, export_recommender, publish
from tests.serving.test_client_faults import GOOD

SCHEMA = parse_schema(load_config("movielens-100k").read_schema_text())
AVAILABLE = b"\x0a\x04\x08\x05\x10\x1e"
"""A GetModelStatusResponse: version 5 is AVAILABLE."""
CONFIG = """
model_config_list {{
  config {{
    name: "recommender" base_path: "{folder}/recommender" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 5 versions: 6 }} }}
    version_labels {{ key: "stable" value: 5 }}
  }}
  config {{ name: "arithmetic" base_path: "{folder}/arithmetic" model_platform: "tensorflow" }}
}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Version 5 recommends i3 first and is `stable`; version 6, the latest, recommends i4 first."""
    folder = tmp_path_factory.mktemp("serving")
    for version, first in ((5, "i3"), (6, "i4")):
        publish(export_recommender(folder / f"model{version}", first=first), folder / "recommender", version)
    publish(export_arithmetic(folder / "numbers"), folder / "arithmetic", 1)
    config = folder / "models.config"
    config.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    options = (f"--model_config_file={config}", "--model_base_path=", "--allow_version_labels_for_unavailable_models")
    with ServerProcess("", "recommender", with_rest=True, options=options) as server:
        for model in ("recommender", "arithmetic"):
            with RecommenderClient(server.address, model, label="stable" if model == "recommender" else None) as client:
                assert client.wait_until_available(60.0)
        yield server


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return request.param


def query(server: ServerProcess, client: str, method: str, *arguments: Any, **named: Any) -> Any:
    """Calls a method of a client of the stable version."""
    options = {"schema": SCHEMA, "label": "stable"} | named.pop("options", {})
    address = server.rest_address if client == "REST" else server.address
    return ask(client, address, method, *arguments, options=options, **named)


def test_recommends(server: ServerProcess, client: str):
    history = [HistoryEvent("i0", 880_000_000, 5.0)]
    answer = query(server, client, "recommend", {"user_id": "u", "age": 30}, history, seen=["i2"], k=3)
    assert answer == [Recommendation("i3", 1.0), Recommendation("i1", -1.0), Recommendation("i4", -4.0)]
    assert len(query(server, client, "recommend", {}, k=100)) == 5


def test_a_long_history_is_masked_as_a_whole(server: ServerProcess, client: str):
    history = [HistoryEvent("i3", 1)] + [HistoryEvent("i0", second) for second in range(2, 90)]
    assert [item.item_id for item in query(server, client, "recommend", {}, history, k=2)] == ["i1", "i2"]
    everything = [HistoryEvent(item_id, 1) for item_id in CATALOGUE]
    assert query(server, client, "recommend", {}, everything) == []


def test_a_batch_is_answered_in_order_however_it_is_split(
    server: ServerProcess, client: str, monkeypatch: pytest.MonkeyPatch
):
    users = [Query({"user_id": f"u{number}"}, seen=[CATALOGUE[number % 12]]) for number in range(25)]
    alone = [query(server, client, "recommend", user.user, seen=user.seen, k=4) for user in users]
    for most in (128, 7, 25):
        monkeypatch.setattr("pipeline.serving.calls.MAX_BATCH", most)
        assert query(server, client, "recommend_batch", users, k=4) == alone
    assert query(server, client, "recommend_batch", []) == []
    assert len({tuple(answer) for answer in alone}) > 1


def test_ranks_candidates(server: ServerProcess, client: str):
    assert query(server, client, "rank", {"user_id": "u"}, candidates=["i2", "unknown", "i3", "i1", "i1"]) == [
        Recommendation("i3", 1.0),
        Recommendation("i1", -1.0),
        Recommendation("i1", -1.0),
        Recommendation("i2", -2.0),
        Recommendation("unknown", -math.inf),
    ]


def test_finds_similar_items(server: ServerProcess, client: str):
    assert [item.item_id for item in query(server, client, "similar", "i3", k=2)] == ["i0", "i1"]
    assert query(server, client, "similar", "unknown") == []
    several = query(server, client, "similar_batch", ["i0", "unknown", "i3"], k=1)
    assert [[item.item_id for item in answer] for answer in several] == [["i3"], [], ["i0"]]


def test_describes_the_model(server: ServerProcess, client: str):
    assert sorted(query(server, client, "status"), key=lambda state: state.version) == [
        VersionState(5, "AVAILABLE", ""),
        VersionState(6, "AVAILABLE", ""),
    ]
    assert query(server, client, "status", options={"label": None, "version": 6}) == [VersionState(6, "AVAILABLE", "")]
    assert query(server, client, "metadata")["rank"] == Signature(
        {"examples": TensorInfo("string", (None,)), "candidate_ids": TensorInfo("string", (None, None))},
        {"scores": TensorInfo("float", (None, None))},
    )


def test_chooses_the_version_by_label_or_number_or_takes_the_latest(server: ServerProcess, client: str):
    for options, first in (
        ({"label": "stable"}, "i3"),
        ({"label": None}, "i4"),
        ({"label": None, "version": 5}, "i3"),
        ({"label": None, "version": 6}, "i4"),
    ):
        for answer in (
            query(server, client, "recommend", {}, k=1, options=options),
            query(server, client, "rank", {}, candidates=CATALOGUE, options=options),
        ):
            assert answer[0].item_id == first
            expected = {"i3": 5, "i4": 6}[first] if client != "REST" else options.get("version")
            assert answer.model_version == expected


def test_runs_any_signature(server: ServerProcess, client: str):
    numbers = {"a": np.array([1, 2], np.float32), "b": np.array([0.5, 4], np.float32)}
    options = {"model_name": "arithmetic", "label": None}
    outputs = query(server, client, "predict", "serving_default", numbers, options=options)
    np.testing.assert_array_equal(outputs["sum"], np.array([1.5, 6], np.float32))
    np.testing.assert_array_equal(outputs["product"], np.array([0.5, 8], np.float32))
    assert {array.dtype for array in outputs.values()} == {np.dtype(np.float32)}
    assert outputs.model_version == (None if client == "REST" else 1)


def test_the_servers_errors_are_typed(server: ServerProcess, client: str):
    address = server.rest_address if client == "REST" else server.address
    garbage = {"examples": string_array([b"garbage"])}
    for method, arguments, options, code, message in (
        ("predict", ("serving_default", garbage), {}, grpc.StatusCode.INVALID_ARGUMENT, "Could not parse example"),
        ("recommend", ({},), {"model_name": "films", "label": None}, grpc.StatusCode.NOT_FOUND, "films"),
        ("recommend", ({},), {"label": None, "version": 4}, grpc.StatusCode.NOT_FOUND, "4"),
        ("recommend", ({},), {"label": "gone"}, grpc.StatusCode.INVALID_ARGUMENT, "gone"),
        ("status", (), {"model_name": "films", "label": None}, grpc.StatusCode.NOT_FOUND, "films"),
    ):
        with pytest.raises(ServingError) as raised:
            query(server, client, method, *arguments, options=options)
        assert raised.value.code is code
        assert message in raised.value.message
        assert raised.value.address == address
        assert str(raised.value).startswith(f"{address}: {code.name}: ")


def test_bad_arguments_are_refused_without_sending_them(client: str):
    with unheard_address() as address:
        for method, arguments, named, message in (
            ("recommend", [{"age": "old"}], {}, r"^user\['age'\]: received 'old'"),
            ("recommend", [{}], {"k": 0}, "^k: received 0; expected at least 1"),
            ("recommend", [{}], {"k": True}, "^k: received True"),
            ("recommend_batch", [[Query({}), Query({"age": 1.5})]], {}, r"^queries\[1\]: user\['age'\]: received 1.5"),
            ("rank", [{}], {"candidates": []}, r"^candidates: received \[\]; expected at least one item id"),
            ("rank", [{}], {"candidates": "i1"}, "^candidates: received 'i1'; expected a list of item ids"),
            ("rank", [{}], {"candidates": ["i1", ""]}, "^candidates: received ''; expected an id"),
            ("similar", [""], {}, "^item_ids: received ''"),
            ("similar", ["i0"], {"k": 0}, "^k: received 0"),
            ("similar_batch", ["i0"], {}, "^item_ids: received 'i0'; expected a list of item ids"),
            ("similar_batch", [[b"i0"]], {}, "^item_ids: received b'i0'; expected a string"),
        ):
            with pytest.raises(RequestError, match=message):
                ask(client, address, method, *arguments, options={"schema": SCHEMA}, **named)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": ""}, "model_name: received ''"),
        ({"version": 1, "label": "stable"}, "received version=1 and label='stable'; expected at most one"),
        ({"version": -1}, "version: received -1"),
        ({"label": ""}, "label: received ''"),
        ({"timeout_seconds": 0}, "timeout_seconds: received 0"),
        ({"metadata": {"Authorization": "x"}}, "metadata: received the key 'Authorization'; expected lower-case"),
        ({"metadata": {"token": "a\nb"}}, r"metadata\['token'\]: expected printable ASCII"),
    ],
)
def test_settings_that_cannot_work_are_refused(client: str, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        ask(client, "127.0.0.1:1", "status", options=options)


def test_a_rest_address_must_be_one():
    with pytest.raises(ValueError, match=r"^address: received 'localhost:port'; expected host:port"):
        RestRecommenderClient("localhost:port")


def test_a_closed_client_says_so():
    client = RestRecommenderClient("127.0.0.1:1")
    for _ in range(2):
        client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.status()


def test_metadata_go_along_with_every_request(client: str):
    options = {"metadata": {"authorization": "Bearer x"}}
    if client == "REST":
        outputs = {"outputs": {"item_ids": [["a"]], "scores": [[1.0]]}}
        with HttpServer(lambda path, body: (200, outputs)) as http_server:
            ask(client, http_server.address, "recommend", {}, options=options)
            sent = http_server.requests[0][1]
    else:
        with GrpcServer(lambda request, context: GOOD) as grpc_server:
            ask(client, grpc_server.address, "recommend", {}, options=options)
            sent = grpc_server.metadata[0]
    assert sent["authorization"] == "Bearer x"


def test_a_rest_path_names_model_and_version_safely():
    outputs = {"outputs": {"item_ids": [["a"]], "scores": [[1.0]]}}
    with HttpServer(lambda path, body: (200, outputs)) as server:
        for options in ({"model_name": "a/b c"}, {"version": 3}, {"label": "sta/ble"}):
            ask("REST", server.address, "recommend", {}, options=options)
    assert [path for path, _, _ in server.requests] == [
        "/v1/models/a%2Fb%20c:predict",
        "/v1/models/recommender/versions/3:predict",
        "/v1/models/recommender/labels/sta%2Fble:predict",
    ]


def test_one_client_serves_many_threads(server: ServerProcess):
    seen = [[CATALOGUE[number % 12]] for number in range(64)]
    with RecommenderClient(server.address, timeout_seconds=30.0) as connected, futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda items: connected.recommend({}, seen=items, k=12), seen))
    for items, answer in zip(seen, answers, strict=True):
        assert answer and items[0] not in {entry.item_id for entry in answer}


def test_one_asynchronous_client_has_many_requests_under_way(server: ServerProcess):
    async def run() -> list[list[Recommendation]]:
        async with AsyncRecommenderClient(server.address, timeout_seconds=30.0) as connected:
            return await asyncio.gather(
                *(connected.recommend({}, seen=[CATALOGUE[number % 12]], k=12) for number in range(64))
            )

    for number, answer in enumerate(asyncio.run(run())):
        assert answer and CATALOGUE[number % 12] not in {entry.item_id for entry in answer}


def test_waits_until_a_label_or_a_version_is_there(server: ServerProcess, client: str):
    for options, seconds, available in (
        ({"label": "stable"}, 5.0, True),
        ({"label": None, "version": 6}, 5.0, True),
        ({"label": None, "version": 7}, 0.3, False),
        ({"label": "gone"}, 0.3, False),
        ({"label": "gone"}, 20.0, True),  # A label that nobody gives is not waited for to the end.
    ):
        assert query(server, client, "wait_until_available", seconds, options=options) is available


@pytest.mark.parametrize("client", GRPC_CLIENTS)
def test_waits_for_a_server_that_starts_meanwhile(client: str):
    with GrpcServer(failing_first(3, grpc.StatusCode.NOT_FOUND, AVAILABLE)) as server:
        assert ask(client, server.address, "wait_until_available", 10.0)
    assert len(server.paths) == 4


def test_does_not_wait_for_ever_nor_for_what_will_not_change(client: str):
    with unheard_address() as address:
        assert not ask(client, address, "wait_until_available", 0.4)
    if client == "REST":
        with HttpServer(lambda path, body: (403, {"error": "no"})) as http_server:
            assert ask(client, http_server.address, "wait_until_available", 10.0)
    else:
        with GrpcServer(failing_first(9, grpc.StatusCode.PERMISSION_DENIED, b"")) as grpc_server:
            assert ask(client, grpc_server.address, "wait_until_available", 10.0)
            assert len(grpc_server.paths) == 1


def test_waiting_leaves_the_retries_to_the_requests_that_follow(client: str):
    polls, budget = 8, 5
    refused = iter([*[True] * polls, False, True, False])  # The polls, the last of them answered; then one request.
    options = {"retry": RetryPolicy(budget=budget, initial_backoff_seconds=0.001)}
    calls: list[Any] = [("wait_until_available", (30.0,), {}), ("recommend", ({},), {})]
    if client == "REST":

        def answer_over_http(path: str, body: bytes) -> tuple[int, object]:
            if next(refused):
                return 503, {"error": "full"}
            if path.endswith(":predict"):
                return 200, {"outputs": {"item_ids": [["a", "b"]], "scores": [[2.0, 1.0]]}}
            return 200, {"model_version_status": [{"version": "5", "state": "AVAILABLE"}]}

        with HttpServer(answer_over_http) as http_server:
            available, answer = ask_in_turn(client, http_server.address, calls, options)
    else:

        def answer_over_grpc(request: bytes, context: grpc.ServicerContext) -> bytes:
            if next(refused):
                context.abort(grpc.StatusCode.UNAVAILABLE, "full")
            return AVAILABLE if "GetModelStatus" in grpc_server.paths[-1] else GOOD

        with GrpcServer(answer_over_grpc) as grpc_server:
            available, answer = ask_in_turn(client, grpc_server.address, calls, options)
    assert available
    assert [entry.item_id for entry in answer] == ["a", "b"]
    assert next(refused, None) is None


def test_neither_the_clients_nor_their_commands_import_tensorflow():
    program = """
        import sys
        import pipeline.serving.async_client, pipeline.serving.client, pipeline.serving.rest_client
        import pipeline.lookup, pipeline.serving.release.model_config_file, pipeline.serving_cli
        from pipeline.serving import messages
        assert all(hasattr(messages, name) for name in messages.__all__)
        assert not {"tensorflow", "tensorflow.python", "tfx", "apache_beam"} & set(sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
