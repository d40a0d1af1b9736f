"""The three clients behind one function, since they promise the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pipeline.serving.async_client import AsyncRecommenderClient
from pipeline.serving.client import RecommenderClient
from pipeline.serving.rest_client import RestRecommenderClient

GRPC_CLIENTS = ("blocking", "asynchronous")
CLIENTS = (*GRPC_CLIENTS, "REST")


def ask(client: str, address: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **named: Any):
    """Makes a client, calls one method of it, and closes it."""
    (answer,) = ask_in_turn(client, address, [(method, arguments, named)], options=options)
    return answer


def ask_in_turn(
    client: str,
    address: str,
    calls: Sequence[tuple[str, Sequence[Any], dict[str, Any]]],
    options: dict[str, Any] | None = None,
) -> list[Any]:
    """Makes a client, calls methods of it one after another, and closes it."""
    if client == "asynchronous":

        async def run() -> list[Any]:
            async with AsyncRecommenderClient(address, **(options or {})) as connected:
                return [await getattr(connected, method)(*arguments, **named) for method, arguments, named in calls]

        return asyncio.run(run())
    kind = RestRecommenderClient if client == "REST" else RecommenderClient
    with kind(address, **(options or {})) as connected:
        return [getattr(connected, method)(*arguments, **named) for method, arguments, named in calls]
