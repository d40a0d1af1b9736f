"""Replays logged requests against canary and stable on a live server, and compares what they answer and how fast."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import grpc
import numpy as np

from pipeline.serving.answers import AnswerError, check_lists, seen_items
from pipeline.serving.errors import ServingError
from pipeline.serving.messages import predict_pb2
from pipeline.serving.prediction_logs import EXAMPLES, SIGNATURE
from pipeline.serving.release.agreement import jaccard, rank_biased_overlap
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.live_server import LiveServer
from pipeline.serving.release.record import CANARY, STABLE
from pipeline.serving.release.shadow_report import ShadowReport, SideReport
from pipeline.serving.tensors import read_tensor

_K = 10
_WARM_UP_REQUESTS = 5
_LEAST_TIMED = 50
"""Requests that both must have answered: the 95 % quantile of fewer is that of one or two of them."""
_REPLICATES = 500
_SEED = 17
_FAULTS_OF_REQUESTS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
)
"""Codes that speak against the request, if both answer with the same; all others speak against who answers so."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a canary must keep to.

    Attributes:
      max_slowdown: its 95 % latency as a multiple of stable's; one that may as well be no slower is let pass, and so is
        any if fewer than 50 requests were answered by both.
      min_overlap: mean overlap of its lists with stable's; None: any.
    """

    max_slowdown: float = 1.5
    min_overlap: float | None = None


def compare(server: LiveServer, requests: Sequence[predict_pb2.PredictRequest], limits: Limits) -> ShadowReport:
    """Sends each request to both labels, one after the other, in the order ABBA, and compares.

    Args:
      server: the server; it must answer for both labels.
      requests: what to send, whatever version they were for; at least one.
      limits: what the canary must keep to.

    Raises:
      ReleaseError: if a label is unknown to the server, or it does not answer, or no longer.
    """
    sides = [_Side(server, label) for label in (CANARY, STABLE)]
    for request in requests[:_WARM_UP_REQUESTS]:
        for side in sides:
            side.answer(request)
    for side in sides:
        side.reset()
    overlaps, biased, changed = [], [], []
    left_out = 0
    for number, request in enumerate(requests):
        order = sides if number % 2 == 0 else sides[::-1]
        answers = {side.label: side.answer(request) for side in order}
        canary, stable = answers[CANARY], answers[STABLE]
        if canary.code in _FAULTS_OF_REQUESTS and canary.code is stable.code:
            left_out += 1
        else:
            for side in sides:
                if answers[side.label].failure:
                    side.blame(answers[side.label])
        if canary.failure or stable.failure:
            continue
        for side in sides:
            side.seconds.append(answers[side.label].seconds)
        for ours, theirs in zip(canary.lists, stable.lists, strict=True):
            overlaps.append(jaccard(ours, theirs, _K))
            biased.append(rank_biased_overlap(ours, theirs))
            changed.append(ours[:1] != theirs[:1])
    slowdown, interval = _slowdown(sides[0].seconds, sides[1].seconds)
    report = ShadowReport(
        requests=len(requests),
        left_out=left_out,
        lists=len(overlaps),
        k=_K,
        overlap=_mean(overlaps),
        rank_biased_overlap=_mean(biased),
        top_changed=_mean(changed),
        slowdown=slowdown,
        slowdown_interval=interval,
        canary=sides[0].report(),
        stable=sides[1].report(),
        refusals=[],
    )
    timed = len(sides[0].seconds)
    return report.model_copy(
        update={"notes": _notes(report, timed), "refusals": _refusals(report, limits, timed >= _LEAST_TIMED)}
    )


def _notes(report: ShadowReport, timed: int) -> list[str]:
    found = []
    if report.left_out:
        found.append(f"{report.left_out} of {report.requests} requests are left out: both refuse them as wrong")
    if timed < _LEAST_TIMED:
        found.append(f"latency is not judged: both answered {timed} requests; it takes {_LEAST_TIMED}")
    return found


def _refusals(report: ShadowReport, limits: Limits, judge_latency: bool) -> list[str]:
    canary, stable = report.canary, report.stable
    found = []
    if canary.errors:
        found.append(f"the canary fails on {canary.errors} of {report.requests} requests: {canary.first_failure}")
    if canary.malformed:
        found.append(
            f"the canary answers {canary.malformed} of {report.requests} requests with no proper list: "
            f"{canary.first_failure}"
        )
    if report.overlap is None:
        found.append("no request was answered by both, so nothing could be compared")
        return found
    assert report.slowdown is not None and report.slowdown_interval is not None
    lower, upper = report.slowdown_interval
    # One pause of the machine can make a tail: it must be certain that the canary is slower at all.
    if judge_latency and report.slowdown > limits.max_slowdown and lower > 1:
        found.append(
            f"the canary's 95 % latency is {canary.p95_ms:.2f} ms, {report.slowdown:.2f} (95 % interval {lower:.2f} to "
            f"{upper:.2f}) times stable's {stable.p95_ms:.2f} ms; at most {limits.max_slowdown:g} times is allowed"
        )
    if limits.min_overlap is not None and report.overlap < limits.min_overlap:
        found.append(
            f"the lists overlap by {report.overlap:.3f} at {report.k}; at least {limits.min_overlap:g} is asked for"
        )
    return found


@dataclasses.dataclass(frozen=True)
class _Answer:
    """An answer to one request.

    Attributes:
      lists: item ids by user, best first.
      seconds: latency.
      failure: why there are no lists; empty if there are.
      code: status of an error; None of an answer, though it be malformed.
    """

    lists: list[list[str]]
    seconds: float
    failure: str = ""
    code: grpc.StatusCode | None = None


class _Side:
    """One label's part: asks for it, and keeps count."""

    def __init__(self, server: LiveServer, label: str):
        self.label = label
        self._server = server
        try:
            self._version = server.resolve(label)
        except ServingError as error:
            raise ReleaseError(f"label {label!r} cannot be compared: {error}") from error
        self.reset()

    def reset(self) -> None:
        """Forgets what was counted."""
        self.seconds: list[float] = []
        self._errors = self._malformed = 0
        self._first_failure = ""

    def answer(self, logged: predict_pb2.PredictRequest) -> _Answer:
        """Sends a logged request to the label.

        Raises:
          ReleaseError: if the server has become unavailable.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._server.model_name
        request.model_spec.version_label = self.label
        request.model_spec.signature_name = SIGNATURE
        request.inputs[EXAMPLES].CopyFrom(logged.inputs[EXAMPLES])
        started = time.perf_counter()
        try:
            response = self._server.predict(request)
        except ServingError as error:
            if error.code is grpc.StatusCode.UNAVAILABLE:
                raise ReleaseError(
                    f"the server became unavailable during the comparison, when {self.label!r} was asked: {error}. "
                    "Nothing has changed"
                ) from error
            return _Answer([], 0.0, f"{error.code.name}: {error.message}", error.code)
        seconds = time.perf_counter() - started
        version = response.model_spec.version.value
        try:
            if version != self._version:
                raise AnswerError(f"version {version} answers; expected {self._version}")
            outputs = {name: read_tensor(tensor) for name, tensor in response.outputs.items()}
            hidden = [seen_items(example) for example in read_tensor(logged.inputs[EXAMPLES]).reshape(-1)]
            if missing := {"item_ids", "scores"} - outputs.keys():
                raise AnswerError(f"a logged request: the answer lacks {sorted(missing)}")
            check_lists(outputs, hidden, "a logged request", "is already seen")
        except (AnswerError, ValueError) as error:
            return _Answer([], seconds, str(error))
        lists = [[item.decode("utf-8", "replace") for item in row if item] for row in outputs["item_ids"].tolist()]
        return _Answer(lists, seconds)

    def blame(self, answer: _Answer) -> None:
        """Counts a failure that is this side's own."""
        self._errors += answer.code is not None
        self._malformed += answer.code is None
        self._first_failure = self._first_failure or answer.failure

    def report(self) -> SideReport:
        """Sums up."""
        quantiles = np.percentile(self.seconds, (50, 95, 99)) * 1000 if self.seconds else [None] * 3
        p50, p95, p99 = (None if value is None else round(float(value), 4) for value in quantiles)
        return SideReport(
            label=self.label,
            version=self._version,
            errors=self._errors,
            malformed=self._malformed,
            first_failure=self._first_failure,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )


def _slowdown(
    canary: Sequence[float], stable: Sequence[float]
) -> tuple[float, tuple[float, float]] | tuple[None, None]:
    """Returns the quotient of the 95 % quantiles of latencies of the same requests, with its 95 % interval."""
    if not canary:
        return None, None
    latencies = np.array([canary, stable])
    drawn = np.random.default_rng(_SEED).integers(0, len(canary), (_REPLICATES, len(canary)))
    ours, theirs = np.percentile(latencies[:, drawn], 95, axis=-1)
    lower, upper = np.percentile(ours / theirs, (2.5, 97.5))
    ours, theirs = np.percentile(latencies, 95, axis=-1)
    return round(float(ours / theirs), 4), (round(float(lower), 4), round(float(upper), 4))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
