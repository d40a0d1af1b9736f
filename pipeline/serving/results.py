"""What a client answers with, in plain Python values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
      item_id: which item.
      score: the model's score; higher is better. Comparable within one answer only.
    """

    item_id: str
    score: float


class Recommendations(list[Recommendation]):
    """A list of recommendations, best first, that knows which model gave it.

    Attributes:
      model_version: the version that answered; None if the server does not say, as over REST.
    """

    def __init__(self, entries: Iterable[Recommendation] = (), model_version: int | None = None):
        """Holds the entries in the order given.

        Args:
          entries: the recommendations.
          model_version: the version that answered, if known.
        """
        super().__init__(entries)
        self.model_version = model_version


class Outputs(dict[str, np.ndarray]):
    """The outputs of a signature by name; strings are object arrays of `bytes`.

    Attributes:
      model_version: the version that answered; None if the server does not say, as over REST.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], model_version: int | None = None):
        """Holds the arrays.

        Args:
          arrays: the outputs by name.
          model_version: the version that answered, if known.
        """
        super().__init__(arrays)
        self.model_version = model_version


@dataclasses.dataclass(frozen=True)
class VersionState:
    """The state of one version of a model on the server.

    Attributes:
      version: its number.
      state: START, LOADING, AVAILABLE, UNLOADING or END.
      error: why it could not be loaded; empty if it could.
    """

    version: int
    state: str
    error: str


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Type and shape of a signature's input or output.

    Attributes:
      dtype: TensorFlow's name of the type, e.g. `string` or `float`.
      shape: sizes, None where any size is accepted.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one signature, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
