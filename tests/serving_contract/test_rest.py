"""The REST API, case by case, over a real socket; bodies are compared byte by byte."""

from __future__ import annotations

import re

import pytest

from tests.serving_contract.contract import RestCase
from tests.serving_contract.rest_cases import rest_cases
from tests.serving_contract.rest_predict_answers import rest_predict_answers
from tests.serving_contract.rest_predict_failures import rest_predict_failures
from tests.serving_contract.server import Server

CASES = [*rest_predict_answers(), *rest_predict_failures(), *rest_cases()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.route}: {case.name}")
def test_response_is_tensorflow_servings(rest: Server, case: RestCase):
    status, headers, body = rest.http(case.method, case.path, case.body.encode())
    received = body.decode("utf-8", "surrogateescape")
    assert (status, received) in [(case.status, expected) for expected in case.bodies] or not case.bodies
    assert status == case.status and re.search(case.pattern, received)
    if case.path.lower().startswith("/v1/") and case.method != "OPTIONS":
        assert headers["Content-Type"] == "application/json"


def test_cases_have_names_of_their_own():
    names = [(case.route, case.name) for case in CASES]
    assert len(set(names)) == len(names)
