"""JSON requests: what TensorFlow Serving's parser accepts, and its words for what it does not.

The standard library parses; only where it refuses, a scan by RapidJSON's rules finds out the message and the offset.
What it takes and RapidJSON does not, halves of surrogate pairs and numbers too large for a double, is looked for in
passes over the whole text that cost little, and never value by value. Three things differ from the
standard and are honoured: `NaN`, `Inf`, `Infinity` and their negatives are numbers, what follows the first value is
ignored, and of several members with one name the first counts. Strings keep bytes that are not UTF-8 by way of
`surrogateescape`.

Source: `ParseJson` in `util/json_tensor.cc`, RapidJSON's `reader.h` and `error/en.h`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.server.json_writing import as_bytes, as_text, debug_text

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_LITERALS = re.compile(_STRING + r"|-?NaN|Inf(?:inity)?", re.DOTALL)
_NUMBERS = re.compile(_STRING + r"|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)", re.DOTALL)
_STRING_BODY = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX_DIGITS = re.compile(rb"[0-9a-fA-F]{4}")
_DIGITS = re.compile(rb"[0-9]*")
_UNPAIRED_SURROGATE = re.compile(
    # The first half without a second behind it, or the second without a first before it.
    rb"\\u[dD](?:[89abAB](?!..\\u[dD][c-fC-F])|[c-fC-F](?<!\\u[dD][89abAB]..\\u[dD].))",
    re.DOTALL,
)
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789E", b"000000000e")
_LARGE_NUMBERS = (b"0" * 200, b"0e000", b"0e+000")
"""What a number of 1e299 or more has one of, once its digits are zeros."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object that a request's body holds.

    Raises:
      StatusError: INVALID_ARGUMENT if it holds none.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    # An escaped backslash begins no escape, and does not bring two halves together either.
    if b"\\u" in body and _UNPAIRED_SURROGATE.search(body.replace(b"\\\\", b"  ")):
        _Scanner(body).scan()
    value = _parse(body)
    if not isinstance(value, dict):
        raise invalid_argument(f"JSON Value: {debug_text(value)} Is not object")
    return value


def _parse(body: bytes) -> Any:
    text = as_text(body.removeprefix(_BYTE_ORDER_MARK)).lstrip(" \t\r\n")
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise invalid_argument("JSON Parse error: The document is nested too deeply.") from None
        _Scanner(body).scan()
    else:
        _check_numbers(body, text, end)
        return value
    # The scan found nothing wrong: it is a spelling of NaN or infinity that the standard library does not know.
    spellings = {"-NaN": "NaN", "Inf": "Infinity"}
    try:
        return _DECODER.raw_decode(_LITERALS.sub(lambda match: spellings.get(match[0], match[0]), text))[0]
    except ValueError as error:
        offset = getattr(error, "pos", 0)
        raise invalid_argument(f"JSON Parse error: Invalid value. at offset: {offset}") from None


def _check_numbers(body: bytes, text: str, end: int) -> None:
    """Refuses numbers that are too large for a double, which Python reads as infinite or as a long integer.

    Args:
      body: what was sent.
      text: the same from its first value on.
      end: where that value ends in the text; it is known to be JSON.

    Raises:
      StatusError: INVALID_ARGUMENT if there is one.
    """
    zeros = body.translate(_DIGITS_AS_ZEROS)
    if not any(large in zeros for large in _LARGE_NUMBERS):
        return
    for match in _NUMBERS.finditer(text, 0, end):
        if match["number"] and math.isinf(float(match["number"])):
            offset = len(body) - len(as_bytes(text[match.start() :]))
            raise invalid_argument(f"JSON Parse error: Number too big to be stored in double. at offset: {offset}")


def _first_of_each(members: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(members)
    return result if len(result) == len(members) else dict(reversed(members))


_DECODER = json.JSONDecoder(object_pairs_hook=_first_of_each)


class _Scanner:
    """Follows RapidJSON's iterative parser over a document, to the first error."""

    def __init__(self, body: bytes):
        self._body = body + b"\0"  # The end reads as a zero byte; so does a zero byte, as an end.
        self._position = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0

    def scan(self) -> None:
        """Reads the first value.

        Raises:
          StatusError: INVALID_ARGUMENT with the error and its offset in bytes.
        """
        self._skip_space()
        if self._peek() == b"\0":
            raise self._error("The document is empty.")
        closers: list[bytes] = []  # Of the containers that are open.
        self._read_value(closers)
        while closers:
            self._skip_space()
            if self._peek() == closers[-1]:
                self._position += 1
                closers.pop()
            elif self._peek() == b",":
                self._position += 1
                self._skip_space()
                if closers[-1] == b"}":
                    self._read_name()
                self._read_value(closers)
            elif closers[-1] == b"}":
                raise self._error("Missing a comma or } after an object member.")
            else:
                raise self._error("Missing a comma or ] after an array element.")

    def _read_value(self, closers: list[bytes]) -> None:
        """Reads a value; of containers, what comes before their first comma or their end."""
        while True:
            self._skip_space()
            first = self._peek()
            if first == b"{":
                self._position += 1
                self._skip_space()
                if self._peek() == b"}":
                    self._position += 1
                    return
                self._read_name()
                closers.append(b"}")
            elif first == b"[":
                self._position += 1
                self._skip_space()
                if self._peek() == b"]":
                    self._position += 1
                    return
                closers.append(b"]")
            else:
                self._read_scalar(first)
                return

    def _read_name(self) -> None:
        if self._peek() != b'"':
            raise self._error("Missing a name for object member.")
        self._read_string()
        self._skip_space()
        if self._peek() != b":":
            raise self._error("Missing a colon after a name of object member.")
        self._position += 1

    def _read_scalar(self, first: bytes) -> None:
        if first == b'"':
            self._read_string()
        elif first in (b"t", b"f", b"n"):
            self._read_word({b"t": b"true", b"f": b"false", b"n": b"null"}[first])
        else:
            self._read_number()

    def _read_string(self) -> None:
        self._position += 1
        while True:
            match = _STRING_BODY.match(self._body, self._position)
            assert match is not None
            self._position = match.end()
            following = self._peek()
            if following == b'"':
                self._position += 1
                return
            if following == b"\0":
                raise self._error("Missing a closing quotation mark in string.")
            if following != b"\\":
                raise self._error("Invalid encoding in string.")
            self._read_escape()

    def _read_escape(self) -> None:
        start = self._position
        letter = self._body[start + 1 : start + 2]
        if letter and letter in b'"\\/bfnrt':
            self._position += 2
            return
        if letter != b"u":
            raise self._error("Invalid escape character in string.", start)
        code = self._read_hex(start)
        if 0xD800 <= code <= 0xDFFF:
            paired = code <= 0xDBFF and self._body[self._position : self._position + 2] == b"\\u"
            if not paired or not 0xDC00 <= self._read_hex(start) <= 0xDFFF:
                raise self._error("The surrogate pair in string is invalid.", start)

    def _read_hex(self, start: int) -> int:
        match = _HEX_DIGITS.match(self._body, self._position + 2)
        if match is None:
            raise self._error("Incorrect hex digit after \\u escape in string.", start)
        self._position = match.end()
        return int(match[0], 16)

    def _read_number(self) -> None:
        start = self._position
        if self._peek() == b"-":
            self._position += 1
        if self._peek() == b"N":
            self._read_word(b"NaN")
            return
        if self._peek() == b"I":
            self._read_word(b"Inf")
            if self._peek() == b"i":
                self._read_word(b"inity")
            return
        if self._peek() == b"0":
            self._position += 1
        else:
            self._read_digits("Invalid value.")
        if self._peek() == b".":
            self._position += 1
            self._read_digits("Miss fraction part in number.")
        if self._peek() in (b"e", b"E"):
            self._position += 1
            if self._peek() in (b"+", b"-"):
                self._position += 1
            self._read_digits("Miss exponent in number.")
        if math.isinf(float(self._body[start : self._position])):
            raise self._error("Number too big to be stored in double.", start)

    def _read_word(self, word: bytes) -> None:
        for letter in word:
            if self._body[self._position] != letter:
                raise self._error("Invalid value.")
            self._position += 1

    def _read_digits(self, otherwise: str) -> None:
        match = _DIGITS.match(self._body, self._position)
        assert match is not None
        if not match[0]:
            raise self._error(otherwise)
        self._position = match.end()

    def _peek(self) -> bytes:
        return self._body[self._position : self._position + 1]

    def _skip_space(self) -> None:
        while self._body[self._position] in _SPACE:
            self._position += 1

    def _error(self, message: str, offset: int | None = None) -> StatusError:
        return invalid_argument(
            f"JSON Parse error: {message} at offset: {self._position if offset is None else offset}"
        )
