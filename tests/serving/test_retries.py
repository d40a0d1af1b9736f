"""When a request is sent again, and after how long."""

from __future__ import annotations

import itertools
import random
import re
import time
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError
from pipeline.serving.retries import Retries, RetryPolicy

UNAVAILABLE = ServingError(grpc.StatusCode.UNAVAILABLE, "full", "h:1")


def waits(retries: Retries, deadline: Deadline) -> list[float]:
    """The waits of one request that fails every time."""
    return list(
        itertools.takewhile(
            lambda wait: wait is not None,
            (retries.wait_after(attempt, UNAVAILABLE, deadline) for attempt in itertools.count(1)),  # type: ignore[misc]
        )
    )


@given(
    st.builds(
        RetryPolicy,
        attempts=st.integers(1, 8),
        initial_backoff_seconds=st.floats(0, 5),
        backoff_multiplier=st.floats(1, 10),
        max_backoff_seconds=st.floats(0, 5),
    ),
    st.integers(),
)
def test_waits_lie_between_nothing_and_a_growing_limit(policy: RetryPolicy, seed: int):
    found = waits(Retries(policy, random.Random(seed)), Deadline(1e6))
    assert len(found) == policy.attempts - 1
    limits = [policy.backoff_limit(attempt) for attempt in range(1, policy.attempts)]
    assert limits == sorted(limits)
    assert all(limit <= policy.max_backoff_seconds for limit in limits)
    assert all(0 <= wait <= limit for wait, limit in zip(found, limits, strict=True))


def test_the_same_generator_waits_the_same_and_others_do_not():
    first, again, other = (waits(Retries(RetryPolicy(), random.Random(seed)), Deadline(99.0)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == len(first)


def test_no_wait_reaches_beyond_the_deadline():
    policy = RetryPolicy(attempts=9, initial_backoff_seconds=5.0, max_backoff_seconds=5.0)
    for seed in range(20):
        assert all(wait < 0.5 for wait in waits(Retries(policy, random.Random(seed)), Deadline(0.5)))
    deadline = Deadline(0.001)
    time.sleep(0.002)
    assert waits(Retries(RetryPolicy(initial_backoff_seconds=0.0)), deadline) == []


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.UNAVAILABLE])
def test_only_unavailability_is_retried(code: grpc.StatusCode):
    assert Retries(RetryPolicy()).wait_after(1, ServingError(code, "", "h:1"), Deadline(99.0)) is None


def test_the_budget_ends_retries_and_answers_refill_it():
    retries = Retries(RetryPolicy(budget=7, refund=0.5))
    assert [len(waits(retries, Deadline(99.0))) for _ in range(4)] == [4, 2, 0, 0]
    while retries.wait_after(1, UNAVAILABLE, Deadline(99.0)) is None:
        for _ in range(4):
            retries.answered()
    assert retries.wait_after(1, UNAVAILABLE, Deadline(99.0)) is None


def test_an_error_of_the_servers_own_is_an_answer_but_silence_is_not():
    refused = ServingError(grpc.StatusCode.NOT_FOUND, "", "h:1")
    late = ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "", "h:1")
    for error, retried in ((refused, True), (late, False)):
        retries = Retries(RetryPolicy(budget=1, refund=2.0))
        assert [retries.wait_after(1, UNAVAILABLE, Deadline(99.0)) is None for _ in range(2)] == [False, True]
        retries.wait_after(1, error, Deadline(99.0))
        assert (retries.wait_after(1, UNAVAILABLE, Deadline(99.0)) is not None) == retried


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attempts": 0}, "attempts: received 0; expected a finite number of at least 1"),
        ({"initial_backoff_seconds": -1}, "initial_backoff_seconds: received -1"),
        ({"initial_backoff_seconds": float("nan")}, "initial_backoff_seconds: received nan"),
        ({"backoff_multiplier": 0.5}, "backoff_multiplier: received 0.5"),
        ({"max_backoff_seconds": float("inf")}, "max_backoff_seconds: received inf"),
        ({"budget": 0}, "budget: received 0"),
        ({"refund": -0.1}, "refund: received -0.1"),
    ],
)
def test_values_out_of_range_are_named(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        RetryPolicy(**arguments)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_deadlines_are_finite_and_lie_ahead(seconds: float):
    with pytest.raises(ValueError, match=f"timeout_seconds: received {seconds!r}; expected a finite number above 0"):
        Deadline(seconds)
