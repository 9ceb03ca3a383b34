"""What is wrong with an MLflow server, in one line that says what to do."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dgm_bench.tracking.address import (
    LATER,
    Address,
    RequestLost,
    ServerAway,
    TrackingError,
    without_secrets,
)

if TYPE_CHECKING:
    from requests import Response

#: Seconds for the answer to the question whether a server is well.
PROBE_SECONDS = 3.0
_PROBE = "/api/2.0/mlflow/experiments/search?max_results=1"


def server_trouble(address: Address) -> TrackingError | None:
    """Ask a server for something small, as whom MLflow asks it, and say what is wrong."""
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(address.uri),
            _PROBE,
            "GET",
            max_retries=0,
            timeout=PROBE_SECONDS,
            raise_on_status=False,
            allow_redirects=False,
        )
    except Exception as error:
        return _unreached(address, error)
    return _of_status(address, answer)


def lost_request(address: Address, error: BaseException) -> RequestLost | None:
    """Return the error for a request that was lost on its way, or None for what was refused.

    Args:
        address: Of a server that is well.
        error: What MLflow made of it.
    """
    from requests import HTTPError, RequestException

    wrapped: BaseException | None = error
    while wrapped is not None and not isinstance(wrapped, RequestException):
        wrapped = wrapped.__cause__ or wrapped.__context__
    if wrapped is None:
        return None
    answer = wrapped.response if isinstance(wrapped, HTTPError) else None
    if answer is not None and answer.status_code < 500:
        return None
    first = _first(wrapped)
    why = without_secrets(getattr(first, "strerror", None) or str(first), address)
    return RequestLost(_server(address), f"did not answer a request ({why})", LATER)


def _unreached(address: Address, error: BaseException) -> TrackingError:
    error = _first(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "name the certificate's file in MLFLOW_TRACKING_SERVER_CERT_PATH"
        return TrackingError(_server(address), "its certificate is not trusted", remedy)
    if isinstance(error, TimeoutError):
        return ServerAway(_server(address), "takes what is sent and does not answer", LATER)
    why = without_secrets(getattr(error, "strerror", None) or str(error), address)
    return ServerAway(_server(address), f"not reachable ({why})", LATER)


def _first(error: BaseException) -> BaseException:
    """Return what an error began with: libraries wrap it, or put it among the words of another."""
    inner = (part for part in error.args if isinstance(part, BaseException))
    cause = error.__cause__ or error.__context__ or next(inner, None)
    return error if cause is None else _first(cause)


def _of_status(address: Address, answer: Response) -> TrackingError | None:
    server, status = _server(address), answer.status_code
    if status == 401:
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
        return TrackingError(server, "does not accept the login, or wants one (401)", remedy)
    if status == 403:
        said = without_secrets(answer.text, address) if len(answer.text) < 200 else ""
        remedy = "ask whoever runs it, or log in as another with MLFLOW_TRACKING_USERNAME"
        return TrackingError(server, f"forbids it (403) {said}".strip(), remedy)
    if status == 429 or status >= 500:
        return ServerAway(server, f"answers with error {status}", f"see its log; {LATER}")
    if answer.is_redirect:
        place = urlsplit(answer.headers["location"])
        to = place._replace(netloc=place.netloc.rpartition("@")[2], query="", fragment="").geturl()
        remedy = "set MLFLOW_TRACKING_URI to the address of the MLflow server itself"
        return TrackingError(server, f"sends on to {to}", remedy)
    if status != 200 or not _is_object(answer.text):
        return not_mlflow(address, f"answers {status} with {_kind(answer)}")
    return None


def not_mlflow(address: Address, why: str) -> TrackingError:
    """Return the error for a server of another kind."""
    remedy = "check MLFLOW_TRACKING_URI; MLflow's own default is http://localhost:5000"
    return TrackingError(_server(address), f"is no MLflow server ({why})", remedy)


def _kind(answer: Response) -> str:
    return answer.headers.get("content-type", "nothing").partition(";")[0]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _server(address: Address) -> str:
    return f"MLflow server {address.shown}"
