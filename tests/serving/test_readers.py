"""Whatever a server answers, a client makes a result of it or says what is wrong with it; nothing else escapes."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.calls import Call, Calls, ModelSelection
from pipeline.serving.errors import ServingError
from pipeline.serving.messages import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from pipeline.serving.requests import Query
from pipeline.serving.rest_format import read_answer, request_body
from pipeline.serving.results import Outputs, Recommendation, Recommendations
from pipeline.serving.tensors import read_tensor, string_array, write_tensor

MODEL = ModelSelection("recommender")
CALLS = Calls(MODEL, None)


def all_calls() -> dict[str, Call[Any]]:
    return {
        "recommend": next(CALLS.recommend([Query({})], 3, numbered=False)),
        "rank": CALLS.rank(Query({}), ["a", "b"]),
        "similar": next(CALLS.similar(["a"], 3)),
        "predict": CALLS.predict("serving_default", {"a": np.zeros(2, np.float32)}),
        "status": CALLS.status(),
        "metadata": CALLS.metadata(),
    }


def good_answer(name: str) -> bytes:
    if name == "status":
        status = get_model_status_pb2.GetModelStatusResponse()
        status.model_version_status.add(version=3, state=30).status.error_message = "fine"  # type: ignore[arg-type]
        return status.SerializeToString()
    if name == "metadata":
        signatures = get_model_metadata_pb2.SignatureDefMap()
        signatures.signature_def["rank"].inputs["examples"].dtype = 7
        metadata = get_model_metadata_pb2.GetModelMetadataResponse()
        metadata.metadata["signature_def"].Pack(signatures)
        return metadata.SerializeToString()
    answer = predict_pb2.PredictResponse()
    answer.model_spec.version.value = 3
    write_tensor(np.array([[2, 1]], np.float32), answer.outputs["scores"])
    write_tensor(string_array([["a", "b"]]), answer.outputs["item_ids"])
    return answer.SerializeToString()


@pytest.mark.filterwarnings("ignore:Unexpected end-group tag")
@pytest.mark.parametrize("name", all_calls())
def test_bytes_that_were_damaged_are_read_or_refused(name: str):
    call, answer = all_calls()[name], good_answer(name)

    @given(st.lists(st.tuples(st.integers(0, len(answer) - 1), st.integers(0, 255)), max_size=4), st.integers(0, 20))
    def check(changes: list[tuple[int, int]], cut: int) -> None:
        damaged = bytearray(answer)
        for position, value in changes:
            damaged[position] = value
        try:
            call.decode(bytes(damaged[: len(damaged) - cut]), "host:1")
        except ServingError as error:
            assert error.code is grpc.StatusCode.DATA_LOSS
            assert error.message.startswith("the answer cannot be read: ")

    check()
    assert call.decode(answer, "host:1") is not None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just({"b64": "YQ=="})
    | st.just({"b64": 1}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["item_ids", "scores", "signature_def", "b64", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
ENVELOPES = st.fixed_dictionaries(
    {}, optional={"outputs": JSON, "model_version_status": JSON, "metadata": JSON, "predictions": JSON}
)


@given(st.sampled_from(sorted(all_calls())), ENVELOPES | JSON)
def test_json_of_any_shape_is_read_or_refused(name: str, content: Any):
    try:
        read_answer(all_calls()[name], json.dumps(content).encode(), MODEL)
    except ValueError as error:
        assert str(error)


NUMBERS = st.floats(width=32, allow_nan=False)


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), NUMBERS), min_size=1, max_size=6),
    st.integers(1, 8),
    st.integers(0, 3),
)
def test_lists_come_back_as_they_were_sent_over_grpc_and_over_rest(
    pairs: list[tuple[str, float]], k: int, padding: int
):
    pairs = sorted(pairs, key=lambda pair: -pair[1])
    ids = [item_id for item_id, _ in pairs] + [""] * padding
    scores = [score for _, score in pairs] + [-np.inf] * padding
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = 9
    write_tensor(string_array([ids]), response.outputs["item_ids"])
    write_tensor(np.array([scores], np.float32), response.outputs["scores"])
    call = next(CALLS.recommend([Query({})], k, numbered=False))

    (over_grpc,) = call.decode(response.SerializeToString(), "host:1")
    body = json.dumps({"outputs": {"item_ids": [ids], "scores": [scores]}}).encode()
    (over_rest,) = read_answer(call, body, MODEL)

    assert over_grpc == over_rest == [Recommendation(item_id, score) for item_id, score in pairs[:k]]
    assert (over_grpc.model_version, over_rest.model_version) == (9, None)


@given(st.lists(st.lists(st.binary(max_size=5), min_size=2, max_size=2), min_size=1, max_size=3))
def test_a_rest_request_holds_the_same_inputs(rows: list[list[bytes]]):
    request = CALLS.predict("rank", {"a": string_array(rows), "b": np.array([[1.5, 2]], np.float32)}).request
    assert isinstance(request, predict_pb2.PredictRequest)
    body = json.loads(request_body(request))
    assert body["signature_name"] == "rank"
    assert body["inputs"]["b"] == [[1.5, 2.0]]
    answer = read_answer(
        CALLS.predict("rank", {}), json.dumps({"outputs": {"a": body["inputs"]["a"], "b": [[1.5, 2]]}}).encode(), MODEL
    )
    assert isinstance(answer, Outputs)
    assert answer["a"].tolist() == read_tensor(request.inputs["a"]).tolist() == rows


def test_recommendations_are_a_list_that_knows_its_version():
    entries = [Recommendation("a", 2.0), Recommendation("b", 1.0)]
    answer = Recommendations(entries, 4)
    assert answer == entries and answer[0].item_id == "a" and len(answer) == 2
    assert answer.model_version == 4
    assert Recommendations().model_version is None
