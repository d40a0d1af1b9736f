"""Classify, Regress and MultiInference: what they answer, and how they fail."""

from __future__ import annotations

import grpc

from tests.serving_contract.contract import Answer, Failure, RpcCase
from tests.serving_contract.lookup_cases import lookup_failures
from tests.serving_contract.messages import examples, request, spec

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_CLASSIFIER = "servables/tensorflow/classifier.cc:"
_REGRESSOR = "servables/tensorflow/regressor.cc:"
_MULTI = "servables/tensorflow/multi_inference.cc:"
_UTIL = "servables/tensorflow/util.cc:"
_RUNTIME = "Text of TensorFlow's runtime; more may follow."
_DEBUG_STRING = "The signature follows, as the protobuf library of the server prints it."
_PARSING = "TensorFlow: core/util/example_proto_fast_parsing.cc"


def inference_cases() -> list[RpcCase]:
    """Returns every case of Classify, Regress and MultiInference."""
    return [
        *lookup_failures("Classify", examples(1), "servables/tensorflow/classification_service.cc:35"),
        *_input_failures("Classify", "classify_x_to_y", _CLASSIFIER + "159"),
        *_classify_failures(),
        *_classify_answers(),
        *lookup_failures("Regress", examples(1), "servables/tensorflow/regression_service.cc:33"),
        *_input_failures("Regress", "regress_x_to_y", _REGRESSOR + "154"),
        *_regress_failures(),
        *_regress_answers(),
        *_multi_inference_failures(),
        *_multi_inference_answers(),
    ]


def _fails(rpc: str, name: str, text: str, message: str, source: str, note: str = "") -> RpcCase:
    return RpcCase(rpc, name, request(rpc, text), Failure(_INVALID, message), source, note)


def _fails_like(rpc: str, name: str, text: str, pattern: str, source: str, note: str) -> RpcCase:
    return RpcCase(rpc, name, request(rpc, text), Failure(_INVALID, None, pattern), source, note)


def _answers(rpc: str, name: str, text: str, answer: str, source: str, note: str = "") -> RpcCase:
    return RpcCase(rpc, name, request(rpc, text), Answer(answer), source, note)


def _input_failures(rpc: str, signature: str, lookup_source: str) -> list[RpcCase]:
    """How Classify and Regress alike refuse signatures and inputs."""
    model = spec(signature_name=signature)
    context = "input { example_list_with_context { context { features {} } } } "
    return [
        _fails(
            rpc,
            "unknown signature",
            spec(signature_name="absent") + examples(1),
            "No signature was found with the name: absent",
            lookup_source,
            "INVALID_ARGUMENT, where Predict says FAILED_PRECONDITION.",
        ),
        _fails(
            rpc,
            "model without a default signature",
            spec("misfits") + examples(1),
            "No signature was found with the name: serving_default",
            lookup_source,
        ),
        _fails(rpc, "no input", model, "Input is empty.", _UTIL + "167"),
        _fails(rpc, "empty list of Examples", model + "input { example_list {} } ", "Input is empty.", _UTIL + "167"),
        _fails(rpc, "context without Examples", model + context, "Input is empty.", _UTIL + "167"),
        _fails_like(
            rpc,
            "Example without a required feature",
            model + examples(None),
            r"Feature: x \(data type: float\) is required but could not be found",
            _PARSING,
            _RUNTIME,
        ),
        _fails_like(
            rpc,
            "feature of another type",
            model
            + 'input { example_list { examples { features { feature { key: "x" value '
            + "{ int64_list { value: 1 } } } } } } } ",
            "Data types don't match",
            _PARSING,
            _RUNTIME,
        ),
        _fails_like(
            rpc,
            "feature of another length",
            model
            + 'input { example_list { examples { features { feature { key: "x" value '
            + "{ float_list { value: 1 value: 2 } } } } } } } ",
            "Key: x",
            _PARSING,
            _RUNTIME,
        ),
    ]


def _classify_failures() -> list[RpcCase]:
    def misfit(signature: str, message: str, line: int) -> RpcCase:
        text = spec("misfits", signature_name=signature) + examples(1, 2)
        return _fails("Classify", f"signature {signature}", text, message, f"{_CLASSIFIER}{line}")

    shape = "Expected Tensor shape: [batch_size num_classes] but got [2]"
    return [
        _fails_like(
            "Classify",
            "signature of Regress",
            spec(signature_name="regress_x_to_y") + examples(1),
            '^Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: ",
            _CLASSIFIER + "208",
            _DEBUG_STRING,
        ),
        _fails_like(
            "Classify",
            "signature of Predict",
            spec() + examples(1),
            "^No classification inputs found in SignatureDef: ",
            _CLASSIFIER + "196",
            _DEBUG_STRING,
        ),
        _fails_like(
            "Classify",
            "signature neither_classes_nor_scores",
            spec("misfits", signature_name="neither_classes_nor_scores") + examples(1),
            '^Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: ",
            _CLASSIFIER + "208",
            _DEBUG_STRING,
        ),
        _fails_like(
            "Classify",
            "signature no_inputs",
            spec("misfits", signature_name="no_inputs") + examples(1),
            "^No classification inputs found in SignatureDef: ",
            _CLASSIFIER + "196",
            _DEBUG_STRING,
        ),
        misfit("two_inputs", "Expected one input Tensor.", 186),
        misfit("three_outputs", "Expected one or two output Tensors, found 3", 189),
        misfit("classes_of_numbers", "Expected classes Tensor of DT_STRING. Got: DT_FLOAT", 263),
        misfit("classes_of_one_row", "Expected classes output batch size of 2. Got: 1", 268),
        misfit("classes_without_columns", shape, 258),
        misfit("scores_of_doubles", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE", 281),
        misfit("scores_of_one_row", "Expected scores output batch size of 2. Got: 1", 286),
        misfit("scores_without_columns", shape, 276),
        misfit("more_scores_than_classes", "Tensors class and score should match in dim_size(1). Got 1 vs. 2", 297),
    ]


def _classify_answers() -> list[RpcCase]:
    def answers(name: str, signature: str, result: str, note: str = "", **version: object) -> RpcCase:
        text = spec("half_plus", signature_name=signature, **version) + examples(1)
        number = 2 if version else 3
        return _answers(
            "Classify",
            name,
            text,
            f"result {{ classifications {{ {result} }} }} " + spec(version=number, signature_name=signature),
            _CLASSIFIER + "309",
            note,
        )

    return [
        answers("scores only", "classify_x_to_y", "classes { score: 3.5 }", "Labels are empty."),
        answers("classes only", "classify_x_to_labels", 'classes { label: "half" } classes { label: "whole" }'),
        answers("both", "classify_x", 'classes { label: "half" score: 3.5 } classes { label: "whole" score: 7 }'),
        answers("version", "classify_x_to_y", "classes { score: 2.5 }", version=2),
        answers("label", "classify_x_to_y", "classes { score: 2.5 }", version_label="stable"),
        _answers(
            "Classify",
            "two Examples",
            spec(signature_name="classify_x_to_y") + examples(1, 2),
            "result { classifications { classes { score: 3.5 } } classifications { classes { score: 4 } } } "
            + spec(version=3, signature_name="classify_x_to_y"),
            _CLASSIFIER + "309",
        ),
    ]


def _regress_failures() -> list[RpcCase]:
    def misfit(signature: str, message: str, line: int) -> RpcCase:
        text = spec("misfits", signature_name=signature) + examples(1, 2)
        return _fails("Regress", f"signature {signature}", text, message, f"{_REGRESSOR}{line}")

    def unlike(name: str, model: str, pattern: str, line: int) -> RpcCase:
        return _fails_like("Regress", name, model + examples(1), pattern, f"{_REGRESSOR}{line}", _DEBUG_STRING)

    return [
        unlike(
            "signature of Classify",
            spec(signature_name="classify_x_to_y"),
            "^No regression outputs found in SignatureDef: ",
            198,
        ),
        unlike("signature of Predict", spec(), "^No regression inputs found in SignatureDef: ", 188),
        unlike(
            "signature no_outputs",
            spec("misfits", signature_name="no_outputs"),
            "^No regression outputs found in SignatureDef: ",
            198,
        ),
        unlike(
            "signature no_regression_inputs",
            spec("misfits", signature_name="no_regression_inputs"),
            "^No regression inputs found in SignatureDef: ",
            188,
        ),
        misfit("two_inputs", "Expected one input Tensor.", 180),
        misfit("two_outputs", "Expected one output Tensor.", 183),
        misfit(
            "two_columns",
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
            240,
        ),
        misfit("doubles", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE", 250),
        misfit("one_row", "Input batch size did not match output batch size: 2 vs. 1", 245),
    ]


def _regress_answers() -> list[RpcCase]:
    def answers(name: str, text: str, values: tuple[float, ...], signature: str, version: int = 3) -> RpcCase:
        model = "misfits" if signature == "vector" else "half_plus"
        regressions = "".join(f"regressions {{ value: {value} }} " for value in values)
        return _answers(
            "Regress",
            name,
            text,
            f"result {{ {regressions}}} " + spec(model, version=version, signature_name=signature),
            _REGRESSOR + "262",
        )

    signature = "regress_x_to_y"
    context = (
        'input { example_list_with_context { context { features { feature { key: "x2" value { float_list '
        '{ value: 4 } } } } } examples { features { feature { key: "x" value { float_list { value: 1 } } } } } '
        'examples { features { feature { key: "x" value { float_list { value: 2 } } } } } } } '
    )
    return [
        answers("two Examples", spec(signature_name=signature) + examples(1, 4), (3.5, 5), signature),
        answers("version", spec(signature_name=signature, version=2) + examples(1), (2.5,), signature, 2),
        answers("label", spec(signature_name=signature, version_label="stable") + examples(1), (2.5,), signature, 2),
        answers("vector of outputs", spec("misfits", signature_name="vector") + examples(1, 4), (1, 4), "vector", 1),
        answers(
            "feature with a default", spec(signature_name="regress_x2_to_y") + examples(1), (3,), "regress_x2_to_y"
        ),
        answers(
            "Examples with a context that they share",
            spec(signature_name="regress_x2_to_y") + context,
            (5, 5),
            "regress_x2_to_y",
        ),
    ]


def _task(method: str, name: str = "half_plus", **fields: object) -> str:
    return f'tasks {{ {spec(name, **fields)}method_name: "tensorflow/serving/{method}" }} '


def _multi_inference_failures() -> list[RpcCase]:
    def fails(name: str, text: str, message: str, source: str, note: str = "") -> RpcCase:
        return _fails("MultiInference", name, text + examples(1), message, source, note)

    def fails_with(code: grpc.StatusCode, name: str, text: str, message: str, source: str) -> RpcCase:
        return RpcCase(
            "MultiInference", name, request("MultiInference", text + examples(1)), Failure(code, message), source
        )

    regress = _task("regress", signature_name="regress_x_to_y")
    classify = _task("classify", signature_name="classify_x_to_y")
    no_name = 'tasks { model_spec {} method_name: "tensorflow/serving/regress" } '
    core, helper = "model_servers/server_core.cc:844", "servables/tensorflow/multi_inference_helper.cc:28"
    label = "Unrecognized servable version label: nightly"
    return [
        fails("no tasks", "", "ModelSpec has no name specified.", core),
        fails("first task without a model_spec", "tasks {} " + regress, "ModelSpec has no name specified.", helper),
        fails("first task without a model name", no_name + regress, "ModelSpec has no name specified.", core),
        fails(
            "second task without a model name",
            regress + no_name,
            "Found ModelSpec with an empty model name.",
            _MULTI + "44",
        ),
        fails(
            "tasks of two models",
            regress + _task("classify", name="plain", signature_name="classify_x_to_y"),
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            _MULTI + "50",
        ),
        fails(
            "signature named twice",
            regress + classify + regress,
            "Duplicate evaluation of signature: regress_x_to_y",
            _MULTI + "61",
        ),
        fails(
            "unknown signature",
            regress + _task("classify", signature_name="absent"),
            "Requested signature not found in model graph: absent",
            _MULTI + "68",
        ),
        fails_with(
            grpc.StatusCode.UNIMPLEMENTED,
            "method that is neither Classify nor Regress",
            _task("predict", signature_name="regress_x_to_y"),
            "Unsupported signature method_name: tensorflow/serving/predict",
            _MULTI + "81",
        ),
        fails_with(
            grpc.StatusCode.UNIMPLEMENTED,
            "no method",
            f"tasks {{ {spec(signature_name='regress_x_to_y')}}} ",
            "Unsupported signature method_name: ",
            _MULTI + "81",
        ),
        fails_with(
            grpc.StatusCode.NOT_FOUND,
            "unknown model",
            _task("regress", name="absent"),
            "Servable not found for request: Latest(absent)",
            "core/basic_manager.cc:139",
        ),
        fails_with(
            grpc.StatusCode.NOT_FOUND,
            "unknown version",
            _task("regress", version=99),
            "Servable not found for request: Specific(half_plus, 99)",
            "core/basic_manager.cc:139",
        ),
        fails("unknown label", _task("regress", version_label="nightly"), label, "model_servers/server_core.cc:890"),
        _fails("MultiInference", "no input", regress + classify, "Input is empty.", _UTIL + "167"),
        _fails_like(
            "MultiInference",
            "Example without a required feature",
            regress + classify + examples(None),
            r"Feature: x \(data type: float\) is required but could not be found",
            _PARSING,
            _RUNTIME,
        ),
        fails(
            "output that one task cannot use",
            _task("regress", name="misfits", signature_name="doubles"),
            "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE",
            _REGRESSOR + "250",
        ),
    ]


def _multi_inference_answers() -> list[RpcCase]:
    regress = _task("regress", signature_name="regress_x_to_y")
    classify = _task("classify", signature_name="classify_x")

    def regression(version: int, value: float) -> str:
        model = spec(version=version, signature_name="regress_x_to_y")
        return f"results {{ {model}regression_result {{ regressions {{ value: {value} }} }} }} "

    classification = (
        f"results {{ {spec(version=3, signature_name='classify_x')}classification_result {{ classifications {{ "
        'classes { label: "half" score: 3.5 } classes { label: "whole" score: 7 } } } } '
    )
    stable = _task("regress", signature_name="regress_x_to_y", version_label="stable")

    def answers(name: str, tasks: str, answer: str, note: str = "") -> RpcCase:
        return _answers("MultiInference", name, tasks + examples(1), answer, _MULTI + "101", note)

    return [
        answers("one task", regress, regression(3, 3.5)),
        answers("Regress and Classify", regress + classify, regression(3, 3.5) + classification),
        answers("Classify and Regress", classify + regress, classification + regression(3, 3.5)),
        answers("label", stable, regression(2, 2.5)),
        answers(
            "tasks of two versions",
            stable + _task("classify", signature_name="classify_x_to_y", version=3),
            regression(2, 2.5) + f"results {{ {spec(version=2, signature_name='classify_x_to_y')}classification_result "
            "{ classifications { classes { score: 2.5 } } } } ",
            "The first task's version answers all.",
        ),
    ]
