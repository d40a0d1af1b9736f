"""The Predict API: named tensors in, named tensors out.

Checks, their order and their texts are those of TensorFlow Serving's `predict_util.cc` and of TensorFlow's
`saved_model/util.cc`. Types and shapes of the inputs are left to the runtime, which knows better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
import numpy as np

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import predict_pb2, tensor_pb2
from pipeline.serving.server.calls import DEFAULT_SIGNATURE, Model, Signature, fill_model_spec
from pipeline.serving.tensors import read_tensor, write_tensor

SERVED_METHODS = tuple(f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress"))


class PredictCall:
    """A Predict request, ready to run; see `calls.Call`."""

    def __init__(self, model: Model, request: predict_pb2.PredictRequest):
        """Reads and checks the request.

        Args:
          model: the model that is asked.
          request: what is asked.

        Raises:
          StatusError: with TensorFlow Serving's code and text.
        """
        self._model_spec = request.model_spec
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = model.signatures_by_name.get(name)
        if signature is None:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        if model.check_method_names:
            _check_method(signature)
        self.feeds = _read_inputs(signature, request)
        self._outputs = signature.outputs
        self.fetches = signature.fetches
        if request.output_filter:
            self._outputs = _requested_outputs(signature, request.output_filter)
            self.fetches = sorted(set(self._outputs.values()))

    def respond(self, outputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictResponse:
        """Returns the answer; see `calls.Call`."""
        response = predict_pb2.PredictResponse()
        fill_model_spec(response.model_spec, self._model_spec)
        for alias, tensor in self._outputs.items():
            write_tensor(outputs[tensor], response.outputs[alias])
        return response


def _check_method(signature: Signature) -> None:
    method = signature.definition.method_name
    if method not in SERVED_METHODS:
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{', '.join(SERVED_METHODS)}}}. Was: {method}",
        )


def _read_inputs(signature: Signature, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
    """Returns the values of the signature's inputs by the names of their tensors."""
    sent = request.inputs
    num_sent, num_inputs = len(sent), len(signature.inputs)
    if num_sent > num_inputs or (num_sent < num_inputs and not signature.has_defaults):
        raise _wrong_inputs(set(sent), set(signature.inputs))
    values, used = {}, []
    defaults = signature.definition.defaults if signature.has_defaults else {}
    for alias, tensor in signature.inputs.items():
        if alias in sent:
            proto = sent[alias]
            used.append(alias)
        elif alias in defaults:
            proto = defaults[alias]
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {tensor}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {_set(sent)}, or default input "
                f"alias set: {','.join(sorted(defaults))}"
            )
        values[tensor] = _read_input(alias, proto)
    if len(used) < num_sent:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {','.join(used)}, "
            f"request input: {','.join(sorted(sent))}"
        )
    return values


def _wrong_inputs(sent: set[str], expected: set[str]) -> StatusError:
    return invalid_argument(
        f"input size does not match signature: {len(sent)}!={len(expected)} len({_set(sent)}) != "
        f"len({_set(expected)}). Sent extra: {_set(sent - expected)}. "
        f"Missing but required: {_set(expected - sent)}."
    )


def _read_input(alias: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    try:
        return read_tensor(proto)
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _requested_outputs(signature: Signature, output_filter: Iterable[str]) -> Mapping[str, str]:
    """Returns the aliases of the outputs to answer with, and their tensors."""
    requested: dict[str, str] = {}
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_set(signature.outputs)}."
            )
        if alias in requested:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        requested[alias] = signature.outputs[alias]
    return requested


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
