"""`AsyncRecommenderClient`: what `RecommenderClient` is, for asyncio."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc.aio
import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.serving.calls import Answer, Call, Calls, ModelSelection
from pipeline.serving.channels import TlsOptions, check_metadata, explain, open_channel
from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError
from pipeline.serving.readiness import POLL_SECONDS, Readiness
from pipeline.serving.requests import HistoryEvent, Query
from pipeline.serving.results import Outputs, Recommendations, Signature, VersionState
from pipeline.serving.retries import DEFAULT_RETRY, NO_RETRY, Retries, RetryPolicy


class AsyncRecommenderClient:
    """Talks to one model of one server over gRPC, on one connection, many requests at a time.

    Make it and use it inside one event loop, in an `async with` block, or await `close`. The methods take the
    arguments of `RecommenderClient`'s, answer and raise the same; a task that is cancelled cancels its request.
    """

    def __init__(
        self,
        address: str,
        model_name: str = "recommender",
        timeout_seconds: float = 5.0,
        schema: schema_pb2.Schema | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        tls: TlsOptions | None = None,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        generator: random.Random | None = None,
    ):
        """Connects lazily; see `RecommenderClient`.

        Args:
          address: the server, as `host:port`.
          model_name: the model's name on the server.
          timeout_seconds: deadline of each method, retries included.
          schema: tagged schema that requests must fit; None to take fields as they come.
          version: the version that answers; None for the latest.
          label: name of the version that answers, instead of its number.
          tls: how to encrypt the connection; None not to.
          metadata: sent along with each request. Keys in lower case.
          retry: when requests are sent again.
          generator: makes the waits before retries random; None for one that differs from client to client.

        Raises:
          SchemaError: if the schema's tags contradict each other.
          ValueError: if an argument is out of its range.
          OSError: if a file of `tls` cannot be read.
        """
        self._calls = Calls(ModelSelection(model_name, version, label), schema)
        self._timeout_seconds = Deadline(timeout_seconds).seconds
        self._address = address
        self._retries = Retries(retry, generator)
        self._metadata = check_metadata(metadata)
        self._channel = open_channel(grpc.aio, address, tls)

    async def __aenter__(self) -> AsyncRecommenderClient:
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def recommend(
        self,
        user: Mapping[str, Any],
        history: Sequence[HistoryEvent] = (),
        *,
        seen: Sequence[str] = (),
        context: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        k: int = 10,
        timeout_seconds: float | None = None,
    ) -> Recommendations:
        """Recommends items that the user has not seen; see `RecommenderClient.recommend`."""
        query = Query(user, history, seen, context, timestamp)
        (answer,) = await self._send_all(self._calls.recommend([query], k, numbered=False), timeout_seconds)
        return answer

    async def recommend_batch(
        self, queries: Sequence[Query], *, k: int = 10, timeout_seconds: float | None = None
    ) -> list[Recommendations]:
        """Recommends for many users at once; see `RecommenderClient.recommend_batch`."""
        return await self._send_all(self._calls.recommend(queries, k, numbered=True), timeout_seconds)

    async def rank(
        self,
        user: Mapping[str, Any],
        history: Sequence[HistoryEvent] = (),
        *,
        candidates: Sequence[str],
        seen: Sequence[str] = (),
        context: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Recommendations:
        """Orders given items for a user; see `RecommenderClient.rank`."""
        call = self._calls.rank(Query(user, history, seen, context, timestamp), candidates)
        return await self._send(call, self._deadline(timeout_seconds))

    async def similar(self, item_id: str, k: int = 10, *, timeout_seconds: float | None = None) -> Recommendations:
        """Returns the items most alike to one; see `RecommenderClient.similar`."""
        (answer,) = await self.similar_batch([item_id], k, timeout_seconds=timeout_seconds)
        return answer

    async def similar_batch(
        self, item_ids: Sequence[str], k: int = 10, *, timeout_seconds: float | None = None
    ) -> list[Recommendations]:
        """Returns the items most alike to each of several; see `RecommenderClient.similar_batch`."""
        return await self._send_all(self._calls.similar(item_ids, k), timeout_seconds)

    async def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], timeout_seconds: float | None = None
    ) -> Outputs:
        """Runs any signature on arrays; see `RecommenderClient.predict`."""
        return await self._send(self._calls.predict(signature, inputs), self._deadline(timeout_seconds))

    async def status(self, timeout_seconds: float | None = None) -> list[VersionState]:
        """Returns the states of the model's versions; see `RecommenderClient.status`."""
        return await self._send(self._calls.status(), self._deadline(timeout_seconds))

    async def metadata(self, timeout_seconds: float | None = None) -> dict[str, Signature]:
        """Returns the signatures by name; see `RecommenderClient.metadata`."""
        return await self._send(self._calls.metadata(), self._deadline(timeout_seconds))

    async def wait_until_available(self, seconds: float) -> bool:
        """Waits for a server that is starting; see `RecommenderClient.wait_until_available`."""
        readiness = Readiness(seconds)
        while not await self._worth_asking(readiness):
            if readiness.over:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _worth_asking(self, readiness: Readiness) -> bool:
        try:
            states = await self._send(self._calls.status(), Deadline(readiness.poll_timeout), retry=False)
            if not readiness.worth_asking(states):
                return False
        except ServingError as error:
            return readiness.worth_asking(error)
        if self._calls.model.label is not None:
            try:
                await self._send(self._calls.metadata(), Deadline(readiness.poll_timeout), retry=False)
            except ServingError as error:
                return not readiness.label_missing(error)
        return True

    async def _send_all(self, calls: Iterable[Call[list[Answer]]], timeout_seconds: float | None) -> list[Answer]:
        deadline = self._deadline(timeout_seconds)
        answers: list[Answer] = []
        for call in calls:
            part: list[Answer] = await self._send(call, deadline)
            answers += part
        return answers

    async def _send(self, call: Call[Answer], deadline: Deadline, *, retry: bool = True) -> Answer:
        method, request = self._channel.unary_unary(call.method.path), call.request.SerializeToString()
        retries = self._retries if retry else Retries(NO_RETRY)
        for attempt in itertools.count(1):
            try:
                response = await method(request, timeout=deadline.remaining, metadata=self._metadata)
                break
            except grpc.aio.AioRpcError as failure:
                error = explain(failure.code(), failure.details() or "", self._address, deadline)
                wait = retries.wait_after(attempt, error, deadline)
                if wait is None:
                    raise error from failure
            await asyncio.sleep(wait)
        retries.answered()
        return call.decode(response, self._address)

    def _deadline(self, timeout_seconds: float | None) -> Deadline:
        return Deadline(self._timeout_seconds if timeout_seconds is None else timeout_seconds)
