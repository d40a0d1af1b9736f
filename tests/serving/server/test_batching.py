"""Dynamic batching.

Texts are those of TensorFlow Serving's `batching_session.cc`, `batching_util.{h,cc}` and of TensorFlow's
`shared_batch_scheduler.h`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.serving.errors import StatusError
from pipeline.serving.server.batches import join, rows_of, split
from pipeline.serving.server.batching import RunScheduler, TensorSignature, Values
from pipeline.serving.server.config_files import BatchingParameters
from pipeline.serving.server.metrics import ServerMetrics
from pipeline.serving.server.servable import Servable
from pipeline.serving.tensors import string_array
from tests.serving.saved_models import CATALOGUE, export_arithmetic, export_labeller, export_recommender

SUM = (("a", "b"), ("sum",))
OTHER = (("a",), ("other",))


class Gate:
    """A model that adds its inputs, run by run as the test allows, and writes down what it ran."""

    def __init__(self) -> None:
        self.open = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.runs: list[int] = []
        self.signatures: list[TensorSignature] = []

    def run(self, signature: TensorSignature, values: Values) -> Values:
        self.runs.append(len(values[0]))
        self.signatures.append(signature)
        self.entered.release()
        assert self.open.acquire(timeout=20)
        if any((value == -1).any() for value in values):
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "a value is -1")
        if any((value == -2).any() for value in values):
            raise ZeroDivisionError("a value is -2")
        return [sum(values[1:], start=values[0])]

    def let_through(self, runs: int = 1000) -> None:
        self.open.release(runs)


def _row(*numbers: float) -> list[np.ndarray]:
    return [np.array(numbers, np.float32), np.array(numbers, np.float32)]


async def _outcome(future: asyncio.Future[Values]) -> Any:
    try:
        return (await asyncio.wait_for(future, 20))[0].tolist()
    except StatusError as error:
        return error.code.name, error.message


async def _hold(scheduler: RunScheduler, gate: Gate) -> asyncio.Future[Values]:
    """Submits a request and waits until it occupies the thread, so that what follows has to queue."""
    future = scheduler.submit(SUM, _row(100))
    await asyncio.get_running_loop().run_in_executor(None, gate.entered.acquire)
    return future


def test_what_waits_when_a_thread_becomes_free_runs_together():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        waiting = [scheduler.submit(SUM, _row(number, number + 0.5)) for number in range(5)]
        other = scheduler.submit(OTHER, [np.zeros(1)])
        gate.let_through()
        assert await _outcome(first) == [200]
        assert [await _outcome(future) for future in waiting] == [[2 * n, 2 * n + 1] for n in range(5)]
        assert await _outcome(other) == [0]

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1, BatchingParameters(num_batch_threads=1))
    asyncio.run(main())
    assert gate.runs == [1, 10, 1]
    scheduler.close()


def test_without_batching_every_request_runs_alone():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        waiting = [scheduler.submit(SUM, _row(number)) for number in range(3)]
        gate.let_through()
        assert [await _outcome(future) for future in [first, *waiting]] == [[200], [0], [2], [4]]

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1)
    asyncio.run(main())
    assert gate.runs == [1, 1, 1, 1]
    scheduler.close()


def test_a_batch_takes_no_more_rows_than_its_size():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        waiting = [scheduler.submit(SUM, _row(*[number] * rows)) for number, rows in enumerate([3, 1, 2, 4, 1])]
        gate.let_through()
        for future in [first, *waiting]:
            await _outcome(future)

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1, BatchingParameters(num_batch_threads=1, max_batch_size=4))
    asyncio.run(main())
    assert gate.runs == [1, 4, 2, 4, 1]
    scheduler.close()


def test_a_batch_waits_for_company_until_the_timeout():
    async def main() -> None:
        futures = [scheduler.submit(SUM, _row(1))]
        await asyncio.sleep(0.05)
        futures.append(scheduler.submit(SUM, _row(2)))
        assert [await _outcome(future) for future in futures] == [[2], [4]]
        full = [scheduler.submit(SUM, _row(number)) for number in range(8)]
        started = asyncio.get_running_loop().time()
        assert [await _outcome(future) for future in full] == [[2 * number] for number in range(8)]
        assert asyncio.get_running_loop().time() - started < 0.25  # A full batch does not wait.

    gate = Gate()
    gate.let_through()
    parameters = BatchingParameters(num_batch_threads=2, max_batch_size=8, batch_timeout_micros=300_000)
    scheduler = RunScheduler(gate.run, 1, parameters)
    asyncio.run(main())
    assert gate.runs == [2, 8]
    scheduler.close()


def test_too_large_requests_and_too_many_are_refused():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        with pytest.raises(StatusError) as caught:
            scheduler.submit(SUM, _row(1, 2, 3))
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.message == "Task size 3 is larger than maximum input batch size 2"
        waiting = [scheduler.submit(SUM, _row(*row)) for row in ([1, 2], [3], [4])]
        with pytest.raises(StatusError) as caught:
            scheduler.submit(SUM, _row(5))
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.message == (
            "The batch scheduling queue to which this task was submitted is full; "
            "currently 2 batches enqueued and max_enqueued_batches is 2"
        )
        waiting.append(scheduler.submit(OTHER, [np.ones(1)]))  # Each signature has its own queue.
        waiting[0].cancel()
        waiting.append(scheduler.submit(SUM, _row(5)))  # A cancelled request makes room.
        gate.let_through()
        assert await _outcome(first) == [200]
        assert [await _outcome(future) for future in waiting[1:]] == [[6], [8], [1], [10]]

    gate = Gate()
    parameters = BatchingParameters(num_batch_threads=1, max_batch_size=2, max_enqueued_batches=2)
    scheduler = RunScheduler(gate.run, 1, parameters)
    asyncio.run(main())
    scheduler.close()


def test_signatures_take_turns():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        signatures = [SUM, OTHER, SUM, SUM, OTHER]
        waiting = [scheduler.submit(signature, [np.full(4, place)]) for place, signature in enumerate(signatures)]
        gate.let_through()
        for future in [first, *waiting]:
            await _outcome(future)

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1, BatchingParameters(num_batch_threads=1, max_batch_size=4))
    asyncio.run(main())
    scheduler.close()
    assert gate.signatures == [SUM, SUM, OTHER, SUM, OTHER, SUM]


def test_a_request_that_no_queue_can_hold_leaves_nothing_behind():
    async def main() -> None:
        with pytest.raises(StatusError, match="task size is 9 but scheduling capacity is only 4"):
            scheduler.submit(SUM, _row(*range(9)))
        assert await _outcome(scheduler.submit(SUM, _row(1))) == [2]

    gate = Gate()
    gate.let_through()
    parameters = BatchingParameters(
        num_batch_threads=1,
        max_batch_size=9,
        max_enqueued_batches=1,
        enable_large_batch_splitting=True,
        max_execution_batch_size=4,
    )
    scheduler = RunScheduler(gate.run, 1, parameters)
    asyncio.run(main())
    scheduler.close()


def test_cancelled_requests_are_not_run():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        waiting = [scheduler.submit(SUM, _row(number)) for number in range(3)]
        only = scheduler.submit(OTHER, [np.zeros(1)])
        waiting[1].cancel()
        only.cancel()
        gate.let_through()
        assert [await _outcome(future) for future in (first, waiting[0], waiting[2])] == [[200], [0], [4]]

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1, BatchingParameters(num_batch_threads=1))
    asyncio.run(main())
    scheduler.close()
    assert gate.runs == [1, 2]


def test_an_error_reaches_the_guilty_only_and_no_thread_dies():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        waiting = [scheduler.submit(SUM, _row(number)) for number in (0, 1, -1, 3, -2, 5, 6)]
        gate.let_through()
        assert await _outcome(first) == [200]
        assert [await _outcome(future) for future in waiting] == [
            [0],
            [2],
            ("INVALID_ARGUMENT", "a value is -1"),
            [6],
            ("INTERNAL", "ZeroDivisionError: a value is -2"),
            [10],
            [12],
        ]
        assert await _outcome(scheduler.submit(SUM, _row(7))) == [14]

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1, BatchingParameters(num_batch_threads=1))
    asyncio.run(main())
    scheduler.close()


def test_requests_that_cannot_be_joined_run_one_after_the_other():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        values: list[np.ndarray] = [
            np.ones((1, 2)),
            np.ones((2, 3)),
            np.ones((1, 2)),
            np.ones((1, 2), np.int32),
            np.ones((0, 2)),
        ]
        waiting = [scheduler.submit(SUM, [value, value]) for value in values]
        gate.let_through()
        await _outcome(first)
        assert [await _outcome(future) for future in waiting] == [(2 * value).tolist() for value in values]

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1, BatchingParameters(num_batch_threads=1))
    asyncio.run(main())
    scheduler.close()
    assert gate.runs == [1, 2, 2, 1, 0]


def test_large_requests_are_split_if_so_chosen():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        whole = scheduler.submit(SUM, _row(*range(7)))
        with pytest.raises(StatusError) as caught:
            scheduler.submit(SUM, _row(*range(10)))
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.message == (
            "The batch scheduling queue to which this task was submitted is full; task size is 10 but scheduling "
            "capacity is only 5 (num_enqueued_batches=3, max_enqueued_batches=4, open_batch_size=1, "
            "max_execution_batch_size=3)"
        )
        gate.let_through()
        await _outcome(first)
        assert await _outcome(whole) == [2 * number for number in range(7)]
        assert (await _outcome(scheduler.submit(SUM, _row(1, 2, -1, 4, 5))))[0] == "INVALID_ARGUMENT"

    gate = Gate()
    parameters = BatchingParameters(
        num_batch_threads=1,
        max_batch_size=10,
        max_enqueued_batches=4,
        enable_large_batch_splitting=True,
        max_execution_batch_size=3,
    )
    scheduler = RunScheduler(gate.run, 1, parameters)
    asyncio.run(main())
    assert gate.runs[:4] == [1, 3, 3, 1]
    scheduler.close()


def test_closing_answers_what_was_submitted():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        waiting = scheduler.submit(SUM, _row(1))
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        gate.let_through()
        assert [await _outcome(first), await _outcome(waiting)] == [[200], [2]]
        closing.join()
        with pytest.raises(StatusError, match="unloaded"):
            scheduler.submit(SUM, _row(1))

    gate = Gate()
    scheduler = RunScheduler(gate.run, 1, BatchingParameters(num_batch_threads=1))
    asyncio.run(main())


def test_batches_are_counted():
    async def main() -> None:
        first = await _hold(scheduler, gate)
        waiting = [scheduler.submit(SUM, _row(number)) for number in range(3)]
        gate.let_through()
        for future in [first, *waiting]:
            await _outcome(future)

    gate, metrics = Gate(), ServerMetrics()
    parameters = BatchingParameters(num_batch_threads=1, max_batch_size=8, allowed_batch_sizes=(1, 8))
    scheduler = RunScheduler(gate.run, 1, parameters, metrics)
    asyncio.run(main())
    scheduler.close()
    text = metrics.render()
    assert ":tensorflow:serving:batching_session:wrapped_run_count{} 2" in text
    assert ':tensorflow:serving:batching_session:padding_size_sum{execution_batch_size="8"} 5' in text
    assert ":tensorflow:serving:batching_session:input_batch_size_sum{} 4" in text
    assert gate.runs == [1, 8]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "Batching Run() must have at least one input tensor"),
        ([np.float32(1.0)], "Batching Run() input tensors must have at least one dimension"),
        ([np.ones(2), np.ones(3)], "Batching Run() input tensors must have equal 0th-dimension size"),
    ],
)
def test_inputs_that_cannot_be_batched(values: Sequence[np.ndarray], message: str):
    with pytest.raises(StatusError) as caught:
        rows_of([np.asarray(value) for value in values])
    assert (caught.value.code, caught.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_batches_are_filled_up_with_the_first_row_of_the_last_request():
    parameters = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(2, 4, 8))
    joined, processed = join([[np.array([1])], [np.array([2, 3, 4, 5])]], [1, 4], parameters)
    assert processed == 8
    assert joined[0].tolist() == [1, 2, 3, 4, 5, 2, 2, 2]
    assert [part[0].tolist() for part in split(joined, [1, 4], 8)] == [[1], [2, 3, 4, 5]]


def test_inputs_of_different_lengths_are_padded_with_their_first_element_if_so_chosen():
    # As in `BatchingSessionTest.BatchingWithPadding`.
    parameters = BatchingParameters(pad_variable_length_inputs=True)
    a = np.array([[[1, 2], [3, 4]]], np.float32)
    b = np.array([[[5, 6, 7], [8, 9, 10], [11, 12, 13]]], np.float32)
    joined, _ = join([[a], [b]], [1, 1], parameters)
    assert joined[0].tolist() == [[[1, 2, 1], [3, 4, 1], [1, 1, 1]], b[0].tolist()]
    strings = string_array([["x", "y"]]), string_array([["z"]])
    assert join([[strings[0]], [strings[1]]], [1, 1], parameters)[0][0].tolist() == [[b"x", b"y"], [b"z", b"z"]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.ones((1, 2)), np.ones((1, 0))], "Got empty tensor in batch of non-empty tensors."),
        ([np.ones((1,) * 7), np.ones((1,) * 7)], "Only tensors with rank from 1 to 6 can be padded."),
    ],
)
def test_what_cannot_be_padded(values: Sequence[np.ndarray], message: str):
    with pytest.raises(StatusError) as caught:
        join([[value] for value in values], [1, 1], BatchingParameters(pad_variable_length_inputs=True))
    assert (caught.value.code, caught.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("number_of_examples", "Batched output tensor has 0 dimensions"),
        (
            "one_row",
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors",
        ),
    ],
)
def test_outputs_without_a_row_for_each_input(tmp_path: Path, signature: str, message: str):
    model = export_labeller(tmp_path / "model")
    servable = Servable(str(model), batching=BatchingParameters(num_batch_threads=1))
    inputs = {"inputs": string_array([b"", b""])}
    with pytest.raises(StatusError) as caught:
        asyncio.run(servable.run(signature, inputs, ["outputs"]))
    assert (caught.value.code, caught.value.message) == (grpc.StatusCode.FAILED_PRECONDITION, message)
    servable.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Servable]:
    folder = tmp_path_factory.mktemp("models")
    batching = BatchingParameters(
        num_batch_threads=2,
        max_batch_size=16,
        batch_timeout_micros=1000,
        max_enqueued_batches=1000,
        allowed_batch_sizes=(1, 4, 16),
    )
    return {
        "arithmetic": Servable(str(export_arithmetic(folder / "arithmetic")), batching=batching),
        "recommender": Servable(str(export_recommender(folder / "recommender")), batching=batching),
    }


def _recommendation(seen: Sequence[str]) -> tf.train.Example:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[item.encode() for item in seen]))
    return tf.train.Example(features=tf.train.Features(feature={"seen_item_ids": feature}))


ITEMS = st.sampled_from([*CATALOGUE, "unknown"])
EXAMPLES = st.lists(ITEMS, max_size=3).map(lambda seen: _recommendation(seen).SerializeToString()) | st.just(b"\xff")
FLOATS = st.floats(-1e6, 1e6, width=32)
RECOMMEND = st.lists(EXAMPLES, max_size=3).map(
    lambda rows: ("recommender", "serving_default", {"examples": np.array(rows, object)}, ["item_ids", "scores"])
)
RANK = st.integers(0, 4).flatmap(
    lambda width: st.lists(st.lists(ITEMS, min_size=width, max_size=width), min_size=1, max_size=3).map(
        lambda rows: (
            "recommender",
            "rank",
            {
                "examples": np.array([b""] * len(rows), object),
                "candidate_ids": string_array(rows).reshape(len(rows), width),
            },
            ["scores"],
        )
    )
)
ADD = st.tuples(
    st.lists(st.tuples(FLOATS, FLOATS), max_size=18), st.sampled_from([["sum"], ["product"], ["product", "sum"]])
).map(
    lambda drawn: (
        "arithmetic",
        "serving_default",
        dict(zip("ab", np.array(drawn[0], np.float32).reshape(-1, 2).T, strict=True)),
        drawn[1],
    )
)


@given(requests=st.lists(st.tuples(RECOMMEND | RANK | ADD, st.sampled_from([0, 0, 0.001])), max_size=12))
@settings(max_examples=60)
def test_any_interleaving_gives_what_each_request_gets_alone(models: dict[str, Servable], requests: list):
    async def ask(request: tuple, delay: float) -> object:
        await asyncio.sleep(delay)
        name, signature, inputs, outputs = request
        try:
            return await models[name].run(signature, inputs, outputs)
        except StatusError as error:
            return error

    async def main() -> list[object]:
        return await asyncio.gather(*itertools.starmap(ask, requests))

    for ((name, signature, inputs, outputs), _), answer in zip(requests, asyncio.run(main()), strict=True):
        rows = len(next(iter(inputs.values())))
        if rows > 16:
            assert isinstance(answer, StatusError)
            assert answer.message == f"Task size {rows} is larger than maximum input batch size 16"
            continue
        try:
            expected = models[name].run_now(signature, inputs, outputs)
        except StatusError as error:
            assert isinstance(answer, StatusError)
            assert answer.code is error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert "Could not parse example input" in answer.message
        else:
            assert isinstance(answer, dict)
            for alias, value in expected.items():  # Equal to the last bit: each row is computed by itself.
                assert answer[alias].shape == value.shape
                np.testing.assert_array_equal(answer[alias], value)
