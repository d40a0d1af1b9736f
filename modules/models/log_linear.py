"""Maximum likelihood of a log-linear model of choice: few weights, fitted by Newton's method."""

from __future__ import annotations

import numpy as np

_STEPS = 25
_TOLERANCE = 1e-6


def fit_log_linear(
    features: np.ndarray, targets: np.ndarray, start: np.ndarray, ridge: float, offset: np.ndarray | None = None
) -> np.ndarray:
    """Maximises the mean over events of log softmax_c(offset + w . features[c])_target - ridge |w - start|^2 / 2.

    The conditional logit model of McFadden, "Conditional logit analysis of qualitative choice behavior" (1974). Its
    likelihood is concave; steps are halved until they gain.

    Args:
      features: float `[events, candidates, F]`; NaN where there is no candidate.
      targets: index of the candidate that was chosen, int `[events]`.
      start: weights to start from, and to be drawn to, float `[F]`.
      ridge: strength of that.
      offset: what each candidate's logit has besides, float `[events, candidates]`; nothing by default.

    Returns:
      float64 `[F]`.
    """
    absent = np.isnan(features[..., 0])
    features = np.where(absent[..., np.newaxis], np.float32(0), features.astype(np.float32))
    besides = np.float32(0) if offset is None else offset.astype(np.float32)
    events = np.arange(len(targets))

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = besides + features @ weights.astype(np.float32)
        logits = np.where(absent, -np.inf, logits).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits)
        totals = probabilities.sum(axis=1, keepdims=True)
        gain = float((logits[events, targets] - np.log(totals[:, 0])).mean())
        return gain - ridge / 2 * float(np.square(weights - start).sum()), probabilities / totals

    weights = start.astype(np.float64)
    value, probabilities = objective(weights)
    for _ in range(_STEPS):
        means = np.einsum("nc,ncf->nf", probabilities, features)
        gradient = (features[events, targets] - means).mean(axis=0) - ridge * (weights - start)
        curvature = ridge * np.eye(len(weights)) - means.T @ means / len(means)
        for event_probabilities, event_features in zip(probabilities, features, strict=True):
            curvature += (event_features * event_probabilities[:, np.newaxis]).T @ event_features / len(means)
        step = np.linalg.solve(curvature, gradient)
        while True:
            candidate_value, candidate_probabilities = objective(weights + step)
            if candidate_value >= value or np.abs(step).max() < _TOLERANCE:
                break
            step /= 2
        gained = candidate_value - value
        weights, value, probabilities = weights + step, candidate_value, candidate_probabilities
        if gained < _TOLERANCE:
            break
    return weights
