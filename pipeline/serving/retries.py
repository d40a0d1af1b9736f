"""When a request is sent again: everything a recommender's client asks only reads, so asking twice does no harm.

Only UNAVAILABLE is retried: the server is gone, restarting, or full for the moment. A deadline that has passed, a
refused argument or an answer that makes no sense would be no different the second time; RESOURCE_EXHAUSTED says that
the server has too much to do already, or that the message is too large for it.

gRPC's own retries are not used: a race of their timer can leave a call without an answer until its deadline, or
forever (https://github.com/grpc/grpc/issues/41036), they vary the waits by a fifth only, and REST has none.
"""

from __future__ import annotations

import dataclasses
import random
import threading

import grpc

from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often, and how soon, a request is sent again.

    The wait before each attempt is random, between nothing and a limit that grows ("full jitter"), so that clients that
    failed together do not come back together. No wait goes beyond the deadline: the error is raised instead.

    Attributes:
      attempts: most times that a request is sent; 1 for never again.
      initial_backoff_seconds: limit of the wait before the second attempt.
      backoff_multiplier: growth of the limit from attempt to attempt.
      max_backoff_seconds: where its growth ends.
      budget: failures in a row, of all requests of a client, after which none is sent again, so that a failing server
        is not asked many times as much as a healthy one.
      refund: failures that one answer makes up for.

    Raises:
      ValueError: if a value is out of its range.
    """

    attempts: int = 5
    initial_backoff_seconds: float = 0.1
    backoff_multiplier: float = 2.0
    max_backoff_seconds: float = 2.0
    budget: int = 25
    refund: float = 0.1

    def __post_init__(self) -> None:
        least = {"attempts": 1, "initial_backoff_seconds": 0, "backoff_multiplier": 1, "max_backoff_seconds": 0}
        for name, minimum in {**least, "budget": 1, "refund": 0}.items():
            value = getattr(self, name)
            if not minimum <= value < float("inf"):
                raise ValueError(f"{name}: received {value!r}; expected a finite number of at least {minimum}")

    def backoff_limit(self, attempt: int) -> float:
        """Returns the longest wait after an attempt, in seconds.

        Args:
          attempt: its number, from 1.
        """
        grown = self.initial_backoff_seconds * self.backoff_multiplier ** min(attempt - 1, 64)
        return min(grown, self.max_backoff_seconds)


DEFAULT_RETRY = RetryPolicy()
"""The policy of a client that is not given one."""


NO_RETRY = RetryPolicy(attempts=1)
"""The policy of who asks again by itself, such as a poll."""


class Retries:
    """The retries of one client: its policy, and what is left of its budget. Thread-safe."""

    def __init__(self, policy: RetryPolicy, generator: random.Random | None = None):
        """Starts with a full budget.

        Args:
          policy: how often, and how soon.
          generator: makes the waits random; None for one that differs from client to client.
        """
        self.policy = policy
        self._generator = random.Random() if generator is None else generator
        self._left = float(policy.budget)
        self._lock = threading.Lock()

    def answered(self) -> None:
        """Takes note that the server has answered a request, be it with an error."""
        with self._lock:
            self._left = min(self._left + self.policy.refund, float(self.policy.budget))

    def wait_after(self, attempt: int, error: ServingError, deadline: Deadline) -> float | None:
        """Takes note of a failure.

        Args:
          attempt: number of the attempt that failed, from 1.
          error: what it got.
          deadline: by when there must be an answer.

        Returns:
          Seconds to wait before the next attempt; None if there shall be none.
        """
        if error.code is not grpc.StatusCode.UNAVAILABLE:
            if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                self.answered()
            return None
        with self._lock:
            # Below zero as well: a server that was down for long has to earn its retries back.
            self._left = max(self._left - 1, -float(self.policy.budget))
            affordable = self._left >= 0
            wait = self._generator.uniform(0.0, self.policy.backoff_limit(attempt))
        last = attempt >= self.policy.attempts or not affordable or wait >= deadline.remaining
        return None if last else wait
