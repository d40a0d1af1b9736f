"""How every RPC that uses a model finds it by name, version and label."""

from __future__ import annotations

import grpc

from tests.serving_contract.contract import Failure, RpcCase
from tests.serving_contract.messages import request, spec

_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


def lookup_failures(rpc: str, rest: str, missing_spec_source: str) -> list[RpcCase]:
    """Returns the cases of an RPC that cannot find its model.

    Args:
      rpc: name of the method.
      rest: text proto of what the request needs to come as far as the lookup.
      missing_spec_source: where a request without `model_spec` is refused.
    """

    def case(name: str, text: str, code: grpc.StatusCode, message: str, source: str, note: str = "") -> RpcCase:
        return RpcCase(rpc, name, request(rpc, text + rest), Failure(code, message), source, note)

    manager, core = "core/basic_manager.cc:139", "model_servers/server_core.cc:"
    return [
        case("no model_spec", "", _INVALID, "Missing ModelSpec", missing_spec_source),
        case("empty model name", "model_spec {} ", _INVALID, "ModelSpec has no name specified.", core + "844"),
        case("unknown model", spec("absent"), _NOT_FOUND, "Servable not found for request: Latest(absent)", manager),
        case(
            "unknown version",
            spec(version=99),
            _NOT_FOUND,
            "Servable not found for request: Specific(half_plus, 99)",
            manager,
        ),
        case(
            "version 0",
            spec(version=0),
            _NOT_FOUND,
            "Servable not found for request: Specific(half_plus, 0)",
            manager,
            "A version of 0 is a version; only no version at all means the latest.",
        ),
        case(
            "negative version",
            spec(version=-1),
            _NOT_FOUND,
            "Servable not found for request: Specific(half_plus, -1)",
            manager,
        ),
        case(
            "version of an unknown model",
            spec("absent", version=1),
            _NOT_FOUND,
            "Servable not found for request: Specific(absent, 1)",
            manager,
        ),
        case(
            "version that could not be loaded",
            spec("broken", version=2),
            _NOT_FOUND,
            "Servable not found for request: Specific(broken, 2)",
            manager,
        ),
        case(
            "unknown label",
            spec(version_label="nightly"),
            _INVALID,
            "Unrecognized servable version label: nightly",
            core + "890",
        ),
        case(
            "label of another model",
            spec("plain", version_label="stable"),
            _INVALID,
            "Unrecognized servable version label: stable",
            core + "890",
        ),
        case(
            "label of an unknown model",
            spec("absent", version_label="stable"),
            _INVALID,
            "Unrecognized servable version label: stable",
            core + "890",
        ),
    ]
