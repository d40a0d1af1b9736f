"""What is asked of a served model: a good one passes, and every fault is found and named."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pipeline.serving.answers import AnswerChecker, AnswerError
from pipeline.serving.client import RecommenderClient
from pipeline.serving.messages import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    types_pb2,
)
from pipeline.serving.requests import HistoryEvent, build_example
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import CATALOGUE, export_recommender, publish

HISTORIES = ((), ("i0", "i3"), CATALOGUE[:9], CATALOGUE)
EXAMPLES = [
    build_example({"user_id": "u"}, [HistoryEvent(item_id, 1) for item_id in history], timestamp=2).SerializeToString()
    for history in HISTORIES
]


@contextlib.contextmanager
def served(model: Path) -> Iterator[RecommenderClient]:
    publish(model, model.parent / "base", 1)
    options = ServerOptions(port=0, model_name="recommender", model_base_path=str(model.parent / "base"))
    with ModelServer(options) as server, RecommenderClient(server.address) as client:
        yield client


def test_a_good_model_passes(tmp_path: Path):
    with served(export_recommender(tmp_path / "model")) as client:
        AnswerChecker(client, timeout_seconds=60).check(EXAMPLES)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("recommends seen titles", "serving_default, example 2 of 4: 'i0' is already seen"),
        ("recommends nothing", "serving_default, an empty example: nothing is recommended"),
        ("scores are NaN", "serving_default, example 1 of 4: the score of 'i0' is not finite"),
        ("scores change with the batch", "serving_default: scores change with the batch that an example is sent in"),
        ("lists a title twice", "serving_default, example 1 of 4: an item is listed twice: 'i0'"),
        ("lists the worst first", "serving_default, example 1 of 4: the list is not in order of its scores"),
        (
            "fills up with a score of zero",
            "serving_default, example 3 of 4: scores behind the end of a list must be -inf; received [0. 0.]",
        ),
        (
            "gives scores as doubles",
            "serving_default, example 1 of 4: item_ids must be strings and scores float32; received object and float64",
        ),
        ("unknown candidates score NaN", "rank: the score of an unknown candidate is NaN or infinite"),
        ("ranks one candidate only", "rank: scores must have the candidates' shape (4, 6); received (4, 1)"),
        ("finds an item similar to itself", "similar: 'i0' is the one asked about"),
    ],
)
def test_every_fault_is_named(fault: str, message: str, tmp_path: Path):
    with (
        served(export_recommender(tmp_path / "model", fault=fault)) as client,
        pytest.raises(AnswerError, match=f"^{re.escape(message)}$"),
    ):
        AnswerChecker(client, timeout_seconds=60).check(EXAMPLES)


def test_a_missing_signature_is_named(tmp_path: Path):
    with served(export_recommender(tmp_path / "model", without="similar")) as client:
        message = (
            "the signature 'similar' is missing; the model has ['__saved_model_init_op', 'rank', 'serving_default']"
        )
        with pytest.raises(AnswerError, match=f"^{re.escape(message)}$"):
            AnswerChecker(client, timeout_seconds=60).check(EXAMPLES)


def test_time_for_all_requests_is_limited(tmp_path: Path):
    with served(export_recommender(tmp_path / "model")) as client:
        checker = AnswerChecker(client, timeout_seconds=1e-9)
        with pytest.raises(AnswerError, match="the 1e-09 s for all requests are over"):
            checker.check(EXAMPLES)


def test_a_server_that_is_gone_is_an_error():
    with (
        RecommenderClient("127.0.0.1:1") as client,
        pytest.raises(AnswerError, match=r"signatures cannot be read: .*UNAVAILABLE"),
    ):
        AnswerChecker(client, timeout_seconds=60).check(EXAMPLES)


class _OddServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Claims to be a recommender, and answers with a part of what it should, of an odd type."""

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, inputs, outputs in (
            ("serving_default", ["examples"], ["item_ids", "scores"]),
            ("rank", ["examples", "candidate_ids"], ["scores"]),
            ("similar", ["item_ids"], ["item_ids", "scores"]),
        ):
            for key in inputs:
                signatures.signature_def[name].inputs[key].SetInParent()
            for key in outputs:
                signatures.signature_def[name].outputs[key].SetInParent()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        return response

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = predict_pb2.PredictResponse()
        response.outputs["scores"].dtype = types_pb2.DT_COMPLEX64
        return response


def test_an_answer_without_its_outputs_is_an_error():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_OddServer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    message = r"serving_default, example 1 of 4: the outputs must be \['item_ids', 'scores'\]; received \['scores'\]"
    try:
        with RecommenderClient(f"127.0.0.1:{port}") as client, pytest.raises(AnswerError, match=f"^{message}$"):
            AnswerChecker(client, timeout_seconds=60).check(EXAMPLES)
    finally:
        server.stop(None)


def test_the_largest_batch_is_sent_and_compared(tmp_path: Path):
    with served(export_recommender(tmp_path / "model")) as client:
        AnswerChecker(client, timeout_seconds=60, largest_batch=33).check(EXAMPLES)
    (tmp_path / "other").mkdir()
    with served(export_recommender(tmp_path / "other" / "model", fault="fails from 33 examples on")) as client:
        checker = AnswerChecker(client, timeout_seconds=60, largest_batch=33)
        with pytest.raises(AnswerError, match=r"^serving_default, the batch of 33 examples: INVALID_ARGUMENT: "):
            checker.check(EXAMPLES)


def test_answers_that_come_too_late_are_refused(tmp_path: Path):
    with served(export_recommender(tmp_path / "model")) as client:
        checker = AnswerChecker(client, timeout_seconds=60)
        checker.check_latency(EXAMPLES, budget_milliseconds=10_000)
        message = r"^serving_default: 95 % of 100 single requests must be answered within 0\.001 ms each; received "
        with pytest.raises(AnswerError, match=message):
            checker.check_latency(EXAMPLES, budget_milliseconds=0.001)
