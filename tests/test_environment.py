"""The choice of a TFX line and a Python, and when an environment is made anew."""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import environment
from pipeline.environment import EnvironmentProblem, Interpreter, Line, Machine, choose

NEW, OLD = environment.LINES
DEBIAN_12 = Machine("Linux", "x86_64", (2, 36), has_compiler=True)
DEBIAN_13 = Machine("Linux", "x86_64", (2, 41), has_compiler=True)


def python(version: str, path: str | None = None, **attributes: bool) -> Interpreter:
    major, minor, patch = (int(part) for part in version.split("."))
    return Interpreter(path or f"/usr/bin/python{major}.{minor}", (major, minor, patch), **attributes)


def refusal(machine: Machine, interpreters: list[Interpreter], lines: tuple[Line, ...] = environment.LINES) -> str:
    with pytest.raises(EnvironmentProblem) as raised:
        choose(machine, interpreters, lines)
    return str(raised.value)


@pytest.mark.parametrize(
    ("machine", "versions", "line", "version"),
    [
        (DEBIAN_12, ["3.13.0", "3.11.7", "3.10.13"], "1.16", (3, 10, 13)),
        (DEBIAN_13, ["3.13.5"], "1.21", (3, 13, 5)),
        (DEBIAN_13, ["3.10.13", "3.11.7", "3.12.1"], "1.21", (3, 12, 1)),
        (DEBIAN_13, ["3.14.0", "3.10.13"], "1.16", (3, 10, 13)),
        (DEBIAN_13, ["3.14.0", "3.11.7", "3.9.1"], "1.21", (3, 11, 7)),
        (DEBIAN_13._replace(glibc=(2, 39)), ["3.10.13", "3.11.7"], "1.21", (3, 11, 7)),
        (DEBIAN_13._replace(glibc=(2, 38)), ["3.10.13", "3.11.7"], "1.16", (3, 10, 13)),
        (DEBIAN_13._replace(glibc=(3, 0)), ["3.13.0"], "1.21", (3, 13, 0)),
        (DEBIAN_12._replace(glibc=(2, 17)), ["3.10.0"], "1.16", (3, 10, 0)),
    ],
)
def test_choice(machine: Machine, versions: list[str], line: str, version: tuple[int, int, int]) -> None:
    choice = choose(machine, [python(each) for each in versions])
    assert (choice.line.name, choice.interpreter.version) == (line, version)


def test_a_line_that_is_asked_for_wins_over_the_newest() -> None:
    interpreters = [python("3.13.5"), python("3.10.13")]
    assert choose(DEBIAN_13, interpreters, [OLD]).interpreter.version == (3, 10, 13)
    assert choose(DEBIAN_13, interpreters, [NEW]).interpreter.version == (3, 13, 5)


def test_the_first_of_equal_versions_wins() -> None:
    interpreters = [python("3.10.2", "/first"), python("3.10.13", "/second")]
    assert choose(DEBIAN_12, interpreters).interpreter.path == "/first"


def test_an_interpreter_that_cannot_build_is_passed_over() -> None:
    bare = python("3.13.5", has_headers=False)
    assert choose(DEBIAN_13, [bare, python("3.13.0", "/opt/python")]).interpreter.path == "/opt/python"
    assert choose(DEBIAN_13, [bare, python("3.10.13")]).line == OLD


@given(
    st.tuples(st.just(2), st.integers(10, 45)),
    st.lists(st.tuples(st.integers(8, 15), st.booleans(), st.booleans()), max_size=6),
)
def test_whatever_is_chosen_fits(glibc: tuple[int, int], candidates: list[tuple[int, bool, bool]]) -> None:
    machine = DEBIAN_12._replace(glibc=glibc)
    interpreters = [
        python(f"3.{minor}.0", standard=standard, has_headers=headers) for minor, standard, headers in candidates
    ]
    usable = {each.version[1] for each in interpreters if each.standard and each.has_headers}
    possible = (usable & {11, 12, 13} if glibc >= (2, 39) else set()) or (usable & {10} if glibc >= (2, 17) else set())
    if possible:
        choice = choose(machine, interpreters)
        assert choice.interpreter.version == (3, max(possible), 0)
        assert choice.interpreter.standard and choice.interpreter.has_headers
        assert choice.line == (OLD if max(possible) == 10 else NEW)
    else:
        message = refusal(machine, interpreters)
        assert message.startswith("Marquee needs ") and message.endswith(".") and "\n" not in message


def test_refusal_says_what_was_found_and_which_python_to_install() -> None:
    assert refusal(DEBIAN_12, [python("3.11.7", "/usr/bin/python3.11"), python("3.9.1")]) == (
        "Marquee needs Python 3.11 to 3.13 with glibc >= 2.39, or Python 3.10 with glibc >= 2.17; "
        "found Python 3.11.7 (/usr/bin/python3.11) with glibc 2.36: "
        "install Python 3.10, for instance with `uv python install 3.10`."
    )
    assert refusal(DEBIAN_13, [python("3.9.1", "/usr/bin/python3.9"), python("3.8.1")]) == (
        "Marquee needs Python 3.11 to 3.13 with glibc >= 2.39, or Python 3.10 with glibc >= 2.17; "
        "found Python 3.9.1 (/usr/bin/python3.9) with glibc 2.41: "
        "install Python 3.13, for instance with `uv python install 3.13`."
    )


@pytest.mark.parametrize(
    ("machine", "interpreters", "lines", "words"),
    [
        (DEBIAN_12, [], environment.LINES, "found no Python with glibc 2.36: install Python 3.10"),
        (
            DEBIAN_12,
            [python("3.13.0")],
            (NEW,),
            "glibc 2.36: use a newer Linux distribution, for instance Ubuntu 24.04",
        ),
        (DEBIAN_12._replace(glibc=(2, 12)), [python("3.10.0")], environment.LINES, "use a newer Linux distribution"),
        (DEBIAN_12._replace(glibc=None), [python("3.10.0")], environment.LINES, "with no glibc: use a Linux distribut"),
        (DEBIAN_12, [python("3.10.0", standard=False)], (OLD,), "which is not a 64-bit CPython with the GIL"),
        (DEBIAN_12._replace(has_compiler=False), [python("3.10.0")], (OLD,), "found none on the PATH: install g++."),
        (DEBIAN_12, [python("3.10.0", has_headers=False)], (OLD,), "for instance python3.10-dev."),
        (DEBIAN_12._replace(architecture="aarch64"), [python("3.10.0")], (OLD,), "found Linux on aarch64"),
        (DEBIAN_12._replace(system="Darwin"), [python("3.10.0")], (OLD,), "needs Linux on x86_64"),
    ],
)
def test_refusal_names_the_one_thing_that_is_missing(
    machine: Machine, interpreters: list[Interpreter], lines: tuple[Line, ...], words: str
) -> None:
    message = refusal(machine, interpreters, lines)
    assert words in message
    assert "\n" not in message and message.endswith(".")


def test_this_interpreter_is_found() -> None:
    found = environment.find_interpreters(uv=None)
    ours = os.path.realpath(os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info[1]}"))
    mine = [each for each in found if os.path.realpath(each.path) == ours]
    assert [each.version for each in mine] == [sys.version_info[:3]]
    assert mine[0].has_headers == Path(sysconfig.get_paths()["include"], "Python.h").exists()
    assert len({os.path.realpath(each.path) for each in found}) == len(found)


def test_this_machine_can_host_a_line() -> None:
    choice = choose(environment.inspect_machine(), environment.find_interpreters(environment.find_uv()))
    assert choice.line in environment.LINES


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(body: str) -> str:
        path = tmp_path / f"python-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_executables_that_are_no_python_are_ignored(script: Callable[[str], str], tmp_path: Path) -> None:
    for body in ("echo 'python3.13: command not found' >&2; exit 127", "echo hello", "echo '[]'", "echo '{}'"):
        assert environment.probe(script(body)) is None
    assert environment.probe(str(tmp_path / "missing")) is None


def test_a_later_folder_of_the_path_makes_up_for_a_failing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"python3.{sys.version_info[1]}"
    for folder, body in (("shims", "exit 127"), ("bin", f'exec "{sys.executable}" "$@"')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}:{tmp_path / 'bin'}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(environment.sys, "executable", str(tmp_path / "missing"))
    assert [each.version for each in environment.find_interpreters(uv=None)] == [sys.version_info[:3]]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that an environment depends on."""
    source = environment.CHECKOUT
    shutil.copytree(source / "constraints", tmp_path / "constraints")
    shutil.copy(source / "setup.py", tmp_path / "setup.py")
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    return tmp_path


def make_environment(venv: Path, line: Line) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / environment.STAMP).write_text(json.dumps(environment._stamp(venv, line)))


@pytest.mark.parametrize("line", environment.LINES)
def test_an_environment_is_current_until_what_it_depends_on_changes(checkout: Path, line: Line) -> None:
    venv = checkout / ".venv"
    assert environment.installed_line(venv) is None
    make_environment(venv, line)
    assert environment.installed_line(venv) == line

    for changed in (checkout / "setup.py", line.constraints):
        before = changed.read_text()
        changed.write_text(before + "\n# changed\n")
        assert environment.installed_line(venv) is None
        changed.write_text(before)
        assert environment.installed_line(venv) == line


def test_an_environment_of_one_line_ignores_the_constraints_of_the_other(checkout: Path) -> None:
    venv = checkout / ".venv"
    make_environment(venv, OLD)
    NEW.constraints.write_text("numpy==2.4.6\n")
    assert environment.installed_line(venv) == OLD


def test_an_environment_that_was_moved_killed_or_lost_its_python_is_not_current(checkout: Path) -> None:
    venv = checkout / ".venv"
    make_environment(venv, OLD)
    venv.rename(checkout / "moved")
    assert environment.installed_line(checkout / "moved") is None

    make_environment(venv, OLD)
    (venv / environment.STAMP).write_text("{")
    assert environment.installed_line(venv) is None
    (venv / environment.STAMP).unlink()
    assert environment.installed_line(venv) is None
    (venv / environment.STAMP).write_text(json.dumps(environment._stamp(venv, OLD)))
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(checkout / "missing")
    assert environment.installed_line(venv) is None


def test_set_up_leaves_a_current_environment_and_a_foreign_folder_alone(checkout: Path) -> None:
    venv = checkout / ".venv"
    make_environment(venv, OLD)
    before = sorted(venv.rglob("*"))
    environment.set_up(venv)
    assert sorted(venv.rglob("*")) == before

    foreign = checkout / "documents"
    foreign.mkdir()
    (foreign / "letter").touch()
    with pytest.raises(EnvironmentProblem, match="is not a virtual environment"):
        environment.set_up(foreign)
    assert (foreign / "letter").exists()


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(environment.CHECKOUT / "pipeline" / "environment.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_script_tells_the_other_line(tmp_path: Path) -> None:
    missing = run_script("other-line", "--venv", str(tmp_path / "missing"))
    assert missing.returncode == environment.DOES_NOT_FIT
    assert "run `make setup`" in missing.stderr and not missing.stdout

    make_environment(tmp_path / "venv", OLD)
    assert run_script("other-line", "--venv", str(tmp_path / "venv")).stdout == f"{NEW.name}\n"


def test_the_script_checks_without_touching_anything() -> None:
    codes = set()
    for line in environment.LINES:
        checked = run_script("check", "--line", line.name)
        assert (checked.returncode, bool(checked.stderr)) in ((0, False), (environment.DOES_NOT_FIT, True))
        codes.add(checked.returncode)
    assert 0 in codes


def test_the_script_parses_on_the_oldest_python_that_may_run_it() -> None:
    source = Path(environment.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("line", environment.LINES)
def test_constraints_are_exact_and_name_no_address(line: Line) -> None:
    pins = [text for text in line.constraints.read_text().splitlines() if not text.startswith("#")]
    assert f"tfx=={line.name}.0" in pins
    for pin in pins:
        name, _, version = pin.partition(" ;")[0].partition("==")
        assert name and version and not set("/@*<>") & set(pin.partition(" ;")[0]), pin
