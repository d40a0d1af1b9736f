"""What every inference API has in common: a request becomes named tensors, and named tensors an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from pipeline.serving.messages import meta_graph_pb2, model_pb2

DEFAULT_SIGNATURE = "serving_default"

Response = TypeVar("Response", covariant=True)


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature of a SavedModel, in a form that is quick to use.

    Attributes:
      name: of the signature.
      definition: the message in the SavedModel.
      inputs: alias of each input to the name of its tensor, sorted by alias.
      outputs: the same for the outputs.
      fetches: names of the outputs' tensors, sorted, each once.
      has_defaults: whether inputs may be left out.
    """

    name: str
    definition: meta_graph_pb2.SignatureDef
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    fetches: Sequence[str]
    has_defaults: bool

    @classmethod
    def of(cls, name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
        """Returns a definition as a signature."""
        outputs = {alias: definition.outputs[alias].name for alias in sorted(definition.outputs)}
        return cls(
            name,
            definition,
            {alias: definition.inputs[alias].name for alias in sorted(definition.inputs)},
            outputs,
            tuple(sorted(set(outputs.values()))),
            bool(definition.defaults),
        )


class Model(Protocol):
    """What an inference API needs to know of a servable."""

    @property
    def signatures_by_name(self) -> Mapping[str, Signature]:
        """The signatures."""

    @property
    def check_method_names(self) -> bool:
        """Whether a signature only answers to the API that its `method_name` says."""


class Call(Protocol[Response]):
    """A request that is ready to run."""

    @property
    def feeds(self) -> Mapping[str, np.ndarray]:
        """Tensor name to the value that it is given."""

    @property
    def fetches(self) -> Sequence[str]:
        """Names of the tensors to compute, sorted, each once."""

    def respond(self, outputs: Mapping[str, np.ndarray]) -> Response:
        """Returns the answer.

        Its `model_spec` has the name that the request gave and the signature, no version.

        Args:
          outputs: values of `fetches` by name.

        Raises:
          StatusError: if the values are not what the API promises.
        """


def fill_model_spec(spec: model_pb2.ModelSpec, requested: model_pb2.ModelSpec) -> None:
    """Writes the name of the model and the resolved name of the signature."""
    spec.name = requested.name
    spec.signature_name = requested.signature_name or DEFAULT_SIGNATURE
