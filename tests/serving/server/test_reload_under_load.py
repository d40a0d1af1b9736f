"""Versions change under load, over a socket: no request fails, and each is answered by what is served."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
from tensorflow_serving.apis import get_model_status_pb2

from tests.serving.saved_models import export_recommender, publish
from tests.serving.server.servers import connected, request, running_server
from tests.serving.server.text_models import wait_until


def test_reloads_under_load_without_a_failed_request(tmp_path: Path):
    models = [export_recommender(tmp_path / first, first=first) for first in ("i1", "i2")]
    base_path = tmp_path / "recommender"
    publish(models[1], base_path, 1)
    answers: list[tuple[int, bytes]] = []
    failures: list[grpc.RpcError] = []
    stop = threading.Event()

    def ask(address: str) -> None:
        with connected(address) as stubs:
            while not stop.is_set():
                try:
                    response = stubs.prediction.Predict(request("recommender", examples=[b""]))
                except grpc.RpcError as error:
                    failures.append(error)
                    continue
                first = response.outputs["item_ids"].string_val[0]
                answers.append((response.model_spec.version.value, first))

    with (
        running_server(
            model_base_path=str(base_path), model_name="recommender", file_system_poll_wait_seconds=0.05
        ) as server,
        connected(server.address) as stubs,
    ):
        threads = [threading.Thread(target=ask, args=(server.address,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for version in (2, 3, 4):
            publish(models[version % 2], base_path, version)
            wait_until(lambda version=version: any(answered == version for answered, _ in answers))  # type: ignore[misc]
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert {version for version, _ in answers} == {1, 2, 3, 4}
        assert all(first == (b"i1", b"i2")[version % 2] for version, first in answers)
        status = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "recommender"})

        def states() -> list[tuple[int, int]]:
            return [(one.version, one.state) for one in stubs.models.GetModelStatus(status).model_version_status]

        wait_until(lambda: states() == [(4, 30), (3, 50), (2, 50), (1, 50)])
