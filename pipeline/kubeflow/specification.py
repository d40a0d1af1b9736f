"""A compiled specification, read back: its parameters, its images, and what may be said of them at submission."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.atomic_files import write_text_atomically
from pipeline.config_files import ConfigError

_KINDS: Mapping[str, tuple[str, type]] = {
    "NUMBER_INTEGER": ("a whole number", int),
    "NUMBER_DOUBLE": ("a number", float),
    "STRING": ("text", str),
    "BOOLEAN": ("true or false", bool),
}


def read_specification(path: Path) -> dict[str, Any]:
    """Reads a compiled pipeline.

    Raises:
      ConfigError: if the file cannot be read, or is no specification.
    """
    try:
        document = next(iter(yaml.safe_load_all(path.read_text(encoding="utf-8"))), None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict) or not {"pipelineInfo", "root", "deploymentSpec"} <= document.keys():
        raise ConfigError(
            f"{path}: is no specification of a pipeline; expected the YAML file that `marquee compile` writes"
        )
    return document


def pipeline_name(specification: Mapping[str, Any]) -> str:
    """Returns the pipeline's name."""
    return str(specification["pipelineInfo"]["name"])


def parameter_values(specification: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Returns the value of every parameter: what is given, else its default.

    Args:
      specification: the compiled pipeline.
      given: assignments `name=value`.

    Raises:
      ConfigError: naming the parameter, the value received and what was expected.
    """
    definitions = specification["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {name: one["defaultValue"] for name, one in definitions.items() if "defaultValue" in one}
    for assignment in given:
        name, equals, text = assignment.partition("=")
        if not equals or name not in definitions:
            raise ConfigError(
                f"--parameter: received {assignment!r}; expected name=value with a name of "
                f"{', '.join(sorted(definitions)) or 'none, since the pipeline has no parameters'}"
            )
        values[name] = _parse(name, text, str(definitions[name].get("parameterType", "STRING")))
    missing = sorted(definitions.keys() - values.keys())
    if missing:
        raise ConfigError(f"--parameter: no value for {', '.join(missing)}, which has no default")
    return values


def write_with_image(specification: Mapping[str, Any], image: str | None, path: Path) -> None:
    """Writes a specification as YAML, all of whose containers run an image, if one is given."""
    executors = {
        label: {**executor, "container": {**executor["container"], "image": image}}
        if image and "container" in executor
        else executor
        for label, executor in specification["deploymentSpec"]["executors"].items()
    }
    document = {**specification, "deploymentSpec": {**specification["deploymentSpec"], "executors": executors}}
    write_text_atomically(path, yaml.safe_dump(document, sort_keys=True))


def _parse(name: str, text: str, kind: str) -> Any:
    told, python_type = _KINDS.get(kind, _KINDS["STRING"])
    if python_type is str:
        return text
    value = yaml.safe_load(text) if text.strip() else None
    if python_type is float and type(value) is int:
        value = float(value)
    if type(value) is not python_type:
        raise ConfigError(f"--parameter {name}: received {text!r}; expected {told}")
    return value
