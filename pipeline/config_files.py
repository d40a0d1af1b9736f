"""Configuration files: found by name, read from YAML, overridden field by field, validated, and refused in plain words.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

_Config = TypeVar("_Config", bound=pydantic.BaseModel)


class ConfigError(ValueError):
    """A configuration file or override that cannot be used. The message names every offending field."""


class Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number, as YAML 1.2 has it; PyYAML takes it for text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_config(
    kind: type[_Config], noun: str, name_or_path: str | Path, directory: Path, overrides: Iterable[str]
) -> _Config:
    """Reads a configuration file.

    Args:
      kind: what it must hold.
      noun: what it is called in messages, e.g. `study`.
      name_or_path: a YAML file, or the name of one in `directory`.
      directory: folder of the files that are shipped.
      overrides: assignments `a.b=value` that win over the file; the value is read as YAML.

    Raises:
      ConfigError: naming the file and, for each bad field, its path, the value received and what was expected.
        Values are not coerced between kinds: the text "8500" is no port.
    """
    path = _find(noun, name_or_path, directory)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold a mapping of fields; received {type(document).__name__}")
    for override in overrides:
        apply_override(document, override)
    try:
        # By way of JSON, whose strict reading takes lists for tuples but no text for numbers.
        return kind.model_validate_json(json.dumps(document, default=str), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation_error(error, str(path))) from error


def _find(noun: str, name_or_path: str | Path, directory: Path) -> Path:
    for candidate in (Path(name_or_path), directory / f"{name_or_path}.yaml"):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(file.stem for file in directory.glob("*.yaml")))
    raise ConfigError(f"no {noun} {str(name_or_path)!r}: neither a file nor one of those shipped ({names})")


def describe_validation_error(error: pydantic.ValidationError, source: str, prefix: str = "") -> str:
    """Rewrites Pydantic's errors as one line per field: path, value received, what was expected."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        location = ".".join(part for part in (prefix, field) if part) or "(the whole file)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{location}: no such field; received {problem['input']!r}")
        elif problem["type"] == "missing":
            lines.append(f"{location}: required, but not given")
        elif problem["type"] == "value_error":  # Raised by a section; says by itself what was received.
            lines.append(f"{location}: {problem['ctx']['error']}")
        else:
            lines.append(f"{location}: received {problem['input']!r}; expected: {problem['msg']}")
    return f"{source} cannot be used:\n  " + "\n  ".join(lines)


def apply_override(document: dict[str, Any], override: str) -> None:
    """Changes one field of a configuration as it stands in a file.

    Args:
      document: the file's mapping, changed in place; sections that are missing are added.
      override: an assignment `a.b=value`; the value is read as YAML.

    Raises:
      ConfigError: if it is no assignment, a parent is no section or the value is not valid YAML.
    """
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"an override must look like field.subfield=value; received {override!r}")
    *parents, leaf = dotted.split(".")
    section: Any = document
    for depth, parent in enumerate(parents):
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{'.'.join(parents[: depth + 1])} is not a section; received the override {override!r}")
    try:
        section[leaf] = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{dotted}: the value {text!r} is not valid YAML: {error}") from error
