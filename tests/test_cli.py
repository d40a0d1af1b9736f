"""The command line: help with examples, and errors as one sentence."""

import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.benchmark import BenchmarkError, measure
from pipeline.cli import app
from pipeline.config import SCHEMA_DIRECTORY

COMMANDS = [
    ["run"],
    ["status"],
    ["bench"],
    ["tune"],
    ["study"],
    ["simulate"],
    ["report"],
    ["compile"],
    ["serve"],
    ["recommend"],
    ["similar"],
    ["data", "movielens-100k"],
    ["data", "synthetic"],
    ["schema", "infer"],
]


def _invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(command: list[str]) -> None:
    result = _invoke(*command, "--help")
    assert result.exit_code == 0, result.output
    assert f"Example: marquee {' '.join(command)}" in result.output
    options = re.findall(r"--[a-z-]+", result.output.split("Example:")[1])
    assert all(result.output.count(option) > 1 for option in options), "the example uses an unknown option"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--config", "nowhere"], "no configuration 'nowhere'"),
        (["run", "--set", "model.sed=1"], "model.sed: no such field; received 1"),
        (["run", "--set", "data.directory=/no/such/folder"], "data.directory: no such folder '/no/such/folder'"),
        (["status", "--set", "workspace=/no/such/workspace"], "no run yet"),
        (["recommend", "--user", "1", "--set", "data.directory=/no/such/folder"], "interactions.pattern: no file"),
    ],
)
def test_errors_are_one_sentence_without_a_traceback(arguments: list[str], message: str) -> None:
    result = _invoke(*arguments)
    assert result.exit_code == 1
    assert message in result.output or message.replace("interactions.", "users.") in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command",
    [["run"], ["compile", "--output", "never.yaml"], ["recommend", "--user", "1"], ["similar", "--item", "1"]],
    ids=lambda command: command[0],
)
def test_a_bad_tag_in_the_schema_is_one_sentence(command: list[str], tmp_path: Path) -> None:
    good = (SCHEMA_DIRECTORY / "synthetic" / "schema.pbtxt").read_text(encoding="utf-8")
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(good.replace('tag: "categorical"', 'tag: "categorial"', 1), encoding="utf-8")
    assignments = (f"schema_file={schema}", f"workspace={tmp_path / 'workspace'}", f"data.directory={tmp_path}")
    options = [word for assignment in assignments for word in ("--set", assignment)]
    result = _invoke(*command, "--config", "synthetic", *options)
    assert result.exit_code == 1
    assert result.output.startswith(f"marquee: schema_file {schema}: feature ")
    assert "categorial" in result.output
    assert len(result.output.splitlines()) == 1


def test_run_finds_the_latest_span_and_names_the_pattern_if_there_is_none(tmp_path: Path) -> None:
    options = ["--set", f"data.directory={tmp_path}/span-{{SPAN}}", "--set", f"workspace={tmp_path / 'workspace'}"]
    result = _invoke("run", *options)
    assert result.exit_code == 1
    assert f"data.directory: no folder matches '{tmp_path}/span-{{SPAN}}'" in result.output

    (tmp_path / "span-7").mkdir()
    (tmp_path / "span-7" / "interactions.tsv").touch()
    # The folder is there now; what stops the run is the next thing to be checked.
    result = _invoke("run", *options, "--set", "schema_file=nowhere.pbtxt")
    assert result.exit_code == 1
    assert result.output.startswith("marquee: schema_file: no such file 'nowhere.pbtxt'")


def test_compiling_leaves_its_log_only_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = _invoke("compile", "--output", str(tmp_path / "never.yaml"), "--set", "model.family=none")
    assert result.exit_code == 1
    (log,) = tmp_path.iterdir()
    assert "not compiled: " in result.output
    assert result.output.endswith(f"The whole story is in {log}\n")


def test_a_measured_process_is_timed_and_its_memory_known() -> None:
    # From a small process, since memory counts from the fork: a child is never smaller than who measures it.
    script = """
        import sys
        from pipeline.benchmark import measure
        measured = measure([sys.executable, "-c", "x = bytearray(300 << 20); import time; time.sleep(0.2)"])
        print(measured.seconds, measured.cpu_seconds, measured.peak_mebibytes)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    seconds, cpu_seconds, peak_mebibytes = map(float, output.split())
    assert seconds >= 0.2
    assert cpu_seconds < seconds + 1
    assert 300 < peak_mebibytes < 400


def test_a_measured_process_that_fails_says_why() -> None:
    with pytest.raises(BenchmarkError, match=r"ended with code 3:\nno luck"):
        measure([sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"])
