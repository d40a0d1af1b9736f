"""Short ways to write requests to the REST API and what they give."""

from __future__ import annotations

import json

from tests.serving_contract.contract import RestCase

PREDICT = "POST …:predict"
"""Route of Predict, as the cases are grouped."""

JSON = "util/json_tensor.cc:"
"""Source of most that happens to JSON."""


def error(message: str) -> str:
    """Returns the body of a failed request, to the byte."""
    return f'{{\n    "error": {json.dumps(message, ensure_ascii=False)}\n}}'


def predict(
    name: str, body: str, answer: str, source: int | str, *, path: str = "half_plus", status: int = 200, note: str = ""
) -> RestCase:
    """Returns a case of Predict.

    Args:
      name: what is special about the request.
      body: its body.
      answer: the whole body of the response.
      source: line of `util/json_tensor.cc`, or a file and line.
      path: model, with a version or label if wanted.
      status: HTTP status.
      note: what else a reader should know.
    """
    source = f"{JSON}{source}" if isinstance(source, int) else source
    return RestCase(PREDICT, name, "POST", f"/v1/models/{path}:predict", body, status, source, (answer,), note=note)


def predict_fails(
    name: str, body: str, message: str, source: int | str, *, path: str = "half_plus", status: int = 400, note: str = ""
) -> RestCase:
    """Returns a case of Predict that fails with a message; the arguments are those of `predict`."""
    return predict(name, body, error(message), source, path=path, status=status, note=note)


def rows_of(values: str) -> str:
    """Returns the body for `instances`, to the byte."""
    return f'{{\n    "predictions": [{values}\n    ]\n}}'


def columns_of(*values: str) -> str:
    """Returns the body for `inputs` that are a list, to the byte."""
    lines = ",\n".join(f"        {value}" for value in values)
    return f'{{\n    "outputs": [\n{lines}\n    ]\n}}'


def echo(dtype: str, values: str) -> str:
    """Returns the body of a request to the model `tensors` to echo a list of values."""
    return f'{{"signature_name": "echo_{dtype}", "instances": {values}}}'
