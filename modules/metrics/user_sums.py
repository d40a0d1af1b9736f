"""What each group of users contributes to a task's metrics: the raw material of paired comparisons of models.

Users are dealt into `USER_GROUPS` groups by a hash of their id, which is the same in every evaluation: so the groups of
two evaluations on the same test split belong together, and resampling groups resamples whole users.
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modules.metrics.bootstrap import USER_GROUPS
from modules.metrics.model_outputs import read_features

USER_SUMS_SUFFIX = "_user_sums"
"""Ends the name of the bytes-valued metric that holds a task's `UserSums`. Bytes, because TFMA would subtract arrays of
two models from each other."""


@dataclasses.dataclass(frozen=True)
class UserSums:
    """Sums by group of users. The estimate of metric m is `sums[:, m].sum() / counts[:, m].sum()`.

    Attributes:
      task: of `modules.tasks.TASKS`.
      metric_names: the M metrics; only those that are means of something.
      group_ids: int64 `[G]`, ascending; groups without any event are left out.
      counts: float64 `[G, M]`; what is averaged over: events, queries or users.
      sums: float64 `[G, M]`; of the values averaged.
    """

    task: str
    metric_names: tuple[str, ...]
    group_ids: NDArray[np.int64]
    counts: NDArray[np.float64]
    sums: NDArray[np.float64]

    def estimates(self) -> NDArray[np.float64]:
        """Returns the metrics over all groups, float64 `[M]`; NaN where nothing was counted."""
        return ratios(self.sums.sum(axis=0), self.counts.sum(axis=0))

    def to_bytes(self) -> bytes:
        """Returns the sums in NumPy's `.npz` format."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            metric_names=np.array(self.metric_names, str),
            group_ids=self.group_ids,
            counts=self.counts,
            sums=self.sums,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, task: str, content: bytes) -> UserSums:
        """Reads what `to_bytes` returned."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = tuple(arrays["metric_names"].tolist())
            return cls(task, names, arrays["group_ids"], arrays["counts"], arrays["sums"])


def user_group(extracts: dict[str, Any], feature: str) -> int:
    """Returns the group of an example's user, from 0 to `USER_GROUPS` - 1; see `read_user` for the arguments."""
    return zlib.crc32(read_user(extracts, feature)) % USER_GROUPS


def read_user(extracts: dict[str, Any], feature: str) -> bytes:
    """Returns the id of an example's user.

    Args:
      extracts: TFMA's extracts of the example.
      feature: raw feature that holds the user's id.

    Raises:
      ValueError: if the example does not hold one value of it.
    """
    values = read_features(extracts, feature)
    if values.size != 1:
        raise ValueError(
            f"feature {feature!r} must hold one value in every example, to group them for confidence intervals; "
            f"received {values.tolist()}, features {sorted(extracts['features'])}"
        )
    return as_bytes(values[0])


def as_bytes(value: object) -> bytes:
    """Returns a raw feature's value as text in UTF-8."""
    return value if isinstance(value, bytes) else str(value).encode()


def sum_by_group(groups: NDArray[np.int64], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Returns the sums of the rows of `values`, `[n, M]`, by group, `[size, M]`."""
    result = np.zeros((size, *values.shape[1:]))
    np.add.at(result, groups, values)
    return result


def ratios(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns `sums / counts`, NaN where the count is 0."""
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
