"""The contract as a page for people: `docs/serving-contract.md`, made from the cases that the tests check.

`python -m tests.serving_contract.document` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from google.protobuf import text_format

from tests.serving_contract.configuration import server_flags
from tests.serving_contract.contract import Answer, Failure, RestCase, RpcCase
from tests.serving_contract.inference_cases import inference_cases
from tests.serving_contract.messages import RESPONSES, parse
from tests.serving_contract.model_cases import model_cases
from tests.serving_contract.predict_cases import predict_cases
from tests.serving_contract.reload_cases import ReloadCase, reload_cases
from tests.serving_contract.rest_cases import rest_cases
from tests.serving_contract.rest_predict_answers import rest_predict_answers
from tests.serving_contract.rest_predict_failures import rest_predict_failures

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving-contract.md"

_START = """# The serving contract

Clients of this project's server may be moved to TensorFlow Serving, and back, without noticing. This page lists what
they see: every RPC and REST route, what it answers, and how it fails, with the code and the exact message. It is made
from the cases in `tests/serving_contract`, which a test compares with it; do not edit it but run
`python -m tests.serving_contract.document`.

*Source* is the place in TensorFlow Serving's source, below `tensorflow_serving/`, that decides the answer. Messages are
whole, unless they are marked “contains”: what surrounds those differs by machine or by TensorFlow version, and only the
part that is given is checked (`^` is the message's start). In gRPC answers every field that is not named is unset, so
values are in the field of their type and never in `tensor_content`. ⏎ is the end of a line.

## Check a server

The suite knows servers by their addresses only:

    pytest tests/serving_contract                         # this project's server, started for the tests
    python -m tests.serving_contract.models /tmp/models   # the models and their configuration, for any other
    pytest tests/serving_contract --serving-address localhost:8500 --serving-rest-address localhost:8501 \\
        --serving-models /tmp/models

TensorFlow Serving itself is started on the same models so:

    docker run -p 8500:8500 -p 8501:8501 -v /tmp/models:/tmp/models tensorflow/serving --rest_api_port=8501 \\
{flags}

- The folder must have the same path in the container, since `models.config` holds absolute paths.
- Without `--serving-rest-address` the REST cases are skipped, without `--serving-models` those that change the server's
  configuration. Those end by setting the old configuration again; versions that they made come and go stay listed as
  END.
- Without the metrics or the health service their tests are skipped.
- A model without any version is no case: TensorFlow Serving waits for its first version without end, at the start and
  in HandleReloadConfigRequest alike (model_servers/server_core.cc:439).
- The contract is that of a server without `--enable_batching`. With it, and `/tmp/models/batching.config` for its
  parameters, requests and outputs without a batch dimension of their own fail, and so do those cases.

## The models

| Model | Versions | |
|---|---|---|
| half_plus | 2 (label `stable`), 3 (label `canary`) | x / 2 + version; signatures for Predict, Classify and Regress |
| plain, movable | 4 | x / 2 + 4, one signature |
| tensors | 1 | echoes every data type; sums; outputs of unusual shapes |
| misfits | 1 | signatures that Classify or Regress cannot use |
| recommender | 1 | strings in, strings and numbers out |
| broken | 1, 2 | version 2 is cut off and does not load |
"""


def render() -> str:
    """Returns the page."""
    indent = 8 * " "
    flags = " \\\n".join(indent + flag for flag in server_flags(Path("/tmp/models")))
    parts = [_START.replace("{flags}", flags)]
    cases = [*predict_cases(), *inference_cases(), *model_cases()]
    for rpc, group in groupby(cases, lambda case: case.rpc):
        parts.append(_rpc_section(rpc, list(group)))
    parts.append(_reload_section(reload_cases()))
    rest = [*rest_predict_answers(), *rest_predict_failures(), *rest_cases()]
    for route in dict.fromkeys(case.route for case in rest):
        parts.append(_rest_section(route, [case for case in rest if case.route == route]))
    return "\n".join(parts)


def _rpc_section(rpc: str, cases: list[RpcCase]) -> str:
    failures = [
        (case.name, case.expected.code.name, _message(case.expected), case.source, case.note)
        for case in cases
        if isinstance(case.expected, Failure)
    ]
    answers = [
        (case.name, _outcome(case), case.source, case.note) for case in cases if isinstance(case.expected, Answer)
    ]
    return "\n".join(
        [
            f"## {rpc}\n",
            _table(("Fails when", "Code", "Message", "Source", "Note"), failures),
            _table(("Answers", "With", "Source", "Note"), answers),
        ]
    )


def _reload_section(cases: list[ReloadCase]) -> str:
    rows = [
        (
            case.name,
            "OK" if case.failure is None else case.failure.code.name,
            "" if case.failure is None else _message(case.failure),
            "<br>".join(f"{call.rpc}, {call.name}: {_outcome(call)}" for call in case.then),
            case.source,
            case.note,
        )
        for case in cases
    ]
    columns = ("New configuration", "Code", "Message", "Afterwards", "Source", "Note")
    return "## HandleReloadConfigRequest\n\n" + _table(columns, rows)


def _rest_section(route: str, cases: list[RestCase]) -> str:
    rows = [
        (
            case.name,
            _code(f"{case.method} {case.path}" + (f" {case.body}" if case.body else "")),
            str(case.status),
            " or ".join(_code(body) if body else "empty" for body in case.bodies) or _pattern(case.pattern),
            case.source,
            case.note,
        )
        for case in cases
    ]
    return f"## REST: {route}\n\n" + _table(("Case", "Request", "Status", "Body", "Source", "Note"), rows)


def _outcome(case: RpcCase) -> str:
    if isinstance(case.expected, Failure):
        return f"{case.expected.code.name} {_message(case.expected)}"
    message = parse(case.expected.text, RESPONSES[case.rpc]())
    return _code(text_format.MessageToString(message, as_one_line=True))


def _message(failure: Failure) -> str:
    return _pattern(failure.pattern) if failure.message is None else _code(failure.message)


def _pattern(pattern: str) -> str:
    return f"contains {_code(pattern)}" if pattern else "any"


def _code(text: str) -> str:
    """Returns a text as code in a table's cell: unprintable characters as escapes, long runs shortened."""
    text = re.sub(r"(.)\1{40,}", lambda match: f"{match[1] * 3}⟨… {len(match[0])} in all⟩", text)
    text = text.replace("\n", "⏎")
    text = "".join(json.dumps(character)[1:-1] if not character.isprintable() else character for character in text)
    text = text.replace("|", "\\|")
    ticks = "``" if "`" in text else "`"
    padding = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{ticks}{padding}{text}{padding}{ticks}"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a table; a last column that is empty in every row is left out."""
    rows = list(rows)
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
