"""The Classify, Regress and MultiInference APIs: `tf.Example`s in, classes and numbers out.

Checks, their order and their texts are those of TensorFlow Serving's `classifier.cc`, `regressor.cc`,
`multi_inference.cc` and `util.cc`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import grpc
import numpy as np

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import classification_pb2, inference_pb2, input_pb2, model_pb2, regression_pb2
from pipeline.serving.server.calls import DEFAULT_SIGNATURE, Model, Signature, fill_model_spec
from pipeline.serving.tensors import type_name

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

_INPUTS = "inputs"
_CLASSES = "classes"
_SCORES = "scores"
_OUTPUTS = "outputs"


class _ExamplesCall:
    """A request of one signature on `tf.Example`s, ready to run; see `calls.Call`."""

    method: ClassVar[str]
    """Name of the signature's method; see `_TASK_TENSORS`."""

    def __init__(
        self, model: Model, request: classification_pb2.ClassificationRequest | regression_pb2.RegressionRequest
    ):
        """Reads and checks the request.

        Args:
          model: the model that is asked.
          request: what is asked.

        Raises:
          StatusError: with TensorFlow Serving's code and text.
        """
        self._model_spec = request.model_spec
        self._signature = _signature(model, request.model_spec, "No signature was found with the name: ")
        tensor, self.fetches = _TASK_TENSORS[self.method](model, self._signature)
        examples = read_examples(request.input)
        self.num_examples = len(examples)
        self.feeds: Mapping[str, np.ndarray] = {tensor: examples}


class ClassifyCall(_ExamplesCall):
    """A Classify request, ready to run; see `calls.Call`."""

    method = CLASSIFY_METHOD

    def respond(self, outputs: Mapping[str, np.ndarray]) -> classification_pb2.ClassificationResponse:
        """Returns the answer; see `calls.Call`."""
        response = classification_pb2.ClassificationResponse()
        fill_model_spec(response.model_spec, self._model_spec)
        _fill_classifications(response.result, self._signature, self.num_examples, outputs)
        return response


class RegressCall(_ExamplesCall):
    """A Regress request, ready to run; see `calls.Call`."""

    method = REGRESS_METHOD

    def respond(self, outputs: Mapping[str, np.ndarray]) -> regression_pb2.RegressionResponse:
        """Returns the answer; see `calls.Call`."""
        response = regression_pb2.RegressionResponse()
        fill_model_spec(response.model_spec, self._model_spec)
        _fill_regressions(response.result, self._signature, self.num_examples, outputs)
        return response


class MultiInferenceCall:
    """A MultiInference request, ready to run, all tasks at once; see `calls.Call`."""

    def __init__(self, model: Model, request: inference_pb2.MultiInferenceRequest):
        """Reads and checks the request.

        Args:
          model: the model that is asked.
          request: what is asked.

        Raises:
          StatusError: with TensorFlow Serving's code and text.
        """
        self._tasks: list[tuple[inference_pb2.InferenceTask, Signature]] = []
        feeds: set[str] = set()
        fetches: set[str] = set()
        names: set[str] = set()
        for task in request.tasks:
            signature = self._check(model, task, request.tasks[0].model_spec.name, names)
            tensor, outputs = _TASK_TENSORS[task.method_name](model, signature)
            feeds.add(tensor)
            fetches.update(outputs)
            self._tasks.append((task, signature))
        examples = read_examples(request.input)
        self.num_examples = len(examples)
        self.feeds: Mapping[str, np.ndarray] = dict.fromkeys(sorted(feeds), examples)
        self.fetches = sorted(fetches)

    def respond(self, outputs: Mapping[str, np.ndarray]) -> inference_pb2.MultiInferenceResponse:
        """Returns the answers in the order of the tasks; see `calls.Call`."""
        response = inference_pb2.MultiInferenceResponse()
        for task, signature in self._tasks:
            result = response.results.add()
            if task.method_name == CLASSIFY_METHOD:
                result.classification_result.SetInParent()
                _fill_classifications(result.classification_result, signature, self.num_examples, outputs)
            else:
                result.regression_result.SetInParent()
                _fill_regressions(result.regression_result, signature, self.num_examples, outputs)
            fill_model_spec(result.model_spec, task.model_spec)
        return response

    @staticmethod
    def _check(model: Model, task: inference_pb2.InferenceTask, model_name: str, names: set[str]) -> Signature:
        """Returns the signature of a task; adds its name to those of the tasks before it."""
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != model_name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in names:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        names.add(name)
        signature = _signature(model, task.model_spec, "Requested signature not found in model graph: ")
        if task.method_name not in _TASK_TENSORS:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        return signature


def read_examples(message: input_pb2.Input) -> np.ndarray:
    """Returns the serialized examples of an input, of shape [n], with the context in front of each.

    Raises:
      StatusError: INVALID_ARGUMENT if there are none.
    """
    context = b""
    examples = message.example_list.examples
    if message.WhichOneof("kind") == "example_list_with_context":
        examples = message.example_list_with_context.examples
        context = message.example_list_with_context.context.SerializeToString()
    if not examples:
        raise invalid_argument("Input is empty.")
    # One message after the other is the serialized form of both merged.
    serialized = np.empty(len(examples), dtype=object)
    serialized[:] = [context + example.SerializeToString() for example in examples]
    return serialized


def _signature(model: Model, spec: model_pb2.ModelSpec, not_found: str) -> Signature:
    name = spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signatures_by_name.get(name)
    if signature is None:
        raise invalid_argument(f"{not_found}{name}")
    return signature


def _check_method(model: Model, signature: Signature, kind: str, method: str) -> None:
    if model.check_method_names and signature.definition.method_name != method:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.definition.method_name}"
        )


def _classification_tensors(model: Model, signature: Signature) -> tuple[str, list[str]]:
    """Returns the names of the input and of the outputs."""
    _check_method(model, signature, "classification", CLASSIFY_METHOD)
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature.definition}")
    outputs = {signature.outputs[alias] for alias in (_CLASSES, _SCORES) if alias in signature.outputs}
    if not outputs:
        raise invalid_argument(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature was: {signature.definition}"
        )
    return signature.inputs[_INPUTS], sorted(outputs)


def _regression_tensors(model: Model, signature: Signature) -> tuple[str, list[str]]:
    """Returns the names of the input and of the output."""
    _check_method(model, signature, "regression", REGRESS_METHOD)
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature.definition}")
    if _OUTPUTS not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature.definition}")
    return signature.inputs[_INPUTS], [signature.outputs[_OUTPUTS]]


_TASK_TENSORS: Mapping[str, Callable[[Model, Signature], tuple[str, list[str]]]] = {
    CLASSIFY_METHOD: _classification_tensors,
    REGRESS_METHOD: _regression_tensors,
}


def _fill_classifications(
    result: classification_pb2.ClassificationResult,
    signature: Signature,
    num_examples: int,
    outputs: Mapping[str, np.ndarray],
) -> None:
    classes, scores = (
        outputs[signature.outputs[alias]] if alias in signature.outputs else None for alias in (_CLASSES, _SCORES)
    )
    for name, tensor, expected in ((_CLASSES, classes, "DT_STRING"), (_SCORES, scores, "DT_FLOAT")):
        if tensor is not None:
            _check_matrix(name, tensor, expected, num_examples)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    labels = [] if classes is None else [[label.decode("utf-8", "replace") for label in row] for row in classes]
    numbers = [] if scores is None else scores.tolist()
    for row in range(num_examples):
        add = result.classifications.add().classes.add
        if classes is None:
            for score in numbers[row]:
                add(score=score)
        elif scores is None:
            for label in labels[row]:
                add(label=label)
        else:
            for label, score in zip(labels[row], numbers[row], strict=True):
                add(label=label, score=score)


def _check_matrix(name: str, tensor: np.ndarray, expected_type: str, num_examples: int) -> None:
    if tensor.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
    if type_name(tensor) != expected_type:
        raise invalid_argument(f"Expected {name} Tensor of {expected_type}. Got: {type_name(tensor)}")
    if tensor.shape[0] != num_examples:
        raise invalid_argument(f"Expected {name} output batch size of {num_examples}. Got: {tensor.shape[0]}")


def _fill_regressions(
    result: regression_pb2.RegressionResult,
    signature: Signature,
    num_examples: int,
    outputs: Mapping[str, np.ndarray],
) -> None:
    tensor = outputs[signature.outputs[_OUTPUTS]]
    if tensor.ndim != 1 and not (tensor.ndim == 2 and tensor.shape[1] == 1):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(tensor)}"
        )
    if tensor.shape[0] != num_examples:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {num_examples} vs. {tensor.shape[0]}"
        )
    if type_name(tensor) != "DT_FLOAT":
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {type_name(tensor)}")
    for value in tensor.reshape(-1).tolist():
        result.regressions.add(value=value)


def _shape(tensor: np.ndarray) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"
