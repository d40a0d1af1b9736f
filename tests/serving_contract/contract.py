"""What a case of the serving contract is: a request and what TensorFlow Serving answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import grpc
from google.protobuf.message import Message


@dataclasses.dataclass(frozen=True)
class Failure:
    """The error that a call must end with.

    Attributes:
      code: gRPC status code.
      message: the whole message; None where `pattern` says what is known of it.
      pattern: regular expression that must be found in the message, for texts that hold what differs by machine or
        by TensorFlow version.
    """

    code: grpc.StatusCode
    message: str | None = None
    pattern: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The response that a call must give.

    Attributes:
      text: the whole response as a text proto; numbers are exact, and fields not named must be unset.
    """

    text: str


@dataclasses.dataclass(frozen=True)
class RpcCase:
    """A gRPC call and how it ends.

    Attributes:
      rpc: name of the method.
      name: what is special about the request, for people.
      request: makes the request.
      expected: how the call ends.
      source: file and line in TensorFlow Serving's source, below `tensorflow_serving/`, that decides it.
      note: what else a reader should know.
    """

    rpc: str
    name: str
    request: Callable[[], Message]
    expected: Failure | Answer
    source: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class RestCase:
    """An HTTP request and its response.

    Attributes:
      route: kind of request, which the documentation groups by.
      name: what is special about the request, for people.
      method: HTTP method.
      path: request target, sent as it is.
      body: request body.
      status: HTTP status of the response.
      bodies: the response bodies that are right, each whole; more than one where a map's order decides. Empty where
        `pattern` says what is known.
      pattern: regular expression that must be found in the body.
      source: file and line in TensorFlow Serving's source, below `tensorflow_serving/`, that decides it.
      note: what else a reader should know.
    """

    route: str
    name: str
    method: str
    path: str
    body: str
    status: int
    source: str
    bodies: tuple[str, ...] = ()
    pattern: str = ""
    note: str = ""
