"""Runs the build stage of a Dockerfile without Docker, so that its instructions do not rot.

    python3 -I pipeline/image_check.py kubeflow/Dockerfile --prefix /tmp/image

Its ARG PREFIX is set to a folder of ours, which is made anew; COPY copies from the current folder, RUN runs. Commands
such as apt-get act on this machine, so run it in a root of the release that the image starts from, as root. Runs by any
Python from 3.10 on, with the standard library alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.dockerfile import DockerfileError, Instruction, read_dockerfile

_MARK = ".marquee-image-check"
_PREFIX = "PREFIX"


class ImageCheckError(RuntimeError):
    """An instruction that failed. The message names the file, the line and what happened."""


def run_stage(dockerfile: str | Path, stage_name: str, prefix: Path, context: Path) -> int:
    """Runs the instructions of a stage.

    Args:
      dockerfile: the file; it must declare `ARG PREFIX`, below which the stage puts everything.
      stage_name: the stage to run.
      prefix: takes the place of PREFIX; an earlier one of ours is replaced.
      context: folder that COPY copies from.

    Returns:
      How many RUN and COPY instructions were executed.

    Raises:
      DockerfileError: if the file cannot be read, has no such stage, or no PREFIX.
      ImageCheckError: if an instruction fails, or `prefix` holds something else.
    """
    parsed = read_dockerfile(dockerfile)
    stage = parsed.stage(stage_name)
    if _PREFIX not in parsed.arguments:
        raise DockerfileError(f"{dockerfile}: expected ARG {_PREFIX}=… before the first FROM; received none")
    _make_prefix(prefix)
    variables = {**parsed.arguments, _PREFIX: str(prefix)}
    folder = prefix
    executed = 0
    for instruction in stage.instructions:
        place = f"{dockerfile}, line {instruction.line}"
        print(f"{instruction.keyword} {instruction.arguments}", flush=True)
        match instruction.keyword:
            case "WORKDIR":
                folder = folder / instruction.words(variables)[0]
                folder.mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(instruction, variables, folder, context, place)
                executed += 1
            case "RUN":
                # As Docker does: the shell replaces the variables, and the first failure of a && chain ends it.
                environment = {**os.environ, **variables}
                code = subprocess.run(["/bin/sh", "-c", instruction.arguments], cwd=folder, env=environment).returncode
                if code:
                    raise ImageCheckError(f"{place}: RUN ended with exit code {code}: {instruction.arguments}")
                executed += 1
            case "ARG":
                name, equals, value = instruction.arguments.partition("=")
                if equals:
                    variables[name] = value
            case other:
                raise ImageCheckError(f"{place}: {other} is not expected in the stage {stage_name!r}")
    return executed


def _make_prefix(prefix: Path) -> None:
    if prefix.exists() and any(prefix.iterdir()) and not (prefix / _MARK).exists():
        raise ImageCheckError(f"{prefix} holds something else; expected a folder that does not exist yet")
    if prefix.exists():
        shutil.rmtree(prefix)
    prefix.mkdir(parents=True)
    (prefix / _MARK).touch()


def _copy(instruction: Instruction, variables: dict[str, str], folder: Path, context: Path, place: str) -> None:
    words = instruction.words(variables)
    if len(words) < 2 or words[0].startswith("--"):
        raise ImageCheckError(f"{place}: expected COPY source … destination; received {instruction.arguments}")
    *sources, destination = words
    target = folder / destination
    for name in sources:
        source = context / name
        if not source.exists():
            raise ImageCheckError(f"{place}: there is no {name} to copy")
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into = target / source.name if destination.endswith("/") or target.is_dir() else target
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, into)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description="Runs the build stage of a Dockerfile without Docker, on this machine.",
        epilog="Example: python3 -I pipeline/image_check.py kubeflow/Dockerfile --prefix /tmp/image",
    )
    parser.add_argument("dockerfile", help="file to check, e.g. kubeflow/Dockerfile")
    parser.add_argument("--prefix", type=Path, required=True, help="folder to install below; it is made anew")
    parser.add_argument("--stage", default="build", help="stage to run (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        executed = run_stage(given.dockerfile, given.stage, given.prefix.absolute(), Path.cwd())
    except (DockerfileError, ImageCheckError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{given.dockerfile}: {executed} instructions of the stage {given.stage!r} ran.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
