"""HandleReloadConfigRequest: what changes, what does not, and how it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import PurePath

import grpc

from pipeline.serving.messages import model_server_config_pb2
from tests.serving_contract.contract import Answer, Failure, RpcCase
from tests.serving_contract.messages import entry, floats, request, spec, tensor

_CORE = "model_servers/server_core.cc:"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_POLLED = "Seen when the server next looks at its folders."


@dataclasses.dataclass(frozen=True)
class ReloadCase:
    """A new configuration and what follows from it.

    Attributes:
      name: what is special about the configuration, for people.
      change: changes the configuration that the server was started by.
      failure: how the call fails; None if it succeeds.
      source: file and line in TensorFlow Serving's source, below `tensorflow_serving/`, that decides it.
      then: calls that come to end as they say, at once or when the server next looks at its folders.
      note: what else a reader should know.
    """

    name: str
    change: Callable[[model_server_config_pb2.ModelServerConfig], object]
    failure: Failure | None
    source: str
    then: tuple[RpcCase, ...] = ()
    note: str = ""


def reload_cases() -> list[ReloadCase]:
    """Returns every case of HandleReloadConfigRequest."""
    return [*_failures(), *_labels(), *_models()]


def model(config: model_server_config_pb2.ModelServerConfig, name: str) -> model_server_config_pb2.ModelConfig:
    """Returns one model's part of a configuration."""
    return next(entry for entry in config.model_config_list.config if entry.name == name)


def _failures() -> list[ReloadCase]:
    kind = "model_servers/model_service_impl.cc:68"
    unsupported = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    neither = "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform"
    both = "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform"
    platform = (
        "Illegal to change a model's platform. For model half_plus platform was tensorflow "
        "and new platform requested is other"
    )

    def fails(
        name: str, change: Callable[[model_server_config_pb2.ModelServerConfig], object], message: str, source: str
    ) -> ReloadCase:
        then = (_predict("the old models", spec("plain"), 4.5, "plain", 4),)
        return ReloadCase(name, change, Failure(_INVALID, message), source, then)

    return [
        fails("no configuration", lambda config: config.Clear(), unsupported, kind),
        fails("custom configuration", lambda config: config.custom_model_config.SetInParent(), unsupported, kind),
        fails(
            "model listed twice",
            lambda config: config.model_config_list.config.add().CopyFrom(model(config, "half_plus")),
            "Illegal to list model half_plus multiple times in config list",
            _CORE + "123",
        ),
        fails(
            "relative base path",
            lambda config: _set(config, "half_plus", base_path="models/half_plus"),
            "Expected model half_plus to have an absolute path or URI; got base_path()=models/half_plus",
            _CORE + "144",
        ),
        fails(
            "no platform",
            lambda config: _set(config, "half_plus", model_platform=""),
            neither + ", model name is half_plus",
            _CORE + "100",
        ),
        fails(
            "type and platform",
            lambda config: _set(config, "half_plus", model_type=model_server_config_pb2.TENSORFLOW),
            both + ", model name is half_plus",
            _CORE + "83",
        ),
        fails(
            "another platform",
            lambda config: _set(config, "half_plus", model_platform="other"),
            platform,
            _CORE + "175",
        ),
        fails(
            "new model of an unknown platform",
            lambda config: config.model_config_list.config.add(name="new", base_path="/new", model_platform="other"),
            "Model new requests unsupported platform other",
            _CORE + "664",
        ),
    ]


def _labels() -> list[ReloadCase]:
    unavailable = (
        "Request to assign label to version 99 of model half_plus, which is not currently available for inference"
    )
    gone = Failure(_INVALID, "Unrecognized servable version label: canary")
    return [
        ReloadCase(
            "label moved to a version that is not available",
            lambda config: _label(config, stable=99),
            Failure(_PRECONDITION, unavailable),
            _CORE + "580",
            (_predict("label stable", spec(version_label="stable"), 2.5, "half_plus", 2),),
            "The labels stay as they were.",
        ),
        ReloadCase(
            "labels swapped",
            lambda config: _label(config, stable=3, canary=2),
            None,
            _CORE + "610",
            (
                _predict("label stable", spec(version_label="stable"), 3.5, "half_plus", 3),
                _predict("label canary", spec(version_label="canary"), 2.5, "half_plus", 2),
            ),
        ),
        ReloadCase(
            "label taken away",
            lambda config: model(config, "half_plus").version_labels.pop("canary"),
            None,
            _CORE + "610",
            (_call("label canary", "Predict", spec(version_label="canary") + floats("x", 1), gone),),
        ),
        ReloadCase(
            "new label for a version that is not available",
            lambda config: _label(config, nightly=99),
            None,
            _CORE + "563",
            (
                _call(
                    "label nightly",
                    "Predict",
                    spec(version_label="nightly") + floats("x", 1),
                    _not_found("Specific(half_plus, 99)"),
                ),
            ),
            "With --allow_version_labels_for_unavailable_models, as this server runs; otherwise FAILED_PRECONDITION.",
        ),
    ]


def _models() -> list[ReloadCase]:
    def ended(name: str, version: int) -> RpcCase:
        answer = Answer(f"model_version_status {{ version: {version} state: END status {{}} }}")
        return _call(f"state of {name}", "GetModelStatus", spec(name, version=version), answer)

    movable = spec("movable") + floats("x", 1)
    no_movable = _call("movable", "Predict", movable, _not_found("Latest(movable)"))
    source = "sources/storage_path/file_system_storage_path_source.cc:"
    return [
        ReloadCase(
            "the same configuration",
            lambda config: None,
            None,
            _CORE + "482",
            (_predict("movable", spec("movable"), 4.5, "movable", 4),),
        ),
        ReloadCase(
            "model left out",
            lambda config: config.model_config_list.config.remove(model(config, "movable")),
            None,
            _CORE + "433",
            (no_movable, ended("movable", 4)),
        ),
        ReloadCase(
            "new model",
            lambda config: _add(config, "new", "other_half_plus"),
            None,
            _CORE + "440",
            (_predict("new", spec("new"), 5.5, "new", 5),),
            "The call returns when the model is available.",
        ),
        ReloadCase(
            "two models of one folder",
            lambda config: _add(config, "twin", "movable"),
            None,
            _CORE + "440",
            (_predict("twin", spec("twin"), 4.5, "twin", 4), _predict("movable", spec("movable"), 4.5, "movable", 4)),
        ),
        ReloadCase(
            "latest version only",
            lambda config: model(config, "half_plus").model_version_policy.latest.SetInParent(),
            None,
            source + "148",
            (
                _call("version 2", "Predict", spec(version=2) + floats("x", 1), _not_found("Specific(half_plus, 2)")),
                _call(
                    "label of version 2",
                    "Predict",
                    spec(version_label="stable") + floats("x", 1),
                    _not_found("Specific(half_plus, 2)"),
                ),
                ended("half_plus", 2),
            ),
            _POLLED,
        ),
        ReloadCase(
            "specific version that does not exist",
            lambda config: model(config, "movable").model_version_policy.specific.versions.append(9),
            None,
            source + "229",
            (no_movable, ended("movable", 4)),
            _POLLED + " A model of which no version is left stays known, and unavailable.",
        ),
        ReloadCase(
            "another base path",
            lambda config: _set(config, "movable", base_path=_folder(config, "other_half_plus")),
            None,
            source + "396",
            (_predict("movable", spec("movable"), 5.5, "movable", 5), ended("movable", 4)),
            _POLLED,
        ),
        ReloadCase(
            "base path that does not exist",
            lambda config: _set(config, "movable", base_path=_folder(config, "absent")),
            None,
            source + "260",
            (_predict("movable", spec("movable"), 4.5, "movable", 4),),
            "A base path that cannot be read is no reason to unload what serves.",
        ),
    ]


def _set(config: model_server_config_pb2.ModelServerConfig, name: str, **fields: object) -> None:
    for field, value in fields.items():
        setattr(model(config, name), field, value)


def _label(config: model_server_config_pb2.ModelServerConfig, **labels: int) -> None:
    model(config, "half_plus").version_labels.update(labels)


def _folder(config: model_server_config_pb2.ModelServerConfig, name: str) -> str:
    return str(PurePath(model(config, "half_plus").base_path).with_name(name))


def _add(config: model_server_config_pb2.ModelServerConfig, name: str, folder: str) -> None:
    config.model_config_list.config.add(name=name, base_path=_folder(config, folder), model_platform="tensorflow")


def _not_found(what: str) -> Failure:
    return Failure(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {what}")


def _call(name: str, rpc: str, text: str, expected: Failure | Answer) -> RpcCase:
    return RpcCase(rpc, name, request(rpc, text), expected, "")


def _predict(name: str, text: str, y: float, model_name: str, version: int) -> RpcCase:
    answer = entry("outputs", "y", tensor("DT_FLOAT", (1,), "float_val", y))
    answer += spec(model_name, version=version, signature_name="serving_default")
    return _call(name, "Predict", text + floats("x", 1), Answer(answer))
