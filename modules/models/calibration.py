"""Logistic calibration: makes the logits of a fitted classifier mean what they say."""

from __future__ import annotations

import numpy as np

_STEPS = 50
_RIDGE = 1e-6


def fit_logistic_calibration(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Finds slope a and intercept b that maximise the likelihood of P(y = 1) = sigmoid(a z + b).

    Platt, "Probabilistic outputs for support vector machines" (1999), by Newton's method.

    Args:
      logits: z, float `[examples]`, of examples that the classifier was not fitted on.
      labels: y, 0 or 1, `[examples]`.

    Returns:
      a and b; (1, 0) where no positive slope fits, as with labels of one kind only: an order is never reversed.
    """
    if len(labels) == 0 or labels.min() == labels.max():
        return 1.0, 0.0
    features = np.stack([logits, np.ones_like(logits)], axis=1).astype(np.float64)
    weights = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(features @ weights, -30.0, 30.0)))
        gradient = features.T @ (labels - probabilities)
        curvature = (features * (probabilities * (1.0 - probabilities))[:, np.newaxis]).T @ features
        step = np.linalg.solve(curvature + _RIDGE * len(labels) * np.eye(2), gradient)
        weights = weights + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-9:
            break
    slope, intercept = weights
    return (1.0, 0.0) if slope <= 0 else (float(slope), float(intercept))
