"""The gate: which rules a model satisfies, with what certainty, and so whether it may be pushed.

A rule about a value or a change holds with certainty if the whole 95 % interval satisfies it: a gain that may be noise
is no gain. A protected slice is judged the other way round: the model is refused if the slice is significantly worse,
that is, if the whole interval of the change lies beyond what is tolerated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from modules.metrics.directions import lower_is_better
from pipeline.config import GateConfig, ProtectedSlicesConfig, RuleConfig
from pipeline.evaluation_results import EvaluationResult, MetricValue
from pipeline.gate_line import GateLine
from pipeline.slice_names import OVERALL, slice_name, split_slice

NO_BASELINE = "there is no blessed model to compare with"
POLICY_PREFIX = "policy_"
_NO_HARM = "no significant harm"
NO_RULE = "the gate has no rule that could be judged; a model is blessed only against one"


def judge(gate: GateConfig, result: EvaluationResult) -> list[GateLine]:
    """Returns the gate's table: a line for each rule, and one for each protected slice.

    Args:
      gate: the rules.
      result: the candidate's evaluation, compared with the last blessed model if there is one.
    """
    table = [line for rule in gate.rules for line in _judge_rule(rule, result)]
    return table + [line for protected in gate.protected for line in _judge_protected(protected, result)]


def failures(table: Sequence[GateLine]) -> list[str]:
    """Returns why the gate does not let the model through, in sentences; none if it does."""
    if not any(line.passed is not None for line in table):
        return [NO_RULE]
    return [line.reason for line in table if line.passed is False]


def _judge_rule(rule: RuleConfig, result: EvaluationResult) -> Iterator[GateLine]:
    """Judges each of the rule's bounds."""
    bounds: tuple[tuple[float | None, bool, bool], ...] = (
        (rule.minimum, False, True),
        (rule.maximum, False, False),
        (rule.minimum_change, True, True),
        (rule.maximum_change, True, False),
    )
    name = slice_name(rule.slice)
    for needed, of_change, at_least in bounds:
        if needed is None:
            continue
        if of_change:
            wanted = f"a change of {'more' if at_least else 'less'} than {needed:+.4g}"
        else:
            wanted = f"{'at least' if at_least else 'at most'} {needed:.4g}"
        wanted += " with 95 % confidence" if rule.certain else ""
        bound = ("lower" if at_least else "upper") if rule.certain else "value"
        subject = _Subject.of(result, name, rule.metric, of_change)
        line = subject.unjudged(wanted, bound, needed)
        compared = getattr(subject, bound)
        if (why := _too_few(rule.least_users, name, rule.metric, result)) is not None:
            yield line.model_copy(update={"reason": why})
        elif name not in result.slices:
            reason = f"no test example falls into the slice that the gate names: {name}"
            yield line.model_copy(update={"passed": False, "reason": reason})
        elif of_change and not result.has_baseline and rule.metric in result.slices[name]:
            # A first model must be able to pass; whether it is good enough is for the other bounds to say.
            yield line.model_copy(update={"passed": True, "reason": NO_BASELINE})
        elif compared is not None and _holds(compared, needed, at_least, strictly=of_change):
            yield line.model_copy(update={"passed": True})
        else:
            reason = f"{subject.described(rule.certain)}; the gate asks for {wanted}"
            yield line.model_copy(update={"passed": False, "reason": reason})


def _judge_protected(protected: ProtectedSlicesConfig, result: EvaluationResult) -> Iterator[GateLine]:
    """Judges every slice of the features named that the evaluation has."""
    for features in protected.slices:
        names = [name for name in result.slices if set(split_slice(name)) == set(features)]
        if not names and result.has_baseline:
            reason = f"no test example falls into a slice by {', '.join(features)} that both models know"
            missing = _harm_line(protected, _Subject(protected.metric, ", ".join(features), True, None, None, None))
            yield missing.model_copy(update={"passed": False, "reason": reason})
        for name in names:
            yield _judge_harm(protected, name, result)


def _judge_harm(protected: ProtectedSlicesConfig, name: str, result: EvaluationResult) -> GateLine:
    subject = _Subject.of(result, name, protected.metric, of_change=True)
    line = _harm_line(protected, subject)
    if (why := _too_few(protected.least_users, name, protected.metric, result)) is not None:
        return line.model_copy(update={"reason": why})
    if not result.has_baseline:
        return line.model_copy(update={"reason": NO_BASELINE})
    metric = result.slices[name].get(protected.metric, MetricValue())
    if math.isnan(metric.value) and metric.baseline is not None and not math.isnan(metric.baseline):
        own = _Subject.of(result, name, protected.metric, of_change=False)
        reason = f"{own.described(with_interval=False)}, which the last blessed model has"
        return line.model_copy(update={"passed": False, "reason": reason})
    at_best = getattr(subject, line.bound)
    if at_best is None:
        return line.model_copy(update={"reason": f"not judged: {subject.described(with_interval=True)}"})
    if at_best >= line.needed if line.bound == "upper" else at_best <= line.needed:
        return line.model_copy(update={"passed": True})
    reason = f"{subject.described(with_interval=True)}; the gate asks for {_NO_HARM} on a protected slice"
    return line.model_copy(update={"passed": False, "reason": reason})


def _harm_line(protected: ProtectedSlicesConfig, subject: _Subject) -> GateLine:
    """Returns the line of a protected slice, not judged yet: even at its best the change must not be a loss."""
    less_is_better = lower_is_better(protected.metric)
    needed = protected.tolerance if less_is_better else 0.0 - protected.tolerance
    wanted = _NO_HARM + (f" beyond {needed:+.4g}" if protected.tolerance else "")
    return subject.unjudged(wanted, "lower" if less_is_better else "upper", needed)


def _holds(compared: float, needed: float, at_least: bool, strictly: bool) -> bool:
    """Compares with a bound. A change is compared strictly: that of a model with itself is 0, and no improvement."""
    if compared == needed:
        return not strictly
    return compared > needed if at_least else compared < needed


def _too_few(least_users: int, name: str, metric: str, result: EvaluationResult) -> str | None:
    """Returns why a rule need not be judged on a slice; None if the slice has users enough."""
    counts = result.impression_user_counts if metric.startswith(POLICY_PREFIX) else result.user_counts
    users = counts.get(name, 0)
    return f"not judged: {users:,} users on {name}, fewer than {least_users:,}" if users < least_users else None


@dataclasses.dataclass(frozen=True)
class _Subject:
    """What a rule is about: a metric on a slice, or its change."""

    metric: str
    slice: str
    of_change: bool
    value: float | None
    lower: float | None
    upper: float | None

    @classmethod
    def of(cls, result: EvaluationResult, name: str, metric: str, of_change: bool) -> _Subject:
        metrics: Mapping[str, MetricValue] = result.slices.get(name, {})
        found = metrics.get(metric)
        if found is None:
            return cls(metric, name, of_change, None, None, None)
        numbers = (
            (found.change, found.change_lower, found.change_upper)
            if of_change
            else (found.value, found.lower, found.upper)
        )
        return cls(metric, name, of_change, *(None if n is None or math.isnan(n) else n for n in numbers))

    def unjudged(self, wanted: str, bound: str, needed: float) -> GateLine:
        """Returns the line of a rule about this, not judged yet."""
        rule = f"{self.metric}: {wanted}"
        numbers = {"value": self.value, "lower": self.lower, "upper": self.upper}
        return GateLine(rule=rule, slice=self.slice, metric=self.metric, **numbers, bound=bound, needed=needed)

    def described(self, with_interval: bool) -> str:
        where = self.slice if self.slice == OVERALL else f"on {self.slice}"
        sign = "+" if self.of_change else ""
        if self.value is None:
            return f"{self.metric} {where} has no defined {'change' if self.of_change else 'value'}"
        interval = ""
        if with_interval:
            interval = " (no interval: too few users)"
            if self.lower is not None and self.upper is not None:
                interval = f" (95 %: {self.lower:{sign}.4g} to {self.upper:{sign}.4g})"
        if self.of_change:
            return f"{self.metric} {where} changed by {self.value:+.4g}{interval} against the last blessed model"
        return f"{self.metric} {where} is {self.value:.4g}{interval}"
