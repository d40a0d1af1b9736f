"""What a served recommender must answer, checked against real requests and nasty ones."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from modules.features import HISTORY_ITEM_IDS, HISTORY_TIMESTAMPS, SEEN_ITEM_IDS, USER_ID
from pipeline.serving.client import RecommenderClient
from pipeline.serving.errors import ServingError
from pipeline.serving.messages import example_pb2
from pipeline.serving.tensors import string_array

UNKNOWN = b"\x7fno such id\x7f"
"""An id that no catalogue and no user base has."""

_SIGNATURES = {
    "serving_default": ({"examples"}, {"item_ids", "scores"}),
    "rank": ({"examples", "candidate_ids"}, {"scores"}),
    "similar": ({"item_ids"}, {"item_ids", "scores"}),
}
_TIMED_REQUESTS = 100
_TIMED_PERCENTILE = 95
_RELATIVE_TOLERANCE = 1e-3
_ABSOLUTE_TOLERANCE = 1e-5


class AnswerError(ValueError):
    """An answer that a recommender must not give. The message says to which request, and what is wrong with it."""


class AnswerChecker:
    """Sends requests to a served model and checks the answers.

    Args:
      client: client of the server.
      timeout_seconds: time for all of the requests together.
      largest_batch: examples in the largest request that clients may send.
    """

    def __init__(self, client: RecommenderClient, timeout_seconds: float, largest_batch: int = 64):
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._largest_batch = largest_batch
        self._deadline = time.monotonic() + timeout_seconds

    def check(self, examples: Sequence[bytes]) -> None:
        """Checks every signature that clients use, with real requests and with nasty ones.

        Nasty are the largest batch, an unknown user, no history, a history of unknown items, each feature missing in
        turn, and nothing at all.

        Args:
          examples: serialized tf.Examples, as the model was fitted on; at least one.

        Raises:
          AnswerError: at the first answer that is wrong, missing or late.
        """
        self._check_signatures()
        alone = [
            self._recommend([example], f"example {position} of {len(examples)}")["scores"][0]
            for position, example in enumerate(examples, start=1)
        ]
        batch = list(itertools.islice(itertools.cycle(examples), max(self._largest_batch, len(examples))))
        together = self._recommend(batch, f"the batch of {len(batch)} examples")["scores"]
        for one, same in zip(itertools.cycle(alone), together, strict=False):
            if one.shape != same.shape or not np.allclose(one, same, _RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE):
                raise AnswerError("serving_default: scores change with the batch that an example is sent in")
        self._recommend([_with_unknown_user(examples[0])], "an unknown user")
        self._recommend([_with_unknown_history(examples[0])], "a history of unknown items")
        self._recommend([_without(examples[0], _is_of_history)], "an empty history")
        longest = max(examples, key=len)
        for name in sorted(example_pb2.Example.FromString(longest).features.feature):
            self._recommend([_without(longest, name.__eq__)], f"an example without {name}")
        answer = self._recommend([b""], "an empty example")
        items = [item_id for item_id in answer["item_ids"][0] if item_id]
        if not items:
            raise AnswerError("serving_default, an empty example: nothing is recommended")
        self._check_rank(examples, items)
        self._check_similar(items)

    def check_latency(self, examples: Sequence[bytes], budget_milliseconds: float) -> None:
        """Checks that the answers come fast enough, from a client on the same machine, one request at a time.

        Args:
          examples: serialized tf.Examples; sent one by one, over and over.
          budget_milliseconds: what 95 of 100 requests may take at most.

        Raises:
          AnswerError: if they take longer, or one is not answered.
        """
        seconds = []
        for example in itertools.islice(itertools.cycle(examples), _TIMED_REQUESTS):
            started = time.perf_counter()
            self._predict("serving_default", "a timed request", examples=string_array([example]))
            seconds.append(time.perf_counter() - started)
        latency = 1000 * float(np.percentile(seconds, _TIMED_PERCENTILE))
        if latency > budget_milliseconds:
            raise AnswerError(
                f"serving_default: {_TIMED_PERCENTILE} % of {_TIMED_REQUESTS} single requests must be answered within "
                f"{budget_milliseconds:g} ms each; received {latency:.1f} ms"
            )

    def _check_signatures(self) -> None:
        try:
            signatures = self._client.metadata()
        except ServingError as error:
            raise AnswerError(f"the model's signatures cannot be read: {error}") from error
        for name, (inputs, outputs) in _SIGNATURES.items():
            if name not in signatures:
                raise AnswerError(f"the signature {name!r} is missing; the model has {sorted(signatures)}")
            received = (set(signatures[name].inputs), set(signatures[name].outputs))
            if received != (inputs, outputs):
                raise AnswerError(
                    f"the signature {name!r} must have the inputs {sorted(inputs)} and outputs {sorted(outputs)}; "
                    f"received {sorted(received[0])} and {sorted(received[1])}"
                )

    def _recommend(self, examples: Sequence[bytes], what: str) -> dict[str, np.ndarray]:
        answer = self._predict("serving_default", what, examples=string_array(list(examples)))
        hidden = [seen_items(example) for example in examples]
        check_lists(answer, hidden, f"serving_default, {what}", "is already seen")
        return answer

    def _check_rank(self, examples: Sequence[bytes], items: Sequence[bytes]) -> None:
        candidates = string_array([[*items, UNKNOWN]] * len(examples))
        scores = self._predict("rank", "candidates", examples=string_array(list(examples)), candidate_ids=candidates)[
            "scores"
        ]
        if scores.shape != candidates.shape:
            raise AnswerError(
                f"rank: scores must have the candidates' shape {candidates.shape}; received {scores.shape}"
            )
        if not np.isfinite(scores[:, :-1]).all():
            raise AnswerError("rank: the score of a known candidate is not finite")
        if np.isnan(scores[:, -1]).any() or np.isposinf(scores[:, -1]).any():
            raise AnswerError("rank: the score of an unknown candidate is NaN or infinite")

    def _check_similar(self, items: Sequence[bytes]) -> None:
        asked = [*items, UNKNOWN]
        answer = self._predict("similar", "items", item_ids=string_array(asked))
        check_lists(answer, [{item_id} for item_id in asked], "similar", "is the one asked about")

    def _predict(self, signature: str, what: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise AnswerError(f"{signature}, {what}: the {self._timeout_seconds:g} s for all requests are over")
        try:
            outputs = self._client.predict(signature, inputs, remaining)
        except ServingError as error:
            raise AnswerError(f"{signature}, {what}: {error.code.name}: {error.message}") from error
        if set(outputs) != _SIGNATURES[signature][1]:
            raise AnswerError(
                f"{signature}, {what}: the outputs must be {sorted(_SIGNATURES[signature][1])}; "
                f"received {sorted(outputs)}"
            )
        return outputs


def check_lists(answer: Mapping[str, np.ndarray], hidden: Sequence[set[bytes]], what: str, why_hidden: str) -> None:
    """Checks lists of items, best first.

    Args:
      answer: `item_ids` and `scores`, both `[len(hidden), K]`.
      hidden: for each list, the items that must not be in it.
      what: the request, for messages.
      why_hidden: what is wrong with a hidden item, for messages.
    """
    item_ids, scores = answer["item_ids"], answer["scores"]
    if item_ids.ndim != 2 or item_ids.shape != scores.shape or len(item_ids) != len(hidden) or not item_ids.size:
        raise AnswerError(
            f"{what}: item_ids and scores must both have the shape ({len(hidden)}, K); "
            f"received {item_ids.shape} and {scores.shape}"
        )
    if item_ids.dtype != object or scores.dtype != np.float32:
        raise AnswerError(
            f"{what}: item_ids must be strings and scores float32; received {item_ids.dtype} and {scores.dtype}"
        )
    for ids, values, forbidden in zip(item_ids.tolist(), scores, hidden, strict=True):
        count = ids.index(b"") if b"" in ids else len(ids)
        if any(ids[count:]):
            raise AnswerError(f"{what}: an item stands behind the end of its list")
        if not np.isfinite(values[:count]).all():
            raise AnswerError(f"{what}: the score of {_text(ids[int(np.argmin(np.isfinite(values)))])} is not finite")
        if not np.isneginf(values[count:]).all():
            raise AnswerError(f"{what}: scores behind the end of a list must be -inf; received {values[count:]}")
        if (np.diff(values[:count]) > 0).any():
            raise AnswerError(f"{what}: the list is not in order of its scores")
        if len(set(ids[:count])) < count:
            raise AnswerError(f"{what}: an item is listed twice: {_text(max(ids[:count], key=ids.count))}")
        if found := forbidden.intersection(ids[:count]):
            raise AnswerError(f"{what}: {_text(min(found))} {why_hidden}")


def seen_items(serialized: bytes) -> set[bytes]:
    """Returns the titles that must not be recommended for an example."""
    features = example_pb2.Example.FromString(serialized).features.feature
    return {
        item_id
        for name in (HISTORY_ITEM_IDS, SEEN_ITEM_IDS)
        if name in features
        for item_id in features[name].bytes_list.value
    }


def _is_of_history(name: str) -> bool:
    return name.startswith("history_") or name == SEEN_ITEM_IDS


def _without(serialized: bytes, is_left_out: Callable[[str], bool]) -> bytes:
    example = example_pb2.Example.FromString(serialized)
    for name in list(example.features.feature):
        if is_left_out(name):
            del example.features.feature[name]
    return example.SerializeToString()


def _with_unknown_user(serialized: bytes) -> bytes:
    example = example_pb2.Example.FromString(serialized)
    example.features.feature[USER_ID].bytes_list.value[:] = [UNKNOWN]
    return example.SerializeToString()


def _with_unknown_history(serialized: bytes) -> bytes:
    example = example_pb2.Example.FromString(serialized)
    length = 3
    example.features.feature[HISTORY_ITEM_IDS].bytes_list.value[:] = [UNKNOWN] * length
    example.features.feature[HISTORY_TIMESTAMPS].int64_list.value[:] = range(1, length + 1)
    for name in list(example.features.feature):
        # The other parts of the history would no longer have its length.
        if name.startswith("history_") and name not in (HISTORY_ITEM_IDS, HISTORY_TIMESTAMPS):
            del example.features.feature[name]
    return example.SerializeToString()


def _text(item_id: bytes) -> str:
    return repr(item_id.decode("utf-8", "replace"))
