"""Load on a model server: a number of connections, each of which asks again as soon as it has its answer.

Run as a process of its own, so that what it costs is not taken for the server's. It measures; it knows no model.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from pydantic import BaseModel

PREDICT = "/tensorflow.serving.PredictionService/Predict"
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # Connections of their own, instead of one that all share.
    ("grpc.max_receive_message_length", -1),
)
_WARM_UP_SECONDS = 0.5
_TIMEOUT_SECONDS = 60.0


class LoadReport(BaseModel):
    """What happened under load.

    Attributes:
      seconds: how long it lasted, from the first request sent to the last answer.
      latencies: seconds of each answered request.
      errors: how often each error was answered, by code and message.
      answers: by request, each answer that it got, in base64; more than one if not always the same bytes came.
    """

    seconds: float
    latencies: list[float]
    errors: dict[str, int]
    answers: list[list[str]]


def run_load(address: str, requests: Sequence[bytes], connections: int, seconds: float) -> LoadReport:
    """Sends requests over and over, after half a second of warming up.

    Args:
      address: the server, as `host:port`.
      requests: serialized PredictRequests; connection n begins with the n-th.
      connections: how many ask at once.
      seconds: how long.
    """
    return asyncio.run(_run_load(address, requests, connections, seconds))


async def _run_load(address: str, requests: Sequence[bytes], connections: int, seconds: float) -> LoadReport:
    latencies: list[float] = []
    errors: dict[str, int] = {}
    answers: list[set[bytes]] = [set() for _ in requests]

    async def ask(position: int, warm_until: float, end: float) -> None:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            # Bytes in, bytes out: what a client makes of them is not the server's time.
            predict = channel.unary_unary(PREDICT)
            while (started := time.perf_counter()) < end:
                try:
                    answer = await predict(requests[position], timeout=_TIMEOUT_SECONDS)
                except grpc.aio.AioRpcError as error:
                    key = f"{error.code().name}: {error.details()}"
                    errors[key] = errors.get(key, 0) + 1
                else:
                    if started >= warm_until:
                        latencies.append(time.perf_counter() - started)
                    answers[position].add(answer)
                position = (position + 1) % len(requests)

    begin = time.perf_counter()
    warm_until = begin + _WARM_UP_SECONDS
    tasks = [ask(n % len(requests), warm_until, warm_until + seconds) for n in range(connections)]
    await asyncio.gather(*tasks)
    return LoadReport(
        seconds=time.perf_counter() - warm_until,
        latencies=latencies,
        errors=errors,
        answers=[[base64.b64encode(answer).decode("ascii") for answer in sorted(known)] for known in answers],
    )


def write_requests(requests: Sequence[bytes], file: Path) -> None:
    """Writes serialized requests for `main`."""
    file.write_text(json.dumps([base64.b64encode(request).decode("ascii") for request in requests]), encoding="ascii")


def main() -> None:
    """Puts load on a server and writes what happened."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("address", help="host:port")
    parser.add_argument("requests", type=Path, help="what `write_requests` wrote")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("output", type=Path, help="JSON file to write")
    chosen = parser.parse_args()
    requests = [base64.b64decode(text) for text in json.loads(chosen.requests.read_text(encoding="ascii"))]
    report = run_load(chosen.address, requests, chosen.connections, chosen.seconds)
    chosen.output.write_text(report.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
