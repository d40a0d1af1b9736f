"""Clients that ask a model server without a pause, over connections of their own, and keep what went wrong."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable

import grpc

from pipeline.serving.messages import predict_pb2, prediction_service_pb2_grpc
from pipeline.serving.tensors import make_tensor, read_tensor, string_array
from tests.serving.saved_models import CATALOGUE

CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
_TIMEOUT_SECONDS = 120.0


@dataclasses.dataclass
class Outcome:
    """What clients saw.

    Attributes:
      answered: answers by the version that they named.
      failures: by code and message.
      mixed: answers that were not those of the version that they named.
      last_answer: when the last answer came, by `time.monotonic`.
    """

    answered: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    mixed: list[str] = dataclasses.field(default_factory=list)
    last_answer: float = 0.0


class ClientsUnderLoad:
    """Asks for lists of several users at once, until told to stop.

    Version v must recommend the title at place v of the tiny catalogue first, to every user of a request.

    Args:
      address: the server, as `host:port`.
      count: clients, each with a thread and a connection.
      wait_for_ready: whether a request waits for a server that is away, instead of failing.
    """

    def __init__(self, address: str, count: int, wait_for_ready: bool = False):
        self.outcome = Outcome()
        self._address, self._wait_for_ready = address, wait_for_ready
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]

    def __enter__(self) -> ClientsUnderLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the asking, once what is under way is answered."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_until(self, reached: Callable[[Outcome], bool], seconds: float) -> bool:
        """Waits until the outcome so far fulfils a condition; returns whether it does."""
        deadline = time.monotonic() + seconds
        while not reached(self.outcome):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _ask(self, number: int) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "recommender"
        users = 1 + number % 3
        request.inputs["examples"].CopyFrom(make_tensor(string_array([b""] * users)))
        with grpc.insecure_channel(self._address, options=CHANNEL_OPTIONS) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._stopped.is_set():
                try:
                    response = stub.Predict(request, timeout=_TIMEOUT_SECONDS, wait_for_ready=self._wait_for_ready)
                except grpc.RpcError as error:
                    with self._lock:
                        self.outcome.failures[f"{error.code().name}: {error.details()}"] += 1
                    continue
                self._judge(response, users)

    def _judge(self, response: predict_pb2.PredictResponse, users: int) -> None:
        version = response.model_spec.version.value
        best = read_tensor(response.outputs["item_ids"])[:, 0].tolist()
        with self._lock:
            self.outcome.answered[version] += 1
            self.outcome.last_answer = time.monotonic()
            if best != [CATALOGUE[version].encode()] * users:
                self.outcome.mixed.append(f"version {version} recommended {best}")
