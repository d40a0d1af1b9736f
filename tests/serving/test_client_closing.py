"""A client that is closed while other threads are in a call: every call ends, and says why."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable

import grpc
import pytest

from pipeline.serving.client import RecommenderClient, RetryPolicy
from pipeline.serving.errors import ServingError
from pipeline.serving.methods import RecommenderMethods
from pipeline.serving.rest_client import RestRecommenderClient
from tests.serving.misbehaving_servers import GrpcServer, HttpServer, RawServer, failing_first, unheard_address

THREADS = 4
LONG_WAITS = RetryPolicy(initial_backoff_seconds=1000.0, max_backoff_seconds=1000.0)


def outcomes_of(client: RecommenderMethods) -> queue.Queue[Exception]:
    """Calls a client from several threads; what each call raises can be taken from the queue."""
    outcomes: queue.Queue[Exception] = queue.Queue()

    def call() -> None:
        try:
            client.status()
        except Exception as error:
            outcomes.put(error)

    for _ in range(THREADS):
        threading.Thread(target=call, daemon=True).start()  # A call that never ends must not keep the test from it.
    return outcomes


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_that_all_were_cancelled(outcomes: queue.Queue[Exception], address: str) -> None:
    for _ in range(THREADS):
        error = outcomes.get(timeout=10.0)
        assert isinstance(error, ServingError), error
        assert str(error) == f"{address}: CANCELLED: the client was closed"


def test_closing_ends_the_calls_of_other_threads():
    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        return b""

    with GrpcServer(wait) as server:
        client = RecommenderClient(server.address, timeout_seconds=600.0)
        outcomes = outcomes_of(client)
        wait_until(lambda: len(server.paths) == THREADS)
        client.close()
        for _ in range(THREADS):
            assert isinstance(error := outcomes.get(timeout=10.0), ServingError)
            assert error.code is grpc.StatusCode.CANCELLED


def test_closing_ends_the_rest_calls_of_other_threads():
    with RawServer() as server:  # Never says a word.
        client = RestRecommenderClient(server.address, timeout_seconds=600.0)
        outcomes = outcomes_of(client)
        wait_until(lambda: server.connections == THREADS)
        client.close()
        check_that_all_were_cancelled(outcomes, server.address)


def test_closing_ends_calls_that_wait_for_their_next_attempt():
    wait = RetryPolicy(initial_backoff_seconds=2.0, max_backoff_seconds=2.0)
    with GrpcServer(failing_first(THREADS, grpc.StatusCode.UNAVAILABLE, b"")) as server:
        client = RecommenderClient(server.address, timeout_seconds=600.0, retry=wait, generator=random.Random(3))
        outcomes = outcomes_of(client)
        wait_until(lambda: len(server.paths) == THREADS)
        client.close()
        check_that_all_were_cancelled(outcomes, server.address)
    with pytest.raises(RuntimeError, match=r"^the client is closed$"):
        client.status()


def test_closing_ends_rest_calls_that_wait_for_their_next_attempt():
    with HttpServer(lambda path, body: (503, {"error": "full"})) as server:
        client = RestRecommenderClient(server.address, timeout_seconds=100_000.0, retry=LONG_WAITS)
        outcomes = outcomes_of(client)
        wait_until(lambda: len(server.requests) == THREADS)
        time.sleep(0.1)
        client.close()
        check_that_all_were_cancelled(outcomes, server.address)


def test_rest_calls_that_race_with_closing_all_end():
    with unheard_address() as address:
        for round_number in range(30):
            client = RestRecommenderClient(address, timeout_seconds=100_000.0, retry=LONG_WAITS)
            outcomes = outcomes_of(client)
            time.sleep(round_number * 0.0003)
            closers = [threading.Thread(target=client.close, daemon=True) for _ in range(2)]
            for closer in closers:
                closer.start()
            for closer in closers:
                closer.join(timeout=10.0)
                assert not closer.is_alive()
            for _ in range(THREADS):
                error = outcomes.get(timeout=10.0)
                late = type(error) is RuntimeError and str(error) == "the client is closed"
                assert late or (isinstance(error, ServingError) and error.code is grpc.StatusCode.CANCELLED), error
