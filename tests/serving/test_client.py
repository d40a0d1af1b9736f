"""The client against the local server, over a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from modules.features import parse_schema
from pipeline.config import load_config
from pipeline.serving.client import Recommendation, RecommenderClient, TensorInfo, VersionState
from pipeline.serving.errors import RequestError, ServingError
from pipeline.serving.requests import HistoryEvent
from pipeline.serving.server import ModelServer
from pipeline.serving.tensors import string_array
from tests.serving.saved_models import CATALOGUE, export_recommender, publish

SCHEMA = parse_schema(load_config("movielens-100k").read_schema_text())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base_path = tmp_path_factory.mktemp("serving") / "recommender"
    publish(export_recommender(base_path.with_name("model"), first="i3"), base_path, 5)
    available = threading.Event()
    with ModelServer(str(base_path), "recommender", 0, on_available=lambda *_: available.set()) as server:
        assert available.wait(60)
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[RecommenderClient]:
    with RecommenderClient(address, schema=SCHEMA) as client:
        yield client


def test_recommends(client: RecommenderClient):
    history = [HistoryEvent("i0", 880_000_000, 5.0)]
    assert client.recommend({"user_id": "u", "age": 30}, history, seen=["i2"], k=3) == [
        Recommendation("i3", 1.0),
        Recommendation("i1", -1.0),
        Recommendation("i4", -4.0),
    ]
    assert len(client.recommend({}, k=100)) == 5


def test_a_long_history_is_masked_as_a_whole(client: RecommenderClient):
    history = [HistoryEvent("i3", 1)] + [HistoryEvent("i0", second) for second in range(2, 90)]
    assert [item.item_id for item in client.recommend({}, history, k=2)] == ["i1", "i2"]
    everything = [HistoryEvent(item_id, 1) for item_id in CATALOGUE]
    assert client.recommend({}, everything) == []


def test_ranks_candidates(client: RecommenderClient):
    assert client.rank({"user_id": "u"}, candidates=["i2", "unknown", "i3", "i1"]) == [
        Recommendation("i3", 1.0),
        Recommendation("i1", -1.0),
        Recommendation("i2", -2.0),
        Recommendation("unknown", -np.inf),
    ]


def test_finds_similar_items(client: RecommenderClient):
    assert [item.item_id for item in client.similar("i3", k=2)] == ["i0", "i1"]
    assert client.similar("unknown") == []


def test_describes_the_model(client: RecommenderClient):
    assert client.status() == [VersionState(5, "AVAILABLE", "")]
    signature = client.metadata()["rank"]
    assert signature.inputs == {
        "examples": TensorInfo("string", (None,)),
        "candidate_ids": TensorInfo("string", (None, None)),
    }
    assert signature.outputs == {"scores": TensorInfo("float", (None, None))}


def test_refuses_bad_arguments_without_sending_them():
    with RecommenderClient("127.0.0.1:1", schema=SCHEMA) as client:
        with pytest.raises(RequestError, match=r"user\['age'\]: received 'old'"):
            client.recommend({"age": "old"})
        with pytest.raises(ValueError, match="k: received 0; expected at least 1"):
            client.similar("i0", k=0)


def test_errors_of_the_server_are_typed(address: str, client: RecommenderClient):
    with pytest.raises(ServingError) as raised:
        client.predict("serving_default", {"examples": string_array([b"garbage"])})
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "Could not parse example" in raised.value.message
    assert raised.value.address == address
    with (
        RecommenderClient(address, "films") as other,
        pytest.raises(ServingError, match=f"{address}: NOT_FOUND: .*films"),
    ):
        other.recommend({})


def test_says_so_when_nothing_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with RecommenderClient(address) as client, pytest.raises(ServingError) as raised:
            client.status()
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert str(raised.value).startswith(f"{address}: UNAVAILABLE: no server answers at this address; is it running?")


def test_every_request_has_a_deadline():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = RecommenderClient(f"127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.2)
        with client, pytest.raises(ServingError, match=r"DEADLINE_EXCEEDED: no answer within 0\.2 s"):
            client.recommend({})
