"""Classify, Regress and MultiInference. Expectations are those of TensorFlow Serving's source and tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import classification_pb2, inference_pb2, input_pb2, regression_pb2
from pipeline.serving.server.examples import ClassifyCall, MultiInferenceCall, RegressCall, read_examples
from pipeline.serving.server.servable import Servable
from tests.serving.saved_models import export_half_plus_two, export_labeller

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def half_plus_two(tmp_path_factory: pytest.TempPathFactory) -> Servable:
    return Servable(str(export_half_plus_two(tmp_path_factory.mktemp("models") / "half_plus_two")))


@pytest.fixture(scope="module")
def labeller_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_labeller(tmp_path_factory.mktemp("models") / "labeller")


@pytest.fixture(scope="module")
def labeller(labeller_path: Path) -> Servable:
    return Servable(str(labeller_path))


def _example(**features: float) -> tf.train.Example:
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()
            }
        )
    )


def _list(*values: float) -> input_pb2.Input:
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=[_example(x=value) for value in values]))


def _classify(servable: Servable, signature: str, examples: input_pb2.Input) -> Any:
    request = classification_pb2.ClassificationRequest(input=examples)
    request.model_spec.name = "model"
    request.model_spec.signature_name = signature
    return servable.call_now(ClassifyCall(servable, request))


def _regress(servable: Servable, signature: str, examples: input_pb2.Input) -> Any:
    request = regression_pb2.RegressionRequest(input=examples)
    request.model_spec.name = "model"
    request.model_spec.signature_name = signature
    return servable.call_now(RegressCall(servable, request))


def _infer(servable: Servable, tasks: Sequence[tuple[str, str, str]], examples: input_pb2.Input) -> Any:
    request = inference_pb2.MultiInferenceRequest(input=examples)
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = name
        task.model_spec.signature_name = signature
    return servable.call_now(MultiInferenceCall(servable, request))


def test_classify_gives_a_label_and_a_score_for_each_class(labeller: Servable):
    response = _classify(labeller, "", _list(2.0, -1.0))
    expected = text_format.Parse(
        """
        model_spec { name: "model" signature_name: "serving_default" }
        result {
          classifications { classes { label: "low" score: -2 } classes { label: "high" score: 2 } }
          classifications { classes { label: "low" score: 1 } classes { label: "high" score: -1 } }
        }
        """,
        classification_pb2.ClassificationResponse(),
    )
    assert response == expected


def test_classify_does_with_labels_or_scores_only(labeller: Servable):
    (labels,) = _classify(labeller, "classes_only", _list(2.0)).result.classifications
    assert [(entry.label, entry.score) for entry in labels.classes] == [("low", 0), ("high", 0)]
    (scores,) = _classify(labeller, "scores_only", _list(2.0)).result.classifications
    assert [(entry.label, entry.score) for entry in scores.classes] == [("", -2), ("", 2)]


@pytest.mark.parametrize("signature", ["regress", "regress_vector"])
def test_regress_gives_a_value_for_each_example(labeller: Servable, signature: str):
    response = _regress(labeller, signature, _list(2.0, -1.0, 0.0))
    assert [entry.value for entry in response.result.regressions] == [2, -1, 0]
    assert response.model_spec.signature_name == signature


def test_the_classic_model_answers_as_documented(half_plus_two: Servable):
    examples = _list(80.0, 90.0)
    values = {
        name: [entry.value for entry in _regress(half_plus_two, name, examples).result.regressions]
        for name in ("regress_x_to_y", "regress_x_to_y2")
    }
    assert values == {"regress_x_to_y": [42, 47], "regress_x_to_y2": [43, 48]}


def test_the_context_is_part_of_every_example(half_plus_two: Servable):
    # The example's own feature wins, as in `ClassifierTest.ExampleListWithContext_DuplicateFeatures`.
    message = input_pb2.Input()
    message.example_list_with_context.context.CopyFrom(_example(x=80.0))
    message.example_list_with_context.examples.extend([_example(x2=1.0), _example(x=90.0)])
    response = _regress(half_plus_two, "regress_x_to_y", message)
    assert [entry.value for entry in response.result.regressions] == [42, 47]


def test_context_and_example_are_merged_as_messages():
    message = input_pb2.Input()
    message.example_list_with_context.context.CopyFrom(_example(user=1.0, x=3.0))
    message.example_list_with_context.examples.add().CopyFrom(_example(item=2.0, x=4.0))
    (serialized,) = read_examples(message)
    merged = tf.train.Example.FromString(serialized).features.feature
    assert {name: merged[name].float_list.value[0] for name in merged} == {"user": 1.0, "item": 2.0, "x": 4.0}


def _empty_inputs() -> list[input_pb2.Input]:
    context = input_pb2.Input()
    context.example_list_with_context.context.CopyFrom(_example(x=1.0))
    return [input_pb2.Input(), input_pb2.Input(example_list=input_pb2.ExampleList()), context]


@pytest.mark.parametrize("message", _empty_inputs())
def test_empty_inputs_are_refused(labeller: Servable, message: input_pb2.Input):
    for ask in (
        lambda: _classify(labeller, "", message),
        lambda: _regress(labeller, "regress", message),
        lambda: _infer(labeller, [("model", "regress", REGRESS)], message),
    ):
        with pytest.raises(StatusError, match=r"^Input is empty\.$") as caught:
            ask()
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("nothing", "No signature was found with the name: nothing"),
        ("two_inputs", "Expected one input Tensor."),
        ("three_outputs", "Expected one or two output Tensors, found 3"),
        ("other_input", 'No classification inputs found in SignatureDef: inputs {\n  key: "examples"'),
        (
            "other_output",
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: inputs {",
        ),
        ("vector_of_scores", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ("double_scores", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ("numbers_for_classes", "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ("one_row_of_scores", "Expected scores output batch size of 2. Got: 1"),
        ("unequal_widths", "Tensors class and score should match in dim_size(1). Got 2 vs. 1"),
    ],
)
def test_signatures_that_cannot_classify(labeller: Servable, signature: str, message: str):
    with pytest.raises(StatusError) as caught:
        _classify(labeller, signature, _list(1.0, 2.0))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("nothing", "No signature was found with the name: nothing"),
        ("two_inputs", "Expected one input Tensor."),
        ("three_outputs", "Expected one output Tensor."),
        ("other_input", "No regression inputs found in SignatureDef: inputs {"),
        ("other_output", "No regression outputs found in SignatureDef: inputs {"),
        ("matrix", "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]"),
        ("number_of_examples", "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []"),
        ("one_row", "Input batch size did not match output batch size: 2 vs. 1"),
        ("doubles", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    ],
)
def test_signatures_that_cannot_regress(labeller: Servable, signature: str, message: str):
    with pytest.raises(StatusError) as caught:
        _regress(labeller, signature, _list(1.0, 2.0))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message.startswith(message)


def test_method_names_are_checked_if_so_chosen(labeller: Servable, labeller_path: Path):
    strict = Servable(str(labeller_path), check_method_names=True)
    with pytest.raises(
        StatusError, match=f"^Expected classification signature method_name to be {CLASSIFY}. Was: {REGRESS}$"
    ):
        _classify(strict, "regress", _list(1.0))
    with pytest.raises(
        StatusError, match=f"^Expected regression signature method_name to be {REGRESS}. Was: {CLASSIFY}$"
    ):
        _regress(strict, "", _list(1.0))
    assert len(_classify(strict, "", _list(1.0)).result.classifications) == 1
    assert len(_classify(labeller, "scores_only", _list(1.0)).result.classifications) == 1


def test_multi_inference_answers_every_task_in_order(half_plus_two: Servable):
    tasks = [
        ("model", "regress_x_to_y2", REGRESS),
        ("model", "classify_x_to_y", CLASSIFY),
        ("model", "regress_x_to_y", REGRESS),
    ]
    results = _infer(half_plus_two, tasks, _list(80.0, 90.0)).results
    assert [result.model_spec.signature_name for result in results] == [signature for _, signature, _ in tasks]
    assert [result.WhichOneof("result") for result in results] == [
        "regression_result",
        "classification_result",
        "regression_result",
    ]
    assert [entry.value for entry in results[0].regression_result.regressions] == [43, 48]
    classes = [entry.classes[0] for entry in results[1].classification_result.classifications]
    assert [(entry.label, entry.score) for entry in classes] == [("", 42), ("", 47)]
    assert [entry.value for entry in results[2].regression_result.regressions] == [42, 47]


@pytest.mark.parametrize(
    ("tasks", "code", "message"),
    [
        ([("", "", REGRESS)], "INVALID_ARGUMENT", "Found ModelSpec with an empty model name."),
        (
            [("model", "regress_x_to_y", REGRESS), ("other", "regress_x_to_y2", REGRESS)],
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("model", "regress_x_to_y", REGRESS), ("model", "regress_x_to_y", REGRESS)],
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        ([("model", "no", REGRESS)], "INVALID_ARGUMENT", "Requested signature not found in model graph: no"),
        (
            [("model", "serving_default", "tensorflow/serving/predict")],
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
    ],
)
def test_tasks_that_cannot_be_done(half_plus_two: Servable, tasks: list[tuple[str, str, str]], code: str, message: str):
    with pytest.raises(StatusError) as caught:
        _infer(half_plus_two, tasks, _list(1.0))
    assert (caught.value.code.name, caught.value.message) == (code, message)
