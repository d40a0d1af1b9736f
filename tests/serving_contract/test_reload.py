"""HandleReloadConfigRequest. Every test leaves the server as it found it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from pipeline.serving.messages import model_management_pb2, model_server_config_pb2
from tests.serving_contract.configuration import read_models_config
from tests.serving_contract.messages import RESPONSES
from tests.serving_contract.reload_cases import ReloadCase, reload_cases
from tests.serving_contract.server import Server, canonical, describe, expected_outcome

RPC = "HandleReloadConfigRequest"
PATIENCE_SECONDS = 20.0

_Reload = Callable[..., model_management_pb2.ReloadConfigResponse]


@pytest.fixture
def config(server: Server) -> model_server_config_pb2.ModelServerConfig:
    """The configuration that the server was started by."""
    if server.models is None:
        pytest.skip("no --serving-models, so the configuration to return to is not known")
    return read_models_config(server.models)


@pytest.fixture
def reload(server: Server, config: model_server_config_pb2.ModelServerConfig) -> Iterator[_Reload]:
    """Sends a configuration; afterwards the server returns to its own."""
    original = model_server_config_pb2.ModelServerConfig.FromString(config.SerializeToString())

    def send(
        config: model_server_config_pb2.ModelServerConfig, **fields: object
    ) -> model_management_pb2.ReloadConfigResponse:
        request = model_management_pb2.ReloadConfigRequest(config=config, **fields)
        response = server.call(RPC, request)
        assert isinstance(response, model_management_pb2.ReloadConfigResponse)
        return response

    yield send
    send(original)
    server.wait_for_models()


@pytest.mark.parametrize("case", reload_cases(), ids=lambda case: case.name)
def test_reload_ends_as_with_tensorflow_serving(
    server: Server, config: model_server_config_pb2.ModelServerConfig, reload: _Reload, case: ReloadCase
):
    case.change(config)
    try:
        outcome = canonical(reload(config))
    except grpc.RpcError as error:
        outcome = describe(error.code(), error.details())
    assert outcome == ("status {\n}\n" if case.failure is None else describe(case.failure.code, case.failure.message))
    deadline = time.monotonic() + PATIENCE_SECONDS
    for call in case.then:
        expected = expected_outcome(call.expected, RESPONSES[call.rpc])
        while (received := server.outcome(call)) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        assert received == expected


def test_reload_says_how_the_named_metrics_grew(config: model_server_config_pb2.ModelServerConfig, reload: _Reload):
    response = reload(config, metric_names=["/no/such/metric"])
    assert canonical(response) == 'status {\n}\nmetric {\n  name: "/no/such/metric"\n  int64_value_increase: 0\n}\n'


def test_new_model_without_a_base_path_is_refused_and_stays_unknown(
    server: Server, config: model_server_config_pb2.ModelServerConfig, reload: _Reload
):
    config.model_config_list.config.add(name="homeless", model_platform="tensorflow")
    with pytest.raises(grpc.RpcError) as raised:
        reload(config)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "Expected model homeless to have an absolute path or URI; got base_path()="
    assert server.states("homeless") == {}
