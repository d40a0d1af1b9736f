"""Loading SavedModels of every making, and running them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import predict_pb2
from pipeline.serving.server import runners
from pipeline.serving.server.servable import Servable
from pipeline.serving.tensors import string_array, write_tensor
from tests.serving.saved_models import (
    TOP_K,
    export_arithmetic,
    export_half_plus_two,
    export_labeller,
    export_recommender,
    truncate,
)


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> Servable:
    return Servable(str(export_arithmetic(tmp_path_factory.mktemp("models") / "arithmetic")))


def test_a_model_of_tensorflow_1_with_variables_answers(tmp_path: Path):
    servable = Servable(str(export_half_plus_two(tmp_path / "model")))
    x = np.array([[2.0], [-4.0], [0.5]], np.float32)
    answer = servable.run_now("serving_default", {"x": x}, ["y"])
    np.testing.assert_array_equal(answer["y"], x / 2 + 2)


def test_a_model_of_tensorflow_1_with_a_table_from_an_asset_answers(tmp_path: Path):
    servable = Servable(str(export_labeller(tmp_path / "model")))
    example = tf.train.Example(features=tf.train.Features(feature={"x": _float(1.5)})).SerializeToString()
    answer = servable.run_now("serving_default", {"inputs": string_array([example])}, ["classes", "scores"])
    assert answer["classes"].tolist() == [[b"low", b"high"]]
    assert answer["scores"].tolist() == [[-1.5, 1.5]]


def test_a_model_of_tensorflow_2_with_a_table_answers(tmp_path: Path):
    servable = Servable(str(export_recommender(tmp_path / "model", first="i7")))
    assert {"rank", "serving_default", "similar"} <= set(servable.signatures)
    answer = servable.run_now("similar", {"item_ids": string_array(["i7", "unknown"])}, ["item_ids"])
    assert answer["item_ids"].tolist() == [[b"i0", b"i1", b"i2", b"i3", b"i4"], [b""] * TOP_K]


def test_synchronous_and_asynchronous_runs_agree(arithmetic: Servable):
    inputs = {"a": np.array([1, 2], np.float32), "b": np.array([3, 4], np.float32)}
    now = arithmetic.run_now("serving_default", inputs, ["sum", "product"])
    later = asyncio.run(arithmetic.run("serving_default", inputs, ["sum", "product"]))
    for answer in (now, later):
        assert answer["sum"].tolist() == [4, 6]
        assert answer["product"].tolist() == [3, 8]


def test_only_what_is_asked_for_is_computed(arithmetic: Servable):
    inputs = {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
    assert list(asyncio.run(arithmetic.run("serving_default", inputs, ["product"]))) == ["product"]


@pytest.mark.parametrize("rows", [0, 1, runners.ROWS_FOR_POOL - 1, runners.ROWS_FOR_POOL, 100])
def test_small_and_large_batches_give_the_same_numbers(arithmetic: Servable, rows: int):
    a, b = np.random.default_rng(rows).normal(size=(2, rows)).astype(np.float32)
    answer = arithmetic.run_now("serving_default", {"a": a, "b": b}, ["sum", "product"])
    np.testing.assert_array_equal(answer["sum"], a + b)
    np.testing.assert_array_equal(answer["product"], a * b)


def test_many_threads_may_ask_at_once(arithmetic: Servable):
    def ask(number: int) -> float:
        inputs = {"a": np.array([number], np.float32), "b": np.array([1], np.float32)}
        return arithmetic.run_now("serving_default", inputs, ["sum"])["sum"].item()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [number + 1 for number in range(200)]


def test_errors_have_the_runtimes_code_and_text(arithmetic: Servable):
    inputs = {"a": np.ones(1, np.int32), "b": np.ones(1, np.float32)}
    with pytest.raises(StatusError, match=r"Expects arg\[0\] to be float but int32 is provided") as caught:
        arithmetic.run_now("serving_default", inputs, ["sum"])
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_the_number_of_prepared_runs_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runners, "MAX_RUNNERS", 3)
    servable = Servable(str(export_arithmetic(tmp_path / "model")))
    values: dict[str, Any] = {
        "i32": np.array([1], np.int32),
        "i64": np.array([2], np.int64),
        "f64": np.array([3.0]),
        "flag": np.array([True]),
        "text": string_array(["a"]),
        "f16": np.array([4], np.float16),
        "bf16": np.array([5], tf.bfloat16.as_numpy_dtype),
        "u8": np.array([6], np.uint8),
    }
    for _ in range(2):
        for name, value in values.items():
            answer = servable.run_now("echo", values, [f"{name}_out"])[f"{name}_out"]
            assert (answer.dtype, answer.tolist()) == (value.dtype, value.tolist())
            assert len(servable._runners._prepared) <= 3


def test_a_folder_without_a_model_is_not_found(tmp_path: Path):
    with pytest.raises(StatusError, match="SavedModel file does not exist") as caught:
        Servable(str(tmp_path))
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_half_a_model_is_refused(tmp_path: Path):
    model = truncate(export_arithmetic(tmp_path / "model"))
    with pytest.raises(StatusError) as caught:
        Servable(str(model))
    assert caught.value.code is grpc.StatusCode.DATA_LOSS
    assert caught.value.message == f"Can't parse {model}/saved_model.pb as binary proto"


def test_predict_answers_in_the_callers_thread(arithmetic: Servable):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "arithmetic"
    for alias, value in (("a", 1.0), ("b", 2.0)):
        write_tensor(np.array([value], np.float32), request.inputs[alias])
    response = arithmetic.predict(request)
    assert list(response.outputs["sum"].float_val) == [3.0]
    assert response.model_spec.signature_name == "serving_default"
    assert not response.model_spec.HasField("version")


def _float(value: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))


@pytest.mark.parametrize(("gain", "is_spread"), [(np.inf, True), (0.0, False)])
def test_small_runs_are_spread_over_threads_if_that_is_faster(
    gain: float, is_spread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runners, "POOL_GAIN", gain)
    servable = Servable(str(export_arithmetic(tmp_path / "model")))
    chosen, prepare = [], servable._runners._runner

    def record(feeds: tuple[str, ...], fetches: tuple[str, ...], pool: bool) -> Any:
        chosen.append(pool)
        return prepare(feeds, fetches, pool)

    monkeypatch.setattr(servable._runners, "_runner", record)
    values = {"a": np.array([1.0], np.float32), "b": np.array([2.0], np.float32)}
    for _ in range(2 * runners.RUNS_TO_JUDGE_BY + 3):
        assert servable.run_now("serving_default", values, ["sum"])["sum"].tolist() == [3.0]
    judged = runners.RUNS_TO_JUDGE_BY
    assert chosen == [False] * judged + [True] * judged + [is_spread] * 3
    servable.close()
