"""Models and a server that the tests of releases share."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import export_recommender, publish

Start = Callable[[], ModelServer]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModels by what is special about them."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "i0 first": export_recommender(folder / "a", first="i0"),
        "i5 first": export_recommender(folder / "b", first="i5"),
        "lists the worst first": export_recommender(folder / "c", warm_up=False, fault="lists the worst first"),
        "no recommendations": export_recommender(folder / "d", without="serving_default", warm_up=False),
    }


@pytest.fixture
def folder(tmp_path: Path, models: dict[str, Path]) -> ServingFolder:
    """A serving folder with the versions 1 and 2, and a version 3 that cannot be loaded."""
    made = ServingFolder(tmp_path / "serving", "recommender")
    publish(models["i0 first"], made.versions, 1)
    publish(models["i5 first"], made.versions, 2)
    broken = publish(models["i0 first"], made.versions, 3)
    shutil.rmtree(broken / "variables")
    return made


@pytest.fixture
def start(folder: ServingFolder) -> Iterator[Start]:
    """Starts servers from the folder as `marquee serve` does."""
    servers = []

    def start_server() -> ModelServer:
        common = ServerOptions(
            port=0,
            model_name=folder.model_name,
            model_base_path=str(folder.versions),
            file_system_poll_wait_seconds=0.1,
            max_num_load_retries=0,
        )
        options = common
        if folder.config.exists():
            options = dataclasses.replace(
                common,
                model_base_path="",
                model_config_file=str(folder.config),
                model_config_file_poll_wait_seconds=0.2,
                allow_version_labels_for_unavailable_models=True,
            )
        server = ModelServer(options)
        server.start()
        servers.append(server)
        return server

    yield start_server
    for server in servers:
        server.stop()
