"""Serves models, puts load on the server, and sets that beside the direct call of the SavedModel.

With one connection, direct calls and requests take turns, call by call: whatever else the machine does slows down both,
and neither finds the processor's caches any warmer than the other. Back to back, direct calls are faster; that is told
as well.
"""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pydantic import BaseModel
from rich.console import Console

from pipeline.benchmark_inputs import read_test_examples
from pipeline.config import PipelineConfig
from pipeline.serving.messages import predict_pb2
from pipeline.serving.process import ServerProcess
from pipeline.serving.tensors import make_tensor, read_tensor, string_array
from pipeline.serving_benchmark.load import CHANNEL_OPTIONS, PREDICT, LoadReport, write_requests
from pipeline.serving_benchmark.models import ServedModel, ServedModels

MODEL_NAME = "recommender"
SIZES = (0, 100_000, 1_000_000)
"""Sizes of the catalogues; 0 stands for the real one."""
CONNECTIONS = (1, 8, 32, 128)
SECONDS = 3.0
ROUNDS = 3
"""Rounds of direct calls and requests in turn."""
START_SECONDS = 300.0
_REQUESTS = 256
_CALLS = 256
_WARM_UP_CALLS = 20
_TOLERANCE = 1e-4


class Measurement(BaseModel):
    """A server under one kind of load.

    Attributes:
      connections: how many asked at once.
      batching: whether the server joined requests.
      requests_per_second: answered requests.
      milliseconds: latency by percentile: 50, 95 and 99.
      errors: how often each error was answered, by code and message.
      other_lists: requests that were answered by other titles, in another order, or by other scores than those of the
        direct call.
    """

    connections: int
    batching: bool
    requests_per_second: float
    milliseconds: dict[int, float]
    errors: dict[str, int]
    other_lists: int


class ModelBenchmark(BaseModel):
    """One model.

    Attributes:
      model: what was served.
      start_seconds: from the start of the server's process to the first answer that it is available.
      back_to_back_milliseconds: latency of direct calls that follow one another, by percentile.
      direct_milliseconds: latency of direct calls in turn with requests.
      served_milliseconds: latency of those requests, on one connection, without batching.
      ratios: median latency of those requests by that of those direct calls, round by round.
      measurements: all loads.
    """

    model: ServedModel
    start_seconds: float
    back_to_back_milliseconds: dict[int, float]
    direct_milliseconds: dict[int, float]
    served_milliseconds: dict[int, float]
    ratios: list[float]
    measurements: list[Measurement]

    def find(self, connections: int, batching: bool) -> Measurement:
        """Returns one measurement."""
        return next(m for m in self.measurements if (m.connections, m.batching) == (connections, batching))

    @property
    def gain(self) -> float | None:
        """Requests per second at 32 connections with batching, by those at one connection without; None unless both."""
        rates = {(m.connections, m.batching): m.requests_per_second for m in self.measurements}
        if not {(32, True), (1, False)} <= set(rates):
            return None
        return rates[32, True] / rates[1, False]


class ServingBenchmark(BaseModel):
    """All models, in the order measured."""

    models: list[ModelBenchmark]


class ServingBenchmarkError(RuntimeError):
    """A process of the benchmark failed. The message holds the end of what it said."""


def run_serving_benchmark(
    name_or_path: str,
    overrides: Sequence[str],
    config: PipelineConfig,
    console: Console,
    sizes: Sequence[int] = SIZES,
    connections: Sequence[int] = CONNECTIONS,
    seconds: float = SECONDS,
    on_measured: Callable[[ModelBenchmark], None] = lambda measured: None,
) -> ServingBenchmark:
    """Fits a model on what the latest run left, serves it over several catalogues, and measures.

    Args:
      name_or_path: the configuration, as for `marquee run`.
      overrides: assignments, as for `marquee run`.
      config: the same, read.
      console: where progress goes.
      sizes: sizes of the catalogues; 0 stands for the real one.
      connections: how many clients ask at once.
      seconds: how long each load lasts.
      on_measured: is called with the figures of each model.

    Raises:
      NoRunError: if there is no run.
      ServingBenchmarkError: if a process fails.
      ServerProcessError: if a model cannot be served.
    """
    examples = read_test_examples(config, _REQUESTS)
    with tempfile.TemporaryDirectory(prefix="marquee-bench-serving-") as name:
        folder = Path(name)
        with console.status("fitting a model and exporting it over each catalogue …"):
            output = folder / "models.json"
            arguments = [name_or_path, str(folder), str(output), ",".join(map(str, sizes)), *overrides]
            _run_module("pipeline.serving_benchmark.models", arguments)
            models = ServedModels.model_validate_json(output.read_text(encoding="utf-8")).models
        write_requests([_request(example) for example in examples], folder / "requests.json")
        measured = []
        for model in models:
            measured.append(_measure_model(model, examples, connections, seconds, folder, console))
            on_measured(measured[-1])
    return ServingBenchmark(models=measured)


def _measure_model(
    model: ServedModel,
    examples: Sequence[bytes],
    connections: Sequence[int],
    seconds: float,
    folder: Path,
    console: Console,
) -> ModelBenchmark:
    what = f"{model.num_items:,} titles, {model.retrieval}"
    with console.status(f"{what}: calling it directly …"):
        call = _load_direct(model.path)
        expected = [call(example) for example in examples]
        back_to_back = [_time(call, example) for example in itertools.islice(itertools.cycle(examples), _CALLS)]
    measurements: list[Measurement] = []
    direct: list[float] = []
    served: list[float] = []
    ratios: list[float] = []
    starts: list[float] = []
    for batching in (False, True):
        started = time.monotonic()
        options = ["--enable_batching"] if batching else []
        with ServerProcess(model.base_path, MODEL_NAME, START_SECONDS, options=options) as server:
            starts.append(time.monotonic() - started)
            if not batching:
                with console.status(f"{what}: direct calls and requests in turn …"):
                    for _ in range(ROUNDS):
                        pairs = _take_turns(call, server.address, examples)
                        direct += [pair[0] for pair in pairs]
                        served += [pair[1] for pair in pairs]
                        ratios.append(float(np.divide(*reversed(np.median(pairs, axis=0)))))
            for count in connections:
                with console.status(f"{what}: {count} connections, batching {'on' if batching else 'off'} …"):
                    report = _run_load(server.address, folder, count, seconds)
                measurements.append(_summarise(report, count, batching, expected))
    return ModelBenchmark(
        model=model,
        start_seconds=float(np.median(starts)),
        back_to_back_milliseconds=_percentiles(back_to_back),
        direct_milliseconds=_percentiles(direct),
        served_milliseconds=_percentiles(served),
        ratios=ratios,
        measurements=measurements,
    )


Answer = tuple[list[bytes], np.ndarray]
"""Titles of a list, and their scores."""


def _load_direct(path: str) -> Callable[[bytes], Answer]:
    """Returns what a program without a server would do: call the signature of the SavedModel that it has loaded."""
    import tensorflow as tf

    from modules.models.custom_ops import register_custom_ops

    register_custom_ops(path)
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures["serving_default"]

    # The loaded object must outlive its signature: it is kept as a default.
    def call(example: bytes, loaded: object = loaded) -> Answer:
        outputs = signature(examples=tf.constant([example]))
        return outputs["item_ids"].numpy()[0].tolist(), outputs["scores"].numpy()[0]

    return call


def _take_turns(call: Callable[[bytes], Answer], address: str, examples: Sequence[bytes]) -> list[tuple[float, float]]:
    """Returns the seconds of a direct call and of a request for the same, in turn, for some examples."""
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        predict = channel.unary_unary(PREDICT)
        requests = [_request(example) for example in examples]
        chosen = list(itertools.islice(itertools.cycle(zip(examples, requests, strict=True)), _CALLS))
        for example, request in chosen[:_WARM_UP_CALLS]:
            call(example)
            predict(request)
        return [(_time(call, example), _time(predict, request)) for example, request in chosen]


def _time(function: Callable[[bytes], Any], argument: bytes) -> float:
    started = time.perf_counter()
    function(argument)
    return time.perf_counter() - started


def _summarise(report: LoadReport, connections: int, batching: bool, expected: Sequence[Answer]) -> Measurement:
    other = sum(
        any(not _is_same(base64.b64decode(answer), wanted) for answer in answers)
        for answers, wanted in zip(report.answers, expected, strict=True)
    )
    return Measurement(
        connections=connections,
        batching=batching,
        requests_per_second=len(report.latencies) / report.seconds,
        milliseconds=_percentiles(report.latencies),
        errors=report.errors,
        other_lists=other,
    )


def _is_same(answer: bytes, expected: Answer) -> bool:
    """Returns whether titles and scores are those expected; scores that differ by rounding may change places."""
    outputs = predict_pb2.PredictResponse.FromString(answer).outputs
    ids, scores = read_tensor(outputs["item_ids"])[0].tolist(), read_tensor(outputs["scores"])[0]
    if not np.allclose(scores, expected[1], _TOLERANCE, _TOLERANCE):
        return False
    places = {item_id: place for place, item_id in enumerate(expected[0])}
    return all(
        mine == theirs or np.isclose(scores[place], expected[1][places.get(mine, -1)], _TOLERANCE, _TOLERANCE)
        for place, (mine, theirs) in enumerate(zip(ids, expected[0], strict=True))
    )


def _request(example: bytes) -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL_NAME
    request.inputs["examples"].CopyFrom(make_tensor(string_array([example])))
    return request.SerializeToString()


def _percentiles(seconds: Sequence[float]) -> dict[int, float]:
    if not seconds:
        return {}
    return {percent: 1000 * float(np.percentile(seconds, percent)) for percent in (50, 95, 99)}


def _run_load(address: str, folder: Path, connections: int, seconds: float) -> LoadReport:
    output = folder / "load.json"
    arguments: list[Any] = [address, folder / "requests.json", connections, seconds, output]
    _run_module("pipeline.serving_benchmark.load", [str(argument) for argument in arguments])
    return LoadReport.model_validate_json(output.read_text(encoding="utf-8"))


def _run_module(module: str, arguments: Sequence[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", module, *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if finished.returncode != 0:
        tail = "\n".join(finished.stderr.strip().splitlines()[-10:])
        raise ServingBenchmarkError(f"{module} ended with code {finished.returncode}:\n{tail}")
