"""A server that speaks the part of Kubeflow Pipelines' v2beta1 API that is used, over a real socket.

Its answers have the shapes of the API's description, which the models of `kfp_server_api` are made from; a test checks
them against these models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

PREFIX = "/apis/v2beta1/"
CREATED = "2026-01-02T03:04:05Z"

Answer = tuple[int, str, bytes]
"""Status, content type, body."""


@dataclasses.dataclass
class Cluster:
    """What the server knows and has been asked.

    Attributes:
      url: its address.
      token: the only token that it lets in; None to let everyone in.
      experiments, runs, schedules: what there is, by id.
      requests: method, path and body of every request.
      states: what a run answers one after the other when asked how it is; the last one stays.
      steps: the tasks of a run at each of these moments, as the API gives them.
      intercept: is asked for an answer first; None to go on as usual.
    """

    url: str = ""
    token: str | None = None
    experiments: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = dataclasses.field(default_factory=list)
    states: list[str] = dataclasses.field(default_factory=lambda: ["SUCCEEDED"])
    steps: list[list[dict[str, Any]]] = dataclasses.field(default_factory=lambda: [[]])
    intercept: Callable[[str, str], Answer | None] = lambda method, path: None

    def posted(self, kind: str) -> list[Any]:
        """Returns the bodies of the requests that made something of a kind, e.g. `runs`."""
        return [body for method, path, body in self.requests if (method, path) == ("POST", PREFIX + kind)]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Returns the document that answers a request, or None if there is no such thing."""
        kind, _, rest = path.removeprefix(PREFIX).partition("/")
        if (method, kind) == ("GET", "healthz"):
            return {"multi_user": False}
        if kind == "experiments":
            return self._experiments(method, query, body)
        if kind == "runs":
            if method == "POST":
                return self._add(self.runs, "run_id", {**body, "state": "PENDING", "created_at": CREATED})
            return self._run_now(rest) if rest in self.runs else None
        if kind == "recurringruns":
            return self._schedules(method, rest, query, body)
        return None

    def _experiments(self, method: str, query: dict[str, list[str]], body: Any) -> Any:
        if method == "POST":
            return self._add(self.experiments, "experiment_id", {**body, "created_at": CREATED})
        (predicate,) = json.loads(query["filter"][0])["predicates"]
        wanted = predicate.get("stringValue") or predicate["string_value"]
        found = [one for one in self.experiments.values() if one["display_name"] == wanted]
        return {"experiments": found, "total_size": len(found)} if found else {}

    def _schedules(self, method: str, rest: str, query: dict[str, list[str]], body: Any) -> Any:
        if method == "POST" and not rest:
            status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
            return self._add(self.schedules, "recurring_run_id", {**body, "status": status, "created_at": CREATED})
        if method == "GET" and not rest:
            everything = list(self.schedules.values())
            size, start = int(query["page_size"][0]), int((query.get("page_token") or ["0"])[0] or 0)
            end = start + size
            more = {"next_page_token": str(end)} if end < len(everything) else {}
            return {"recurringRuns": everything[start:end], "total_size": len(everything), **more}
        name, _, verb = rest.partition(":")
        if name not in self.schedules:
            return None
        if method == "DELETE":
            del self.schedules[name]
        else:
            self.schedules[name]["status"] = {"enable": "ENABLED", "disable": "DISABLED"}[verb]
        return {}

    def _run_now(self, run_id: str) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        steps = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        error = {"error": {"code": 9, "message": "a step failed"}} if state == "FAILED" else {}
        return {**self.runs[run_id], "state": state, "run_details": {"task_details": steps}, **error}

    @staticmethod
    def _add(table: dict[str, dict[str, Any]], key: str, document: dict[str, Any]) -> dict[str, Any]:
        identity = f"{key.removesuffix('_id')}-{len(table) + 1}"
        table[identity] = {**document, key: identity}
        return table[identity]


def step(name: str, state: str, error: str = "", start: str = CREATED) -> dict[str, Any]:
    """Returns a task of a run as the API gives it."""
    failure = {"error": {"code": 9, "message": error}} if error else {}
    return {"task_id": name, "display_name": name, "state": state, "start_time": start, **failure}


@contextlib.contextmanager
def serve(cluster: Cluster) -> Iterator[Cluster]:
    """Serves a cluster on a free port of this machine while the block runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_DELETE(self) -> None:
            self._answer("DELETE")

        def _answer(self, method: str) -> None:
            url = urllib.parse.urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            body = json.loads(text) if text and text != b"null" else None
            status, kind, content = self._decide(method, url, body)
            cluster.requests.append((method, url.path, body))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _decide(self, method: str, url: urllib.parse.SplitResult, body: Any) -> Answer:
            intercepted = cluster.intercept(method, url.path)
            if intercepted is not None:
                return intercepted
            if cluster.token is not None and self.headers.get("Authorization") != f"Bearer {cluster.token}":
                return 401, "application/json", b'{"error": "Unauthenticated", "code": 16, "message": "no valid token"}'
            document = cluster.answer(method, url.path, urllib.parse.parse_qs(url.query), body)
            if document is None:
                return 404, "application/json", b'{"code": 5, "message": "not found"}'
            return 200, "application/json", json.dumps(document).encode()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
