"""The server that the contract is checked on.

`pytest tests/serving_contract --serving-address HOST:PORT --serving-rest-address HOST:PORT --serving-models FOLDER`
checks a running server; without an address the project's own server is started.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving_contract.server import Server, local_server, write_models

_OPTIONS = {
    "--serving-address": "host:port of a gRPC service to check; without it the local server is started",
    "--serving-rest-address": "host:port of the same server's REST API",
    "--serving-models": "folder of the models that it serves, as tests.serving_contract.models wrote it",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("serving contract")
    for name, text in _OPTIONS.items():
        group.addoption(name, default="", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Refuses to check one server from several processes, since some tests change its configuration."""
    if _option(config, "serving_address") and config.getoption("numprocesses", 0):
        raise pytest.UsageError("--serving-address cannot be checked by several processes at once; use -n 0")


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, with its models loaded."""
    address, models = _option(pytestconfig, "serving_address"), _option(pytestconfig, "serving_models")
    if address:
        server = Server(address, _option(pytestconfig, "serving_rest_address"), Path(models) if models else None)
        try:
            server.wait_for_models()
        except TimeoutError as error:
            pytest.exit(f"cannot check {address}: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
        yield server
        server.channel.close()
        return
    folder = tmp_path_factory.mktemp("contract")
    write_models(folder / "models")
    with local_server(folder / "models", folder / "log") as server:
        yield server


@pytest.fixture
def rest(server: Server) -> Server:
    """The server, if it has a REST API."""
    if not server.rest_address:
        pytest.skip("no --serving-rest-address")
    return server


def _option(config: pytest.Config, name: str) -> str:
    # Without the folder on the command line pytest reads this file too late for its options.
    return config.getoption(name, "")
