"""Requests that no honest client sends: the server always answers with a proper status, and neither dies nor grows."""

from __future__ import annotations

import collections
import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.serving.messages import predict_pb2, types_pb2
from pipeline.serving.process import ServerProcess
from pipeline.serving.tensors import make_tensor, string_array
from tests.serving.clients_under_load import CHANNEL_OPTIONS
from tests.serving.saved_models import export_recommender, publish

pytestmark = pytest.mark.slow

REQUESTS = 5_000
"""Requests of each of the four tests."""
AT_ONCE = 10
"""Requests that are drawn together, which costs less."""
MAX_GROWTH_BYTES = 100 << 20
MAX_BODY_BYTES = 1 << 16
NO_PROPER_STATUS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
PREDICT = "/tensorflow.serving.PredictionService/Predict"
many = settings(max_examples=REQUESTS // AT_ONCE, suppress_health_check=list(HealthCheck), database=None)

names = st.sampled_from(["recommender", "", "other", "\x00", "é" * 40])
signatures = st.sampled_from(["", "serving_default", "rank", "similar", "none", "__saved_model_init_op"])
aliases = st.sampled_from(["examples", "candidate_ids", "item_ids", "scores", "", "x"])
integers = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 2**31, 2**62])


@st.composite
def tensors(draw):
    """Tensors whose type, shape and values need not agree."""
    proto = predict_pb2.PredictRequest().inputs["x"]
    proto.dtype = draw(st.sampled_from([types_pb2.DT_STRING, *range(27), 101, 112]))
    proto.tensor_shape.unknown_rank = draw(st.booleans()) and draw(st.booleans())
    for size in draw(st.lists(integers, max_size=3)):
        proto.tensor_shape.dim.add(size=size)
    proto.string_val.extend(draw(st.lists(st.binary(max_size=30), max_size=4)))
    proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    proto.int64_val.extend(draw(st.lists(integers, max_size=3)))
    proto.half_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    proto.tensor_content = draw(st.binary(max_size=20))
    proto.version_number = draw(st.integers(-(2**31), 2**31 - 1))
    return proto


@st.composite
def predict_requests(draw):
    request = predict_pb2.PredictRequest()
    if draw(st.integers(0, 9)):
        request.model_spec.name = draw(names)
        request.model_spec.signature_name = draw(signatures)
        choice = draw(st.integers(0, 9))
        if choice == 0:
            request.model_spec.version.value = draw(integers)
        elif choice == 1:
            request.model_spec.version_label = draw(st.text(max_size=5))
    for alias in draw(st.lists(aliases, max_size=3)):
        request.inputs[alias].CopyFrom(draw(tensors()))
    request.output_filter.extend(draw(st.lists(aliases, max_size=3)))
    return request.SerializeToString()


@st.composite
def damaged_requests(draw):
    """An honest request, cut, spliced and with bits turned."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "recommender"
    request.inputs["examples"].CopyFrom(make_tensor(string_array([draw(st.binary(max_size=40)), b""])))
    data = bytearray(request.SerializeToString())
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        data[place] = value
    start = draw(st.integers(0, len(data)))
    return bytes(data[:start]) + draw(st.binary(max_size=10)) + bytes(data[draw(st.integers(start, len(data))) :])


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        integers,
        st.floats(),
        st.text(max_size=8),
        st.builds(lambda text: {"b64": text}, st.sampled_from(["", "AAAA", "!", "CgA="])),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(aliases, inner, max_size=3)),
    max_leaves=8,
)
HONEST_BODY = json.dumps({"instances": [{"b64": ""}]}).encode()
bodies = st.one_of(
    st.just(HONEST_BODY),
    st.fixed_dictionaries(
        {},
        optional={
            "instances": json_values,
            "inputs": json_values,
            "examples": json_values,
            "context": json_values,
            "signature_name": st.one_of(signatures, json_values),
        },
    ).map(lambda body: json.dumps(body).encode()),
    json_values.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=60),
)
HONEST_PATH = "/v1/models/recommender:predict"
paths = st.one_of(
    st.just(HONEST_PATH),
    st.sampled_from(
        [
            f"/v1/models/recommender{choice}:{verb}"
            for choice in ("", "/versions/1", "/versions/99999999999999999999", "/labels/stable")
            for verb in ("predict", "classify", "regress", "none")
        ]
    ),
    st.text("/:v1modelsrecommender%20\\?#.", max_size=30).map(lambda text: "/" + text),
)


def at_once(requests: st.SearchStrategy) -> st.SearchStrategy[list]:
    return st.lists(requests, min_size=AT_ONCE, max_size=AT_ONCE)


class Served:
    """The server under test, and what it weighs."""

    def __init__(self, process: ServerProcess):
        self.process = process
        self.channel = grpc.insecure_channel(process.address, options=CHANNEL_OPTIONS)
        self.predict = self.channel.unary_unary(PREDICT)

    def status(self, request: bytes) -> grpc.StatusCode:
        try:
            self.predict(request, timeout=30)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def resident_bytes(self) -> int:
        text = Path(f"/proc/{self.process.process_id}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert match
        return int(match[1]) * 1024

    def threads_and_files(self) -> tuple[int, int]:
        folder = f"/proc/{self.process.process_id}"
        return len(os.listdir(f"{folder}/task")), len(os.listdir(f"{folder}/fd"))


@pytest.fixture(scope="module", params=["plain", "batching"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fuzzed")
    publish(export_recommender(folder / "model"), folder / "recommender", 1)
    options = ["--enable_batching"] if request.param == "batching" else []
    with ServerProcess(str(folder / "recommender"), "recommender", with_rest=True, options=options) as process:
        served = Served(process)
        # What the first thousand requests make it keep is no leak.
        for _ in range(1000):
            assert served.status(_honest()) is grpc.StatusCode.OK
        before, things_before = served.resident_bytes(), served.threads_and_files()
        yield served
        assert served.status(_honest()) is grpc.StatusCode.OK
        assert served.resident_bytes() - before < MAX_GROWTH_BYTES
        assert max(now - then for now, then in zip(served.threads_and_files(), things_before, strict=True)) < 20
        served.channel.close()


def _honest() -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "recommender"
    request.inputs["examples"].CopyFrom(make_tensor(string_array([b""])))
    return request.SerializeToString()


def test_predict_answers_any_message_with_a_proper_status(served: Served):
    seen: collections.Counter = collections.Counter()

    @many
    @given(at_once(st.one_of(predict_requests(), damaged_requests(), st.binary(max_size=60))))
    def send(requests: list[bytes]) -> None:
        for request in requests:
            status = served.status(request)
            assert status not in NO_PROPER_STATUS, request
            seen[status] += 1

    send()
    assert seen.total() >= REQUESTS
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND} <= set(seen)


def test_rest_answers_any_body_with_a_proper_status(served: Served):
    connection = http.client.HTTPConnection(served.process.rest_address, timeout=30)
    seen: collections.Counter = collections.Counter()

    @many
    @given(at_once(st.tuples(paths, bodies)))
    def send(requests: list[tuple[str, bytes]]) -> None:
        for path, body in requests:
            connection.request("POST", path, body)
            response = connection.getresponse()
            text = response.read()
            seen[response.status] += 1
            assert response.status in {200, 400, 404, 405, 412, 429}, (response.status, path, body, text)
            if response.status != 200 and path.startswith("/v1/models/recommender:"):
                assert isinstance(json.loads(text)["error"], str)

    send()
    connection.close()
    assert seen.total() >= REQUESTS
    # One of four paths and of four bodies is honest, so that what answers nothing but errors is found out.
    assert {200, 400, 404} <= set(seen)
