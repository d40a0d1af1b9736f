"""The connection to Kubeflow Pipelines: whom to ask, as whom, for how long, and what went wrong in plain words."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfp import Client

TOKEN_VARIABLE = "MARQUEE_KUBEFLOW_TOKEN"
SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
"""Where a pod finds the token of its identity, unless `KF_PIPELINES_SA_TOKEN_PATH` says otherwise."""

CONNECT_SECONDS, READ_SECONDS = 5, 60
_NO_NAMESPACE = "-"
_MOST_CHARACTERS = 300
_SAY_TOKEN = f"give a valid one with --token-file or in the environment variable {TOKEN_VARIABLE}"


class ClusterError(RuntimeError):
    """Kubeflow Pipelines cannot be reached, refuses, or answers what it never would.

    Attributes:
      passing: whether the same request may succeed a little later.
    """

    def __init__(self, message: str, passing: bool = False):
        super().__init__(message)
        self.passing = passing


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where Kubeflow Pipelines is, and as whom it is asked.

    Attributes:
      host: URL of its API, e.g. `https://kubeflow.example.com/pipeline`.
      namespace: the user's namespace, where the cluster is shared by several; None where it is not.
      token_file: file with a bearer token; None for the environment's, or the identity of the pod.
      ca_file: certificates that the server's is checked against; None for the system's.
    """

    host: str
    namespace: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None


def connect(endpoint: Endpoint) -> Client:
    """Returns a client whose requests end in time, after a first one that shows that the server is what it should be.

    Raises:
      ClusterError: if kfp is missing, the token cannot be read, or the server cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import kfp
            from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
    except ImportError as error:
        raise ClusterError("the Kubeflow Pipelines SDK is missing: install the extra `marquee[kubeflow]`") from error
    token = _read_token(endpoint.token_file)
    volume = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or SERVICE_ACCOUNT_TOKEN
    credentials = ServiceAccountTokenVolumeCredentials(volume) if token is None and os.path.exists(volume) else None
    with quietly(), explained(endpoint.host):
        client = kfp.Client(
            host=endpoint.host,
            # Without one the client asks the server at once, with no time limit and for half a minute.
            namespace=endpoint.namespace or _NO_NAMESPACE,
            existing_token=token,
            credentials=credentials,
            ssl_ca_cert=str(endpoint.ca_file) if endpoint.ca_file else None,
        )
        client._context_setting["namespace"] = endpoint.namespace or ""
        _limit_time(client)
        _check_server(client, endpoint.host)
    return client


@contextlib.contextmanager
def explained(host: str) -> Iterator[None]:
    """Turns what a request may raise into a `ClusterError` in plain words."""
    from kfp_server_api.exceptions import ApiException
    from urllib3 import exceptions as http

    try:
        yield
    except ClusterError:
        raise
    except ApiException as error:
        raise _describe_refusal(host, error) from error
    except http.MaxRetryError as error:
        raise _describe_failure(host, error.reason or error) from error
    except (http.HTTPError, OSError) as error:
        raise _describe_failure(host, error) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps kfp from printing links and warnings of its own."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _read_token(token_file: Path | None) -> str | None:
    if token_file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"--token-file: cannot read {token_file}: {error}") from error
    if not token:
        raise ClusterError(f"--token-file: {token_file} is empty; expected a token")
    return token


def _limit_time(client: Client) -> None:
    """Gives each request a time limit, which kfp's client has none of and no option for."""
    rest = client._run_api.api_client.rest_client
    request = rest.request

    def limited(*arguments: Any, **named: Any) -> Any:
        named["_request_timeout"] = named.get("_request_timeout") or (CONNECT_SECONDS, READ_SECONDS)
        return request(*arguments, **named)

    rest.request = limited


def _check_server(client: Client, host: str) -> None:
    # Its name differs between the versions of the generated API.
    healthz = getattr(client._healthz_api, "healthz_service_get_healthz", None) or client._healthz_api.get_healthz
    answer = healthz(_preload_content=False)
    body = answer.data.decode("utf-8", "replace")
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        login = " (a page: is it a login page, so that a token is missing?)" if "<html" in body.lower() else ""
        raise ClusterError(
            f"{host} does not answer as Kubeflow Pipelines does{login}: received {_shortened(body)!r}; "
            "expected JSON. The host must be that of the API, e.g. https://…/pipeline"
        )


def _describe_refusal(host: str, error: Any) -> ClusterError:
    told = _message_of(error.body)
    if error.status == 401:
        return ClusterError(f"{host} does not know who asks (401 {told}): {_SAY_TOKEN}")
    if error.status == 403:
        return ClusterError(
            f"{host} refuses (403 {told}): the identity may not do this in this namespace; choose another with "
            f"--namespace, or {_SAY_TOKEN}"
        )
    if error.status == 404:
        return ClusterError(
            f"{host} has no such thing (404 {told}); expected the API of Kubeflow Pipelines 2, below /apis/v2beta1"
        )
    return ClusterError(f"{host} answers {error.status} {told}", passing=error.status in (429, 500, 502, 503, 504))


def _describe_failure(host: str, error: BaseException) -> ClusterError:
    from urllib3 import exceptions as http

    text = _shortened(str(error))
    if isinstance(error, http.SSLError) or "SSL" in text or "certificate" in text.lower():
        return ClusterError(f"{host}: no secure connection: {text}; is the certificate right, or a --ca-file missing?")
    # A refused connection is a kind of timeout to some versions of urllib3.
    if isinstance(error, http.ConnectTimeoutError) and not isinstance(error, http.NewConnectionError):
        return ClusterError(f"{host} does not answer within {CONNECT_SECONDS} s", passing=True)
    if isinstance(error, http.ReadTimeoutError):
        return ClusterError(f"{host} does not finish its answer within {READ_SECONDS} s", passing=True)
    return ClusterError(f"cannot reach {host}: {text}", passing=True)


def _message_of(body: Any) -> str:
    """Returns what the server says of an error, from its JSON if it is such."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        document = json.loads(text)
        text = str(document.get("error_message") or document.get("message") or document.get("error") or text)
    except (ValueError, AttributeError):
        pass
    return _shortened(text)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
