"""The image: what kubeflow/Dockerfile says fits the project, and what the check of it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline import environment, image_check
from pipeline.dockerfile import Dockerfile, DockerfileError, Stage, read_dockerfile
from pipeline.image_check import ImageCheckError, run_stage

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = CHECKOUT / "kubeflow" / "Dockerfile"
COMPILERS = re.compile(r"\b(g\+\+|gcc|clang|build-essential|python3-dev)(?!\w)")
PINNED = re.compile(r"[\w./-]+:\d[\w.-]*(@sha256:[0-9a-f]{64})?$")


@pytest.fixture(scope="module")
def image() -> Dockerfile:
    return read_dockerfile(DOCKERFILE)


def test_images_are_pinned(image: Dockerfile):
    assert [stage.image for stage in image.stages if not PINNED.match(stage.image)] == []


def test_the_build_and_the_image_start_from_one_python_of_the_newest_line(image: Dockerfile):
    build, final = image.stage("build"), image.stages[-1]
    assert build.image == final.image
    match = re.match(r"python:(\d+)\.(\d+)-slim-", final.image)
    assert match is not None
    python = int(match[1]), int(match[2])
    (constraints,) = re.findall(r"--constraint (\S+)", " ".join(step.arguments for step in build.of("RUN")))
    line = next(line for line in environment.LINES if line.constraints == CHECKOUT / constraints)
    assert line == environment.LINES[0]
    assert line.oldest_python <= python <= line.newest_python


def test_what_is_copied_is_there_and_reaches_the_builder(image: Dockerfile):
    ignored = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {name for step in image.stage("build").of("COPY") for name in step.words({})[:-1]}
    assert copied == let_in
    assert [name for name in copied if not (CHECKOUT / name).exists()] == []
    # What setup.py packages is copied.
    packages = re.search(r"find_packages\(include=\[(.*?)\]", (CHECKOUT / "setup.py").read_text(encoding="utf-8"))
    assert packages is not None
    assert set(re.findall(r'"(\w+)"', packages[1])) <= copied


def test_the_image_has_no_compiler_and_runs_as_nobody_special(image: Dockerfile):
    build, final = image.stage("build"), image.stages[-1]
    assert compilers(build) and not compilers(final)
    (user,) = final.of("USER")
    uid, _, _ = user.arguments.partition(":")
    assert uid.isdecimal() and int(uid) > 0
    assert f"--uid {uid} " in " ".join(step.arguments for step in final.of("RUN"))


def compilers(stage: Stage) -> list[str]:
    return COMPILERS.findall(" ".join(step.arguments for step in stage.of("RUN")))


def test_beam_starts_its_workers_with_its_own_release(image: Dockerfile):
    beam = image.stage("beam").image
    constraints = environment.LINES[0].constraints.read_text(encoding="utf-8")
    (release,) = re.findall(r"^apache-beam==(\S+)$", constraints, re.MULTILINE)
    python = re.match(r"python:([\d.]+)", image.stages[-1].image)
    assert python is not None
    assert beam == f"apache/beam_python{python[1]}_sdk:{release}"
    assert image.stages[-1].of("ENTRYPOINT")[0].arguments == '["/opt/apache/beam/boot"]'


def test_stages_take_only_from_stages_before_them(image: Dockerfile):
    for number, stage in enumerate(image.stages):
        earlier = {before.name for before in image.stages[:number]}
        taken = [word for step in stage.of("COPY") for word in step.words({}) if word.startswith("--from=")]
        assert {word.removeprefix("--from=") for word in taken} <= earlier


SMALL = """\
ARG PREFIX=/opt
FROM debian:13 AS build
ARG PREFIX
# A comment
WORKDIR ${PREFIX}/app
COPY one.txt ./
COPY folder inside
RUN test -f one.txt && \\
    # between
    cp inside/two.txt "${PREFIX}/copied"
FROM debian:13
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    (context / "folder").mkdir(parents=True)
    (context / "one.txt").write_text("one")
    (context / "folder" / "two.txt").write_text("two")
    return context


def write(context: Path, text: str) -> Path:
    (context / "Dockerfile").write_text(text)
    return context / "Dockerfile"


def test_the_check_runs_what_the_file_says(context: Path, tmp_path: Path):
    prefix = tmp_path / "prefix"
    for _ in range(2):
        assert run_stage(write(context, SMALL), "build", prefix, context) == 3
        assert (prefix / "app" / "one.txt").read_text() == "one"
        assert (prefix / "copied").read_text() == "two"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test -f one.txt", "test -f three.txt", "line 8: RUN ended with exit code 1: test -f three.txt && "),
        ("COPY one.txt", "COPY three.txt", "line 6: there is no three.txt to copy"),
        ("COPY one.txt ./", "USER 1", "line 6: USER is not expected in the stage 'build'"),
    ],
)
def test_an_instruction_that_rots_fails_the_check(
    context: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    message: str,
):
    monkeypatch.chdir(context)
    path = write(context, SMALL.replace(old, new))
    assert image_check.main([str(path), "--prefix", str(tmp_path / "prefix")]) == 1
    assert message in capfd.readouterr().err


def test_the_check_replaces_no_folder_of_others(context: Path, tmp_path: Path):
    (tmp_path / "mine").touch()
    with pytest.raises(ImageCheckError, match="holds something else"):
        run_stage(write(context, SMALL), "build", tmp_path, context)
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one FROM"),
        ("RUN true\n", "line 1: expected FROM before RUN"),
        ("FROM a b\n", "line 1: expected FROM image"),
        ("ARG A\nFROM a\n", "line 1: expected a default value"),
        ("FROM a\n\nRUN\n", "line 3: expected something after RUN"),
        ("FROM a\nADD x y\n", "line 2: expected one of ARG, COPY, .* received ADD"),
        ("FROM a\nRUN true \\\n", "line 2: expected the instruction to go on"),
    ],
)
def test_a_file_that_does_not_parse_is_refused(context: Path, text: str, message: str):
    with pytest.raises(DockerfileError, match=message):
        read_dockerfile(write(context, text))


def test_a_stage_or_prefix_that_is_not_there_is_named(context: Path, tmp_path: Path):
    with pytest.raises(DockerfileError, match="no stage 'final'; named stages: build"):
        run_stage(write(context, SMALL), "final", tmp_path / "prefix", context)
    with pytest.raises(DockerfileError, match="expected ARG PREFIX="):
        run_stage(write(context, "FROM a AS build\n"), "build", tmp_path / "prefix", context)
