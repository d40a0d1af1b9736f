"""Which JSON is taken, and the words and offsets for what is not."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import classification_pb2, meta_graph_pb2, predict_pb2, types_pb2
from pipeline.serving.server.json_examples import read_examples_request
from pipeline.serving.server.json_parsing import _Scanner, parse_object
from pipeline.serving.server.json_tensors import read_predict_request


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The document is empty"),  # Found before RapidJSON is asked, hence without its full stop.
        (b"  ", "The document is empty. at offset: 2"),
        (b"instances = [1, 2]", "Invalid value. at offset: 0"),
        (b'{"a": }', "Invalid value. at offset: 6"),
        (b'{"a"', "Missing a colon after a name of object member. at offset: 4"),
        (b'{"a": 1', "Missing a comma or } after an object member. at offset: 7"),
        (b'{"a": 1 "b": 2}', "Missing a comma or } after an object member. at offset: 8"),
        (b'{"a": [1 2]}', "Missing a comma or ] after an array element. at offset: 9"),
        (b'{"a": [1,]}', "Invalid value. at offset: 9"),
        (b"{1: 2}", "Missing a name for object member. at offset: 1"),
        (b'{"a": 1,}', "Missing a name for object member. at offset: 8"),
        (b'{"a": "b', "Missing a closing quotation mark in string. at offset: 8"),
        (b'{"a": "\x01"}', "Invalid encoding in string. at offset: 7"),
        (b'{"a": "b\\x"}', "Invalid escape character in string. at offset: 8"),
        (b'{"a": "\\u12g4"}', "Incorrect hex digit after \\u escape in string. at offset: 7"),
        (b'{"a": "\\ud800"}', "The surrogate pair in string is invalid. at offset: 7"),
        (b'{"a": "\\udc00\\ud800"}', "The surrogate pair in string is invalid. at offset: 7"),
        (b'{"a": 1.}', "Miss fraction part in number. at offset: 8"),
        (b'{"a": 1e}', "Miss exponent in number. at offset: 8"),
        (b'{"a": -}', "Invalid value. at offset: 7"),
        (b'{"a": 01}', "Missing a comma or } after an object member. at offset: 7"),
        (b'{"a": trUe}', "Invalid value. at offset: 8"),
        (b'{"a": Infinite}', "Invalid value. at offset: 13"),
        (b'{"a": "\\ud83d\\\\\\ude00"}', "The surrogate pair in string is invalid. at offset: 7"),
        (b'{"a": "\\\\ud83d\\ude00"}', "The surrogate pair in string is invalid. at offset: 14"),
        (b'{"a": "\\ud83d\\ude00\\ude00"}', "The surrogate pair in string is invalid. at offset: 19"),
        (b'{"a": "\\ud83d\\ud83d\\ude00"}', "The surrogate pair in string is invalid. at offset: 7"),
        (b'{"a": ' + b"9" * 400 + b"}", "Number too big to be stored in double. at offset: 6"),
        (b'\xef\xbb\xbf {"a": ["\xc3\xa9", -' + b"9" * 309 + b"]}",
         "Number too big to be stored in double. at offset: 17"),
        (b'{"a": Infinity, "b": 1E+309}', "Number too big to be stored in double. at offset: 21"),
        (b'{"a": -Inf, "b": 1e999}', "Number too big to be stored in double. at offset: 17"),
        (b'{"a": ' + b"9" * 300 + b".5e9}", "Number too big to be stored in double. at offset: 6"),
        (b"[1e999]", "Number too big to be stored in double. at offset: 1"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Number too big to be stored in double. at offset: 6"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_explained(body: bytes, message: str):
    with pytest.raises(StatusError) as raised:
        parse_object(body)
    assert raised.value.message == f"JSON Parse error: {message}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1, 2]", "JSON Value: [1, 2] Is not object"),
        (b"null", "JSON Value: null Is not object"),
        (b"1e30", "JSON Value: 1e30 Is not object"),
        (b"123456789012345678901234567890", "JSON Value: 1.2345678901234568e29 Is not object"),
        (
            b"[1e20, 0.00001, -2.5e-7, 1.5e21]",
            "JSON Value: [100000000000000000000.0, 0.00001, -2.5e-7, 1.5e21] Is not object",
        ),
        (b'["a\\n\\u0001\xc3\xa9"]', 'JSON Value: ["a\\n\\u0001é"] Is not object'),
        (b"[1, NaN, 2]", "JSON Value: [1,  Is not object"),  # The writer there stops at what has no JSON.
    ],
)
def test_another_value_than_an_object_is_refused(body: bytes, message: str):
    with pytest.raises(StatusError) as raised:
        parse_object(body)
    assert raised.value.message == message


def test_long_values_are_cut_in_messages():
    with pytest.raises(StatusError) as raised:
        parse_object(json.dumps(list(range(1000))).encode())
    assert 256 <= len(raised.value.message.removeprefix("JSON Value: ").removesuffix(" Is not object")) <= 262


@pytest.mark.parametrize(
    "text",
    [
        '{"a": Infinity, "b": 1.7e308}',
        f'{{"a": {"9" * 308}, "b": "{"9" * 400}"}}',
        '{"a": "1e999", "b": "\\"1e999"}',
        '{"a": 1e-999, "1e999": 0}',
        f'{{"a": 0.{"1" * 400}}}',
        '{"a": 1} 1e999',
    ],
)
def test_numbers_that_only_look_too_large_are_taken(text: str):
    value, _ = json.JSONDecoder().raw_decode(text)
    assert parse_object(text.encode()) == value


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the size of each text that is scanned in Python."""
    sizes: list[int] = []
    scan = _Scanner.scan

    def counted(scanner: _Scanner) -> None:
        sizes.append(len(scanner._body))
        scan(scanner)

    monkeypatch.setattr(_Scanner, "scan", counted)
    return sizes


def test_escaped_surrogate_pairs_need_no_scan(scans: list[int]):
    text = json.dumps({"a": ["\U0001f600", "\\\U0001f600\U0001f600\\\\", "\\ud83d", "\\ude00"]})
    assert parse_object(text.encode()) == json.loads(text)
    assert parse_object(text.upper().replace("\\U", "\\u").encode()) is not None
    assert scans == []


@pytest.mark.parametrize(("infinity", "most"), [("Infinity", 0), ("Inf", 1), ("NaN", 0), ("-NaN", 1)])
@pytest.mark.parametrize("rows", ["[{}], [{}]", "[{}], [[{}]]"])
def test_a_request_is_scanned_once_however_often_it_says_infinity(
    scans: list[int], infinity: str, most: int, rows: str
):
    values = ", ".join([infinity] * 100)
    request = classification_pb2.ClassificationRequest()
    read_examples_request(f'{{"examples": [{{"a": [{values}]}}]}}'.encode(), request)
    assert len(request.input.example_list.examples[0].features.feature["a"].float_list.value) == 100
    assert len(scans) <= most
    scans.clear()
    body = f'{{"instances": [{rows.format(values, values)}]}}'
    infos = {"x": meta_graph_pb2.TensorInfo(dtype=types_pb2.DT_FLOAT)}
    # The second row of the ragged request is found out once the first has been walked element by element.
    with contextlib.suppress(StatusError):
        read_predict_request(body.encode(), predict_pb2.PredictRequest(), lambda name: infos)
    assert len(scans) <= most


_ESCAPES = st.lists(st.sampled_from(["\\ud83d", "\\uDE00", "\\\\", "\\n", "\\u00e9", "ud83d", "x", '\\"']), max_size=7)


@hypothesis.given(_ESCAPES)
def test_exactly_the_unpaired_surrogates_are_refused(pieces: list[str]):
    body = f'{{"a": "{"".join(pieces)}"}}'.encode()

    def outcome(read: Callable[[], object]) -> str:
        try:
            read()
        except StatusError as error:
            return error.message
        return "taken"

    assert outcome(lambda: parse_object(body)) == outcome(_Scanner(body).scan)


def test_numbers_that_json_does_not_know_are_taken():
    values = parse_object(b'{"a": [NaN, -NaN, Inf, -Inf, Infinity, -Infinity], "b": "-NaN and Inf, \\" Inf"} trailing')
    assert [math.isnan(value) for value in values["a"][:2]] == [True, True]
    assert values["a"][2:] == [math.inf, -math.inf, math.inf, -math.inf]
    assert values["b"] == '-NaN and Inf, " Inf'


def test_of_members_with_one_name_the_first_counts():
    assert parse_object(b'{"a": 1, "b": {"c": 2, "c": 3}, "a": 4}') == {"a": 1, "b": {"c": 2}}


def test_a_byte_order_mark_is_skipped():
    assert parse_object(b'\xef\xbb\xbf {"a": 1}') == {"a": 1}


def test_deep_nesting_is_refused_and_not_fatal():
    with pytest.raises(StatusError, match="nested too deeply"):
        parse_object(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=4),
    max_leaves=10,
)


@hypothesis.given(st.dictionaries(st.text(max_size=3), _DOCUMENTS, max_size=4), st.booleans())
def test_every_document_is_read_as_written(document: dict, ascii_only: bool):
    text = json.dumps(document, ensure_ascii=ascii_only)
    assert parse_object(text.encode()) == document


@hypothesis.given(_DOCUMENTS, st.data())
def test_the_scan_agrees_with_the_standard_library(document: object, data: st.DataObject):
    """On damaged texts, too: what the one refuses the other explains, and what it takes the other passes."""
    text = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, max(len(text) - 1, 0)))
        replacement = data.draw(
            st.sampled_from([b"", b",", b'"', b"[", b"}", b":", b"0", b"-", b".", b"e", b" ", b"\\"])
        )
        text[position : position + 1] = replacement
    body = bytes(text)
    try:
        json.JSONDecoder().raw_decode(body.decode("utf-8", "replace").lstrip(" \t\r\n"))
        is_json = True
    except ValueError:
        is_json = False
    try:
        _Scanner(body).scan()
        passes = True
    except StatusError as error:
        # The standard library takes numbers of any size, and reads of "0.e" and "1-" the part that it understands.
        hypothesis.assume("too big" not in error.message and "in number" not in error.message)
        passes = False
    assert passes == is_json
