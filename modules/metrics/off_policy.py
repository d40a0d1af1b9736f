"""The value of a model's lists by the log of another policy, as a TFMA metric: `policy_value_<estimator>`.

See `off_policy_estimators` for what is estimated and how. Only examples that are impressions count. Sums are kept by
group of users and position, so memory depends neither on the number of impressions nor on that of users, and intervals
are those of every other metric (`bootstrap`).

**Refusal.** A log can only tell of what it shows. Estimates are NaN, with the reason in `off_policy_refusal` (in
`off_policy_pbm_refusal` for `pbm`, whose weights are others), see `off_policy_refusal.explain_refusal`:

* if the effective sample size is below `least_effective_sample_size`: the value would hang on a few impressions;
* if the 99 % interval of the mean weight excludes 1, which it is if the log covers the policy: part of what the policy
  shows is never shown by the log, and its reward would count as 0. So it is in slices by the title that was *shown*,
  which say nothing of a policy: slice by user or context. The direct method is refused, too, which would only repeat
  what its reward model thinks of titles that it has not seen.

Intervals at 99 % refuse one in a hundred logs that do cover the policy.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.features import ITEM_ID, USER_ID
from modules.metrics.bootstrap import degrees_of_freedom, effective_number, poisson_weights, standard_errors
from modules.metrics.model_outputs import (
    TOP_K_ITEM_IDS,
    has_output,
    is_impression,
    metric_key,
    read_features,
    read_output,
)
from modules.metrics.off_policy_estimators import (
    ESTIMATORS,
    TERMS,
    Floats,
    Impression,
    PolicyEstimates,
    PolicyList,
    estimate_policy,
    impression_terms,
)
from modules.metrics.off_policy_refusal import (
    DIAGNOSTIC_NAMES,
    POLICY_VALUE_NAMES,
    Refusal,
)
from modules.metrics.reporting import find_baseline, report_metrics
from modules.metrics.user_sums import as_bytes, user_group
from modules.reward_model import EXAMINATION, LOGGED_REWARD_ESTIMATE, TOP_K_REWARD_ESTIMATES

_CONFIDENCE = 0.99


class OffPolicyMetrics(metric_types.Metric):
    """Values of the models' lists by several estimators, with paired differences to a baseline, and diagnostics."""

    def __init__(
        self,
        propensity: str,
        feedback: str,
        position: str | None = None,
        separated: bool = False,
        positions: int = 10,
        clip: float = 10.0,
        least_effective_sample_size: float = 100.0,
        with_intervals: bool = True,
        name: str = "off_policy",
    ) -> None:
        """Initialises the metric.

        Args:
          propensity: raw feature that holds the logged probability or probabilities.
          feedback: raw feature that holds the reward; an impression without it earned 0.
          position: raw feature that holds the position, from 1; None if lists are of one title.
          separated: whether propensities are those of the title at positions 1, 2, ...
          positions: length of the lists judged.
          clip: largest weight of `clipped_ips`.
          least_effective_sample_size: see the module.
          with_intervals: whether each value and each difference carries a 95 % interval.
          name: name of the family. The metrics are `POLICY_VALUE_NAMES` and `DIAGNOSTIC_NAMES`.
        """
        super().__init__(
            _off_policy_computations,
            propensity=propensity,
            feedback=feedback,
            position=position,
            separated=separated,
            positions=positions,
            clip=clip,
            least_effective_sample_size=least_effective_sample_size,
            with_intervals=with_intervals,
            name=name,
        )


metric_types.register_metric(OffPolicyMetrics)


def _off_policy_computations(
    propensity: str,
    feedback: str,
    position: str | None = None,
    separated: bool = False,
    positions: int = 10,
    clip: float = 10.0,
    least_effective_sample_size: float = 100.0,
    with_intervals: bool = True,
    name: str = "off_policy",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
) -> metric_types.MetricComputations:
    """Returns one computation for all metrics of all models: the interval of a difference needs both at once."""
    models = tuple(model_names or ("",))
    baseline = find_baseline(eval_config, models)
    positions = positions if position else 1
    reader = ImpressionReader(propensity, feedback, position, separated, positions)
    return [
        metric_types.MetricComputation(
            keys=[metric_key(metric, model) for model in models for metric in (*POLICY_VALUE_NAMES, *DIAGNOSTIC_NAMES)],
            preprocessors=[OffPolicyPreprocessor(models, reader, clip, name)],
            combiner=OffPolicyCombiner(models, baseline, positions, least_effective_sample_size, with_intervals),
        )
    ]


class ImpressionReader:
    """Reads impressions from TFMA's extracts; see `OffPolicyMetrics` for the arguments."""

    def __init__(self, propensity: str, feedback: str, position: str | None, separated: bool, positions: int) -> None:
        self._propensity, self._feedback, self._position = propensity, feedback, position
        self._separated, self.positions = separated, positions

    def read(self, extracts: dict[str, Any]) -> Impression | None:
        """Returns an example's impression; None if it is none, or stands behind the positions that are judged.

        Raises:
          ValueError: if the title, the position or the propensity is missing.
        """
        if not is_impression(extracts):
            return None
        position = int(self._value(extracts, self._position)) if self._position else 1
        if position > self.positions:
            return None
        propensities = np.asarray(read_features(extracts, self._propensity), np.float64)
        if propensities.size < (position if self._separated else 1) or (propensities.size > 1 and not self._separated):
            raise ValueError(
                f"feature {self._propensity!r} of an impression at position {position} must hold its propensity; "
                f"received {propensities.tolist()}"
            )
        rewards = read_features(extracts, self._feedback)
        reward = float(rewards[0]) if rewards.size else 0.0
        item_id = as_bytes(self._value(extracts, ITEM_ID))
        return Impression(item_id, position, reward, propensities, self._separated)

    def policy(self, extracts: dict[str, Any], model: str) -> PolicyList:
        """Returns what a model shows; of one that was exported without a reward model its estimates are NaN."""

        def numbers(output: str) -> Floats:
            if not has_output(extracts, model, output):
                return np.full(self.positions, np.nan)
            return _padded(np.asarray(read_output(extracts, model, output), np.float64), self.positions)

        item_ids = read_output(extracts, model, TOP_K_ITEM_IDS)[: self.positions]
        listed = np.array([as_bytes(item_id) for item_id in item_ids], object)
        logged = float(numbers(LOGGED_REWARD_ESTIMATE)[0])
        return PolicyList(listed, numbers(EXAMINATION), numbers(TOP_K_REWARD_ESTIMATES), logged)

    @staticmethod
    def _value(extracts: dict[str, Any], name: str) -> Any:
        values = read_features(extracts, name)
        if values.size != 1:
            raise ValueError(f"feature {name!r} must hold one value in an impression; received {values.tolist()}")
        return values[0]


def _padded(values: Floats, length: int) -> Floats:
    """Returns the first values, with zeros for what a catalogue of fewer titles cannot fill."""
    return np.pad(values[:length], (0, max(0, length - len(values))))


_Element = tuple[int, int, Floats]
"""Group of users, position from 0, terms `[models, len(TERMS)]`."""


class OffPolicyPreprocessor(metric_types.Preprocessor):
    """Turns one impression into its group, position and terms."""

    def __init__(self, models: Sequence[str], reader: ImpressionReader, clip: float, name: str) -> None:
        """Initialises the preprocessor; see `OffPolicyMetrics`."""
        super().__init__(name=name)
        self._models, self._reader, self._clip = tuple(models), reader, clip

    def process(self, extracts: dict[str, Any]) -> Iterator[_Element]:
        """Yields the impression's contribution; nothing for an interaction."""
        shown = self._reader.read(extracts)
        if shown is None:
            return
        terms = [
            impression_terms(shown, self._reader.policy(extracts, model), self._reader.positions, self._clip)
            for model in self._models
        ]
        yield user_group(extracts, USER_ID), shown.position - 1, np.stack(terms)


_Sums = tuple[dict[int, Floats], Floats]
"""Sums by group, `[models, K, len(TERMS)]` each, and the largest weight of each model, `[models]`."""


class OffPolicyCombiner(beam.CombineFn):
    """Sums the impressions' terms by group of users and position; everything reported follows from these sums."""

    def __init__(
        self,
        models: Sequence[str],
        baseline: str | None,
        positions: int,
        least_effective_sample_size: float,
        with_intervals: bool,
    ) -> None:
        """Initialises the combiner; see `OffPolicyMetrics`."""
        self._models, self._baseline, self._positions = tuple(models), baseline, positions
        self._least, self._with_intervals = least_effective_sample_size, with_intervals

    def create_accumulator(self) -> _Sums:
        """Returns empty sums."""
        return {}, np.zeros(len(self._models))

    def add_input(self, accumulator: _Sums, element: _Element) -> _Sums:
        """Adds one impression."""
        sums, largest = accumulator
        group, position, terms = element
        if group not in sums:
            sums[group] = np.zeros((len(self._models), self._positions, len(TERMS)))
        sums[group][:, position] += terms
        return sums, np.maximum(largest, terms[:, TERMS.index("weight")])

    def merge_accumulators(self, accumulators: Iterable[_Sums]) -> _Sums:
        """Adds sums up."""
        total, largest = self.create_accumulator()
        for sums, of_part in accumulators:
            for group, values in sums.items():
                total[group] = total[group] + values if group in total else values
            largest = np.maximum(largest, of_part)
        return total, largest

    def extract_output(self, accumulator: _Sums) -> dict[metric_types.MetricKey, Any]:
        """Returns values, differences and diagnostics; nothing without any impression."""
        by_group, largest = accumulator
        if not by_group:
            return {}
        groups = np.array(sorted(by_group))
        sums = np.stack([by_group[group] for group in groups])
        counts = sums[:, 0, :, TERMS.index("count")]
        # Positions behind the last that was ever shown count for nothing.
        length = int(np.flatnonzero(counts.sum(axis=0))[-1]) + 1
        sums, sizes = sums[:, :, :length], counts.sum(axis=1)
        estimates = estimate_policy(sums.sum(axis=0))
        replicates = estimate_policy(np.tensordot(poisson_weights(groups), sums, axes=1))
        refusals = self._refusals(estimates, replicates, sizes)
        values, resampled = estimates.values.copy(), replicates.values.copy()
        for column, name in enumerate(ESTIMATORS):
            refused = refusals[:, 1 if name == "pbm" else 0] != Refusal.NONE
            values[refused, column] = resampled[:, refused, column] = np.nan
        report = functools.partial(report_metrics, POLICY_VALUE_NAMES, self._models, self._baseline, values)
        result = report(resampled, sizes) if self._with_intervals else report(None, None)
        diagnostics = np.stack(
            [
                estimates.effective_sample_size,
                estimates.mean_weight,
                largest,
                estimates.pbm_effective_sample_size,
                estimates.pbm_mean_weight,
                np.full(len(self._models), sizes.sum()),
                *refusals.T.astype(np.float64),
            ],
            axis=-1,
        )
        result.update(report_metrics(DIAGNOSTIC_NAMES, self._models, None, diagnostics, None, None))
        return result

    def _refusals(
        self, estimates: PolicyEstimates, replicates: PolicyEstimates, sizes: Floats
    ) -> NDArray[np.integer[Any]]:
        """Returns the `Refusal` of each model for all estimators but `pbm`, and for that: `[models, 2]`."""
        pairs = (
            (estimates.effective_sample_size, estimates.mean_weight, replicates.mean_weight),
            (estimates.pbm_effective_sample_size, estimates.pbm_mean_weight, replicates.pbm_mean_weight),
        )
        groups, freedom = effective_number(sizes), degrees_of_freedom(sizes)
        result = np.zeros((len(self._models), len(pairs)), np.int64)
        for column, (effective, means, resampled) in enumerate(pairs):
            errors = standard_errors(resampled, groups) if freedom else np.full(len(means), np.nan)
            margin = stats.t.ppf((1 + _CONFIDENCE) / 2, max(freedom, 1)) * errors
            result[np.abs(means - 1) > margin, column] = Refusal.NO_SUPPORT
            # Without users enough for an interval, nobody knows whether the log covers the policy.
            result[(effective < self._least) | np.isnan(margin), column] = Refusal.TOO_FEW
            result[np.isnan(means), column] = Refusal.NOT_LOGGED
        return result
