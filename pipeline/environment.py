"""Sets up the virtual environment that `make` works in: chooses a TFX line and a Python that fit this machine.

Run as `python3 -I pipeline/environment.py COMMAND` by any Python from 3.7 on; it uses the standard library alone, since
nothing is installed yet. The installer is uv: the one on the PATH, or else one that is fetched for the occasion.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
STAMP = "marquee-environment.json"
DOES_NOT_FIT = 3
"""Exit code of `check` and `set-up` where this machine lacks something."""

_PROBE = """
import importlib.util, json, os, platform, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
base = os.path.join(sys.base_prefix, "bin", "python" + version)
print(json.dumps({
    "path": base if os.path.exists(base) else sys.executable,
    "version": sys.version_info[:3],
    "standard": platform.python_implementation() == "CPython" and sys.maxsize > 2**32
                and not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "has_headers": os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
    "has_ensurepip": importlib.util.find_spec("ensurepip") is not None,
}))
"""


class EnvironmentProblem(Exception):
    """What this machine lacks, in one sentence that says what to do about it."""


class Line(NamedTuple):
    """A TFX release and what its wheels run on."""

    name: str
    oldest_python: tuple[int, int]
    newest_python: tuple[int, int]
    glibc: tuple[int, int]

    @property
    def constraints(self) -> Path:
        """File of the exact versions that are installed on this line."""
        return CHECKOUT / "constraints" / f"tfx-{self.name}.txt"

    @property
    def needs(self) -> str:
        """The requirements in words."""
        pythons = f"Python {_dotted(self.oldest_python)}"
        if self.newest_python != self.oldest_python:
            pythons += f" to {_dotted(self.newest_python)}"
        return f"{pythons} with glibc >= {_dotted(self.glibc)}"


LINES = (Line("1.21", (3, 11), (3, 13), (2, 39)), Line("1.16", (3, 10), (3, 10), (2, 17)))
"""The lines supported, the preferred one first."""


class Machine(NamedTuple):
    """The parts of this machine that decide which wheels load."""

    system: str
    architecture: str
    glibc: tuple[int, int] | None
    has_compiler: bool


class Interpreter(NamedTuple):
    """A Python found on this machine.

    Attributes:
      path: its executable, outside of any virtual environment.
      version: major, minor, patch.
      standard: whether it is a 64-bit CPython with the global interpreter lock, as the wheels need.
      has_headers: whether C extensions can be built against it.
      has_ensurepip: whether it can make a virtual environment with pip in it.
    """

    path: str
    version: tuple[int, int, int]
    standard: bool = True
    has_headers: bool = True
    has_ensurepip: bool = True

    def __str__(self) -> str:
        return f"Python {_dotted(self.version)} ({self.path})"


class Choice(NamedTuple):
    """What an environment is made of."""

    line: Line
    interpreter: Interpreter


def choose(machine: Machine, interpreters: Sequence[Interpreter], lines: Sequence[Line] = LINES) -> Choice:
    """Picks the first line that fits, with the newest Python that it runs on.

    Args:
      machine: what the wheels must load on.
      interpreters: the candidates; of two with the same version, the first is preferred.
      lines: the lines to choose from, the preferred one first.

    Returns:
      The line and the interpreter.

    Raises:
      EnvironmentProblem: if nothing fits.
    """
    if (machine.system, machine.architecture) != ("Linux", "x86_64"):
        raise EnvironmentProblem(
            f"Marquee needs Linux on x86_64, for which alone TFX and its parts have all their wheels; found "
            f"{machine.system} on {machine.architecture}: use a container or virtual machine of that kind."
        )
    fitting = [
        Choice(line, interpreter)
        for line in lines
        if machine.glibc is not None and machine.glibc >= line.glibc
        for interpreter in sorted(interpreters, key=lambda candidate: candidate.version[:2], reverse=True)
        if interpreter.standard and line.oldest_python <= interpreter.version[:2] <= line.newest_python
    ]
    if not fitting:
        raise EnvironmentProblem(_describe_misfit(machine, interpreters, lines))
    # pyfarmhash, which TensorFlow Data Validation needs, comes as source code only.
    if not machine.has_compiler:
        raise EnvironmentProblem(
            "Marquee needs a C++ compiler to build pyfarmhash, and found none on the PATH: install g++."
        )
    buildable = [choice for choice in fitting if choice.interpreter.has_headers]
    if not buildable:
        best = fitting[0].interpreter
        raise EnvironmentProblem(
            f"Marquee needs Python's C headers to build pyfarmhash, and {best} has none: install its development "
            f"package, for instance python{_dotted(best.version[:2])}-dev."
        )
    return buildable[0]


def _describe_misfit(machine: Machine, interpreters: Sequence[Interpreter], lines: Sequence[Line]) -> str:
    # One of each version that could have served; where there is none, the one that runs this.
    first_of_version = {candidate.version[:2]: candidate for candidate in reversed(interpreters)}
    near = [
        candidate
        for version, candidate in sorted(first_of_version.items())
        if any(line.oldest_python <= version <= line.newest_python for line in LINES)
    ]
    found = ", ".join(
        str(candidate) if candidate.standard else f"{candidate}, which is not a 64-bit CPython with the GIL"
        for candidate in near or interpreters[:1]
    )
    if machine.glibc is None:
        remedy = "use a Linux distribution built on glibc"
    else:
        loadable = [line for line in lines if machine.glibc >= line.glibc]
        version = _dotted(loadable[0].newest_python) if loadable else ""
        remedy = (
            f"install Python {version}, for instance with `uv python install {version}`"
            if loadable
            else "use a newer Linux distribution, for instance Ubuntu 24.04 or Debian 13"
        )
    glibc = "no glibc" if machine.glibc is None else f"glibc {_dotted(machine.glibc)}"
    needs = ", or ".join(line.needs for line in lines)
    return f"Marquee needs {needs}; found {found or 'no Python'} with {glibc}: {remedy}."


def inspect_machine() -> Machine:
    """Describes the machine that this runs on."""
    compilers = [os.environ.get("CXX", "").split(" ")[0], "g++", "c++"]
    return Machine(
        platform.system(),
        platform.machine(),
        _glibc_version(),
        any(shutil.which(compiler) for compiler in compilers if compiler),
    )


def _glibc_version() -> tuple[int, int] | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (AttributeError, ValueError, OSError):  # Another C library does not know the name.
        return None


def find_interpreters(uv: str | None) -> list[Interpreter]:
    """Finds the Pythons of this machine, each once: the running one, those on the PATH, pyenv's and uv's.

    Args:
      uv: path of uv, or None where it is missing.
    """
    found: dict[str, Interpreter] = {}
    for path in _interpreter_paths(uv):
        interpreter = probe(path)
        if interpreter is not None:
            found.setdefault(os.path.realpath(interpreter.path), interpreter)
    return list(found.values())


def probe(path: str) -> Interpreter | None:
    """Asks an executable what it is. Returns None if it does not answer, as pyenv's shims of unselected versions."""
    output = _output([path, "-I", "-c", _PROBE])
    try:
        answer = json.loads(output or "")
        return Interpreter(**{**answer, "version": tuple(answer["version"])})
    except (ValueError, KeyError, TypeError):
        return None


def _interpreter_paths(uv: str | None) -> Iterator[str]:
    minors = [f"3.{minor}" for minor in range(13, 9, -1)]
    yield sys.executable
    yield from _on_path([f"python{minor}" for minor in minors] + ["python3", "python"])
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    yield from sorted(glob.glob(os.path.join(pyenv, "versions", "*", "bin", "python")))
    for minor in minors if uv else ():
        # --system: an active virtual environment is not the place to look.
        path = _output([str(uv), "python", "find", "--system", "--no-project", "--no-python-downloads", minor])
        if path:
            yield path


def find_uv() -> str | None:
    """Returns the first uv on the PATH that runs, or None."""
    return next((path for path in _on_path(["uv"]) if _output([path, "--version"])), None)


def _on_path(names: Iterable[str]) -> Iterator[str]:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for name in names:
        for folder in folders:
            path = shutil.which(name, path=folder) if folder else None
            if path:
                yield path


def _output(command: Sequence[str]) -> str | None:
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode(errors="replace").strip() if result.returncode == 0 else None


def set_up(venv: Path, lines: Sequence[Line] = LINES) -> None:
    """Makes a virtual environment with Marquee in it, unless it is there and up to date.

    Args:
      venv: folder of the environment.
      lines: the lines to choose from, the preferred one first.

    Raises:
      EnvironmentProblem: if this machine lacks something, or if an installation step fails.
    """
    line = installed_line(venv)
    if line is not None and line in lines:
        return
    uv = find_uv()
    interpreters = find_interpreters(uv)
    line, interpreter = choose(inspect_machine(), interpreters, lines)
    print(f"Setting up {venv} with TFX {line.name} on {interpreter}; this takes a minute or two.", flush=True)
    _remove(venv)
    with tempfile.TemporaryDirectory(prefix="marquee-uv-") as folder:
        uv = uv or _fetch_uv(folder, [interpreter, *interpreters])
        _run([uv, "venv", "--quiet", "--no-project", "--python", interpreter.path, str(venv)])
        # Without --python, uv would install into whatever environment it finds first.
        target = ["--python", str(venv / "bin" / "python")]
        package = ["--constraints", str(line.constraints), "--editable", f"{CHECKOUT}[kubeflow,dev]"]
        _run([uv, "pip", "install", "--quiet", *target, *package])
    aside = venv / f"{STAMP}.new"
    aside.write_text(json.dumps(_stamp(venv, line)), encoding="utf-8")
    os.replace(str(aside), str(venv / STAMP))


def installed_line(venv: Path) -> Line | None:
    """Returns the line of an environment that is complete and up to date, or None."""
    if not (venv / "bin" / "python").exists():
        return None
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return next((line for line in LINES if stamp == _stamp(venv, line)), None)


def _stamp(venv: Path, line: Line) -> dict[str, str]:
    """What an environment depends on; its own folder too, since environments cannot be moved."""
    files = (CHECKOUT / "setup.py", line.constraints)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"line": line.name, "folder": str(venv.absolute()), **digests}


def _remove(venv: Path) -> None:
    if venv.is_dir() and os.listdir(str(venv)) and not (venv / "pyvenv.cfg").is_file():
        raise EnvironmentProblem(f"{venv} is not a virtual environment: move it out of the way, or name another VENV.")
    if venv.exists():
        shutil.rmtree(str(venv))


def _fetch_uv(folder: str, interpreters: Sequence[Interpreter]) -> str:
    able = next((interpreter for interpreter in interpreters if interpreter.has_ensurepip), None)
    if able is None:
        raise EnvironmentProblem(
            f"Marquee is installed by uv, which is not on the PATH, and {interpreters[0]} cannot make the virtual "
            f"environment to fetch it into: install uv, or the package python3-venv."
        )
    _run([able.path, "-m", "venv", folder])
    _run([os.path.join(folder, "bin", "python"), "-m", "pip", "install", "--quiet", "uv"])
    return os.path.join(folder, "bin", "uv")


def _run(command: Sequence[str]) -> None:
    status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if status != 0:
        raise EnvironmentProblem(f"`{' '.join(command)}` failed with exit code {status}; its messages are above.")


def _dotted(version: Iterable[int]) -> str:
    return ".".join(str(part) for part in version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(description="Sets up the virtual environment that make works in.")
    parser.add_argument(
        "command",
        choices=("set-up", "check", "other-line"),
        help="make the environment; only tell whether one can be made; or print the line that it is not on",
    )
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="folder of the environment")
    parser.add_argument("--line", choices=[line.name for line in LINES], help="the TFX line (default: the newest)")
    options = parser.parse_args(arguments)
    lines = [line for line in LINES if options.line in (None, line.name)]
    try:
        if options.command == "set-up":
            set_up(options.venv, lines)
        elif options.command == "check":
            choose(inspect_machine(), find_interpreters(find_uv()), lines)
        else:
            installed = installed_line(options.venv)
            if installed is None:
                raise EnvironmentProblem(f"{options.venv} is not set up: run `make setup`.")
            print(next(line.name for line in LINES if line != installed))
    except EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        return DOES_NOT_FIT
    return 0


if __name__ == "__main__":
    sys.exit(main())
