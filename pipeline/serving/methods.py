"""The methods of the blocking clients, whatever carries their calls."""

from __future__ import annotations

import abc
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline.serving.calls import Answer, Call, Calls
from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError
from pipeline.serving.readiness import POLL_SECONDS, Readiness
from pipeline.serving.requests import HistoryEvent, Query
from pipeline.serving.results import Outputs, Recommendations, Signature, VersionState

Client = TypeVar("Client", bound="RecommenderMethods")


class RecommenderMethods(abc.ABC):
    """What a blocking client can be asked.

    Every method has one deadline for all that it sends, retries included: `timeout_seconds`, or else the client's. What
    the server does not answer, or answers with an error, raises `ServingError`; what cannot be sent, `RequestError`.
    """

    def __init__(self, calls: Calls, timeout_seconds: float):
        """Keeps what makes the calls.

        Args:
          calls: makes the calls.
          timeout_seconds: the client's deadline.

        Raises:
          ValueError: if the deadline is not above zero.
        """
        self._calls = calls
        self._timeout_seconds = Deadline(timeout_seconds).seconds

    def __enter__(self: Client) -> Client:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def calls(self) -> Calls:
        """Makes the calls, and so tells whether one can be sent, before there is a server to send it to."""
        return self._calls

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connection. A call of another thread that is under way ends with the code CANCELLED."""

    @abc.abstractmethod
    def _send(self, call: Call[Answer], deadline: Deadline, *, retry: bool = True) -> Answer:
        """Sends a call within a deadline.

        Args:
          call: what is sent.
          deadline: by when there must be an answer.
          retry: whether it may be sent again. If not, its failure does not count against the requests that may.

        Raises:
          ServingError: if there is no answer, or none that can be used.
        """

    def recommend(
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
        """Recommends items that the user has not seen, out of the whole catalogue.

        Args:
          user: `user_id` and the user's columns, as far as known.
          history: the user's past events, in any order, before `timestamp`.
          seen: further items that must not be recommended.
          context: context columns.
          timestamp: time of the request in seconds since 1970 (UTC); None for now, just after the history.
          k: most recommendations wanted. There are never more than the exported model returns.
          timeout_seconds: deadline, if not the client's.

        Returns:
          Best first. Fewer than `k` if the catalogue has no more.

        Raises:
          RequestError: if a field does not fit the schema.
          ServingError: if the server does not answer, or answers with an error.
        """
        query = Query(user, history, seen, context, timestamp)
        (answer,) = self._send_all(self._calls.recommend([query], k, numbered=False), timeout_seconds)
        return answer

    def recommend_batch(
        self, queries: Sequence[Query], *, k: int = 10, timeout_seconds: float | None = None
    ) -> list[Recommendations]:
        """Recommends for many users at once: one request for each `pipeline.serving.calls.MAX_BATCH` of them.

        Args:
          queries: who asks.
          k: most recommendations for each.
          timeout_seconds: deadline of the whole batch, if not the client's.

        Returns:
          One list for each query, in their order.

        Raises:
          RequestError: if a field does not fit the schema; it names the query. Nothing is sent then.
          ServingError: if the server does not answer, or answers with an error.
        """
        return self._send_all(self._calls.recommend(queries, k, numbered=True), timeout_seconds)

    def rank(
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
        """Orders given items for a user; the other arguments and the errors are those of `recommend`.

        Args:
          user: `user_id` and the user's columns.
          history: the user's past events.
          candidates: item ids, at least one.
          seen: further items that the user knows.
          context: context columns.
          timestamp: time of the request.
          timeout_seconds: deadline, if not the client's.

        Returns:
          All candidates with their scores, best first; among equals, in the order given. Items that the model does not
          know score minus infinity.
        """
        call = self._calls.rank(Query(user, history, seen, context, timestamp), candidates)
        return self._send(call, self._deadline(timeout_seconds))

    def similar(self, item_id: str, k: int = 10, *, timeout_seconds: float | None = None) -> Recommendations:
        """Returns the items most alike to one, best first; none for an item that the model does not know.

        Raises:
          RequestError: if the id is empty or no text.
          ServingError: if the server does not answer, or answers with an error.
        """
        (answer,) = self.similar_batch([item_id], k, timeout_seconds=timeout_seconds)
        return answer

    def similar_batch(
        self, item_ids: Sequence[str], k: int = 10, *, timeout_seconds: float | None = None
    ) -> list[Recommendations]:
        """Returns the items most alike to each of several; see `similar` and `recommend_batch`."""
        return self._send_all(self._calls.similar(item_ids, k), timeout_seconds)

    def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], timeout_seconds: float | None = None
    ) -> Outputs:
        """Runs any signature on arrays; strings are object arrays of `bytes`.

        Args:
          signature: the signature's name.
          inputs: its inputs by name.
          timeout_seconds: deadline, if not the client's.

        Returns:
          Its outputs by name.

        Raises:
          ServingError: if the server does not answer, or answers with an error.
        """
        return self._send(self._calls.predict(signature, inputs), self._deadline(timeout_seconds))

    def status(self, timeout_seconds: float | None = None) -> list[VersionState]:
        """Returns the state of the client's version, or of each that the server has tried to load, in its order.

        Args:
          timeout_seconds: deadline, if not the client's.

        Raises:
          ServingError: NOT_FOUND if there is none; or if the server does not answer.
        """
        return self._send(self._calls.status(), self._deadline(timeout_seconds))

    def metadata(self, timeout_seconds: float | None = None) -> dict[str, Signature]:
        """Returns the signatures of the client's version, or of the latest, by name.

        Args:
          timeout_seconds: deadline, if not the client's.

        Raises:
          ServingError: if the server does not answer, or answers with an error.
        """
        return self._send(self._calls.metadata(), self._deadline(timeout_seconds))

    def wait_until_available(self, seconds: float) -> bool:
        """Waits while no server listens, or it has not loaded a version yet, or the version lacks its label.

        Does not wait for a version that cannot be loaded, nor on any other error: a request tells what is wrong.

        Args:
          seconds: how long at most.

        Returns:
          Whether a request is worth while now.
        """
        readiness = Readiness(seconds)
        while not self._worth_asking(readiness):
            if readiness.over:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _worth_asking(self, readiness: Readiness) -> bool:
        try:
            states = self._send(self._calls.status(), Deadline(readiness.poll_timeout), retry=False)
            if not readiness.worth_asking(states):
                return False
        except ServingError as error:
            return readiness.worth_asking(error)
        if self._calls.model.label is not None:
            try:
                self._send(self._calls.metadata(), Deadline(readiness.poll_timeout), retry=False)
            except ServingError as error:
                return not readiness.label_missing(error)
        return True

    def _send_all(self, calls: Iterable[Call[list[Answer]]], timeout_seconds: float | None) -> list[Answer]:
        """Sends calls one after another, within one deadline."""
        deadline = self._deadline(timeout_seconds)
        answers: list[Answer] = []
        for call in calls:
            part: list[Answer] = self._send(call, deadline)
            answers += part
        return answers

    def _deadline(self, timeout_seconds: float | None) -> Deadline:
        return Deadline(self._timeout_seconds if timeout_seconds is None else timeout_seconds)
