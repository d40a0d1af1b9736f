"""JSON text as TensorFlow Serving writes it: four spaces of indentation, and its own rules for decimals.

Text that came as bytes is held as `str` with `surrogateescape`, so that bytes which are not UTF-8 pass unchanged, as
they do there. Source: `WriteDecimal` and the writer options in `util/json_tensor.cc`; RapidJSON's `PrettyWriter`.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

import numpy as np

INDENTATION = "    "
DEBUG_TEXT_LIMIT = 256
"""Bytes after which a value that is quoted in an error message is cut off."""

_SPECIAL = re.compile(r'["\\\x00-\x1f]')
_ESCAPES = {chr(code): f"\\u{code:04X}" for code in range(0x20)} | {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_SIGNIFICANT_DIGITS = {np.dtype(np.float32): 9, np.dtype(np.float64): 17}


def quote(text: str) -> str:
    """Returns text as a JSON string."""
    return f'"{_SPECIAL.sub(lambda match: _ESCAPES[match[0]], text)}"'


def as_text(value: bytes) -> str:
    """Returns bytes as text from which `as_bytes` makes the same bytes again, valid UTF-8 or not."""
    return value.decode("utf-8", "surrogateescape")


def as_bytes(text: str) -> bytes:
    """Returns text as UTF-8, and as they were the bytes that were none."""
    return text.encode("utf-8", "surrogateescape")


def decimals(values: np.ndarray) -> list[str]:
    """Returns each float as the shortest of six digits or full precision that reads back as the same value.

    Whole numbers end in `.0`, so that a reader does not take them for integers; `NaN`, `Infinity` and `-Infinity` are
    written as such, which JSON itself does not know.

    Args:
      values: `[N]`, float32 or float64.
    """
    numbers = values.tolist()
    texts = [f"{number:g}" for number in numbers]
    read_back = np.array([float(text) for text in texts]).astype(values.dtype)
    digits = _SIGNIFICANT_DIGITS[values.dtype]
    for position in np.flatnonzero(read_back != values).tolist():
        texts[position] = f"{numbers[position]:.{digits}g}"
    if not np.isfinite(values).all():
        for position in np.flatnonzero(~np.isfinite(values)).tolist():
            number = numbers[position]
            texts[position] = "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        return [text if "." in text or "e" in text or text[-1] in "Ny" else f"{text}.0" for text in texts]
    return [text if "." in text or "e" in text else f"{text}.0" for text in texts]


def error_text(message: str) -> str:
    """Returns the body of an answer that reports an error."""
    return f'{{\n{INDENTATION}"error": {quote(message)}\n}}'


def debug_text(value: Any) -> str:
    """Returns a parsed JSON value for an error message, cut off once it is longer than 256 bytes."""
    writer = _DebugWriter()
    with contextlib.suppress(_LimitReached):
        writer.write(value, 0)
    return "".join(writer.pieces)


class _LimitReached(Exception):
    """The text is long enough."""


class _DebugWriter:
    """Writes arrays on one line and objects over several, until the limit is reached."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._size = 0

    def write(self, value: Any, level: int, prefix: str = "") -> None:
        if isinstance(value, dict):
            self._put(f"{prefix}{{")
            for position, (name, member) in enumerate(value.items()):
                self._put(f"{',' if position else ''}\n{INDENTATION * (level + 1)}{quote(name)}")
                self.write(member, level + 1, ": ")
            self._put(f"\n{INDENTATION * level}}}" if value else "}")
        elif isinstance(value, list):
            self._put(f"{prefix}[")
            for position, element in enumerate(value):
                self.write(element, level + 1, ", " if position else "")
            self._put("]")
        elif isinstance(value, float) and not math.isfinite(value):
            self._put(prefix)
            raise _LimitReached  # The writer there has no text for it, and stops.
        else:
            self._put(prefix + _scalar(value))

    def _put(self, text: str) -> None:
        if self._size >= DEBUG_TEXT_LIMIT:
            raise _LimitReached
        self.pieces.append(text)
        self._size += len(as_bytes(text))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return str(value)
    return _shortest_double(float(value))


def _shortest_double(number: float) -> str:
    """Returns the shortest text that reads back as the same double, as RapidJSON lays it out."""
    text = repr(number)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        # Python turns to an exponent at 1e16 and below 1e-4; RapidJSON above 1e21 and below 1e-6.
        return text
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    point = int(exponent) + 1  # Position of the decimal point, counted from the first digit.
    if len(digits) <= point <= 21:
        return f"{sign}{digits}{'0' * (point - len(digits))}.0"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{int(exponent)}"
