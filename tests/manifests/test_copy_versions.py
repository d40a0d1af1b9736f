"""The script that copies released versions from S3, with the `aws` command's copying done by `cp`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.model_config_file import plain_config, with_versions, write_config

SCRIPT = Path(__file__).parents[2] / "kubeflow" / "serving" / "overlays" / "s3" / "copy_versions.sh"
# As `aws s3 cp --recursive`: a prefix without objects is no error.
AWS = """#!/bin/sh
[ "$1 $2 $3 $4" = "s3 cp --recursive --only-show-errors" ] || exit 64
mkdir -p "$6"
[ ! -d "$5" ] || cp -r "$5/." "$6"
"""


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "aws").write_text(AWS)
    (commands / "aws").chmod(0o755)
    for version in (11, 12, 13):
        (tmp_path / "store" / str(version) / "variables").mkdir(parents=True)
        (tmp_path / "store" / str(version) / "saved_model.pb").write_text(str(version))
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "MODEL_STORE": str(tmp_path / "store"),
        "MODELS": str(tmp_path / "models"),
        "MODEL_CONFIG": str(tmp_path / "models.config"),
        "SECONDS_BETWEEN": "0.1",
    }


def release(folder: Path, versions: Mapping[str, int]) -> None:
    config = model_server_config_pb2.ModelServerConfig()
    released = with_versions(config, "recommender", folder / "models", versions.values(), versions)
    write_config(folder / "models.config", released)


def copied(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "models").iterdir())


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def test_the_released_versions_are_copied_whole(tmp_path: Path, environment: Mapping[str, str]):
    release(tmp_path, {"stable": 11, "canary": 13})
    done = run(environment, "once")
    assert done.returncode == 0, done.stderr
    assert copied(tmp_path) == ["11", "13"]
    assert (tmp_path / "models" / "13" / "saved_model.pb").read_text() == "13"
    assert (tmp_path / "models" / "13" / "variables").is_dir()


def test_a_version_that_is_missing_fails_the_start_and_leaves_no_folder(tmp_path: Path, environment: Mapping[str, str]):
    release(tmp_path, {"stable": 11, "canary": 99})
    done = run(environment, "once")
    assert done.returncode == 1
    assert "version 99 cannot be copied" in done.stderr
    assert "99" not in copied(tmp_path)


def test_without_a_release_it_says_so(tmp_path: Path, environment: Mapping[str, str]):
    write_config(tmp_path / "models.config", plain_config("recommender", tmp_path / "models"))
    done = run(environment, "once")
    assert done.returncode == 1
    assert "names no versions: make a release first" in done.stderr


def test_it_follows_releases(tmp_path: Path, environment: Mapping[str, str]):
    release(tmp_path, {"stable": 11})
    assert run(environment, "once").returncode == 0
    with subprocess.Popen(["/bin/sh", str(SCRIPT), "keep"], env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            release(tmp_path, {"stable": 12})
            deadline = time.monotonic() + 20
            while copied(tmp_path) != ["12"]:
                assert time.monotonic() < deadline, copied(tmp_path)
                assert process.poll() is None
                time.sleep(0.05)
        finally:
            process.kill()


def test_it_says_how_it_is_used(environment: Mapping[str, str]):
    done = run(environment)
    assert done.returncode == 64
    assert done.stderr == "usage: copy_versions.sh once|keep\n"
