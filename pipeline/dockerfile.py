"""Reads a Dockerfile: its stages, and the instructions of each.

Run by any Python from 3.10 on with the standard library alone, since it is also used where nothing is installed.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

_INSTRUCTIONS = ("ARG", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class DockerfileError(ValueError):
    """A Dockerfile that cannot be read. The message names the file, the line and what was expected."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      line: number of its first line, from 1.
      keyword: what it is, in capitals.
      arguments: the rest, on one line, variables as they are written.
    """

    line: int
    keyword: str
    arguments: str

    def words(self, variables: Mapping[str, str]) -> list[str]:
        """Returns the arguments of a COPY, FROM, USER or WORKDIR, variables replaced."""
        return shlex.split(substitute(self.arguments, variables))


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one FROM begins.

    Attributes:
      image: the image to start from, or the name of an earlier stage.
      name: what `AS` calls it; None if nothing does.
      instructions: those after FROM, in order.
    """

    image: str
    name: str | None
    instructions: tuple[Instruction, ...]

    def of(self, keyword: str) -> list[Instruction]:
        """Returns the instructions of one kind, in order."""
        return [instruction for instruction in self.instructions if instruction.keyword == keyword]


@dataclasses.dataclass(frozen=True)
class Dockerfile:
    """A whole file.

    Attributes:
      arguments: default values of the arguments declared before the first stage.
      stages: in order; the last one is the image.
    """

    arguments: Mapping[str, str]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """Returns the stage of a name.

        Raises:
          DockerfileError: if there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        named = ", ".join(stage.name for stage in self.stages if stage.name) or "none"
        raise DockerfileError(f"there is no stage {name!r}; named stages: {named}")


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replaces `$NAME` and `${NAME}` where the name is known; others stay as they are."""
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), text)


def read_dockerfile(path: str | Path) -> Dockerfile:
    """Reads a Dockerfile that uses the plain instructions; others are refused rather than overlooked.

    Raises:
      DockerfileError: if it does not parse.
      OSError: if it cannot be read.
    """
    arguments: dict[str, str] = {}
    stages: list[tuple[str, str | None, list[Instruction]]] = []
    for instruction in _instructions(Path(path)):
        place = f"{path}, line {instruction.line}"
        if instruction.keyword == "FROM":
            words = instruction.words(arguments)
            match words:
                case [image]:
                    stages.append((image, None, []))
                case [image, as_, name] if as_.upper() == "AS":
                    stages.append((image, name, []))
                case _:
                    raise DockerfileError(f"{place}: expected FROM image [AS name]; received {instruction.arguments}")
        elif stages:
            stages[-1][2].append(instruction)
        elif instruction.keyword == "ARG":
            name, equals, value = instruction.arguments.partition("=")
            if not equals:
                raise DockerfileError(f"{place}: expected a default value, ARG name=value; received {name}")
            arguments[name] = value
        else:
            raise DockerfileError(f"{place}: expected FROM before {instruction.keyword}")
    if not stages:
        raise DockerfileError(f"{path}: expected at least one FROM; received none")
    return Dockerfile(arguments, tuple(Stage(image, name, tuple(rest)) for image, name, rest in stages))


def _instructions(path: Path) -> list[Instruction]:
    found: list[Instruction] = []
    parts: list[str] = []
    first = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        first = first if parts else number
        parts.append(text.removesuffix("\\").strip())
        if text.endswith("\\"):
            continue
        keyword, _, arguments = " ".join(parts).partition(" ")
        if keyword not in _INSTRUCTIONS:
            expected = ", ".join(_INSTRUCTIONS)
            raise DockerfileError(f"{path}, line {first}: expected one of {expected}; received {keyword}")
        if not arguments:
            raise DockerfileError(f"{path}, line {first}: expected something after {keyword}; received nothing")
        found.append(Instruction(first, keyword, arguments.strip()))
        parts = []
    if parts:
        raise DockerfileError(f"{path}, line {first}: expected the instruction to go on after its last backslash")
    return found
