"""The bound on the requests that the server works on at a time."""

from __future__ import annotations

import grpc

from pipeline.serving.errors import StatusError


class Admission:
    """Counts the requests to run a model that are under way and refuses those beyond a limit at once.

    A request that would only wait until its client has given up helps nobody. Used on the event loop, by both
    transports:

        with admission:
            answer = await services.predict(request)
    """

    def __init__(self, limit: int):
        """Admits everything up to `limit` requests; 0 means no limit."""
        self._limit = limit
        self.in_flight = 0
        """Requests under way."""

    def __enter__(self) -> None:
        """Admits one more request.

        Raises:
          StatusError: RESOURCE_EXHAUSTED if the limit is reached; the text is gRPC's own for a busy server.
        """
        if 0 < self._limit <= self.in_flight:
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        self.in_flight += 1

    def __exit__(self, *unused: object) -> None:
        self.in_flight -= 1
