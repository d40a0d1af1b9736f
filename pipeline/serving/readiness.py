"""When it is worth while to ask a model server that may still be starting."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc

from pipeline.serving.errors import ServingError
from pipeline.serving.results import VersionState

POLL_SECONDS = 0.1
POLL_TIMEOUT_SECONDS = 5.0
_LABEL_GRACE_SECONDS = 2.0
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)


class Readiness:
    """Judges a model server's state, poll by poll, until a deadline."""

    def __init__(self, seconds: float):
        """Starts the clock.

        Args:
          seconds: how long to wait at most.
        """
        self._deadline = time.monotonic() + seconds
        self._unlabelled_since: float | None = None

    @property
    def poll_timeout(self) -> float:
        """Deadline of the next poll, in seconds."""
        return max(0.01, min(POLL_TIMEOUT_SECONDS, self._deadline - time.monotonic()))

    @property
    def over(self) -> bool:
        """Whether there is no time for another poll."""
        return time.monotonic() + POLL_SECONDS > self._deadline

    def worth_asking(self, state: Sequence[VersionState] | ServingError) -> bool:
        """Whether a request gets an answer, or an error that waiting will not change.

        Args:
          state: the states of the versions, or why they are not known.
        """
        if isinstance(state, ServingError):
            # A poll that was cut short by the deadline says nothing.
            late = state.code is grpc.StatusCode.DEADLINE_EXCEEDED and self.over
            return state.code not in _NOT_YET and not late
        states = {version.state for version in state}
        return "AVAILABLE" in states or not states & {"START", "LOADING"}

    def label_missing(self, error: ServingError) -> bool:
        """Whether a version may still get its label: servers give labels just after loading.

        Args:
          error: what a request with the label got.
        """
        if error.code not in (grpc.StatusCode.INVALID_ARGUMENT, *_NOT_YET):
            return False
        now = time.monotonic()
        if self._unlabelled_since is None:
            self._unlabelled_since = now
        return now - self._unlabelled_since < _LABEL_GRACE_SECONDS
