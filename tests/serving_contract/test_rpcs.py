"""Every RPC, case by case, over a real socket."""

from __future__ import annotations

import re

import grpc
import pytest

from tests.serving_contract.contract import Failure, RpcCase
from tests.serving_contract.inference_cases import inference_cases
from tests.serving_contract.messages import RESPONSES
from tests.serving_contract.model_cases import model_cases
from tests.serving_contract.predict_cases import predict_cases
from tests.serving_contract.server import Server, expected_outcome

CASES = [*predict_cases(), *inference_cases(), *model_cases()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rpc}: {case.name}")
def test_call_ends_as_with_tensorflow_serving(server: Server, case: RpcCase):
    if isinstance(case.expected, Failure) and case.expected.message is None:
        with pytest.raises(grpc.RpcError) as raised:
            server.call(case.rpc, case.request())
        assert raised.value.code() is case.expected.code
        assert re.search(case.expected.pattern, raised.value.details())
    else:
        assert server.outcome(case) == expected_outcome(case.expected, RESPONSES[case.rpc])


def test_cases_have_names_of_their_own():
    names = [(case.rpc, case.name) for case in CASES]
    assert len(set(names)) == len(names)
