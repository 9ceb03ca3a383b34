"""Where MLflow is: its address, who logs in, and what of it may be shown."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from dgm_bench.errors import DgmBenchError

#: What every complaint about MLflow ends with where waiting may help.
LATER = "run `dgm-bench sync` later"
VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = "mlflow.db"

_USER, _PASSWORD, _TOKEN = (f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN"))
_SERVERS = frozenset({"http", "https"})


class TrackingError(DgmBenchError):
    """MLflow is not installed, or is not to be had at its address."""


class ServerAway(TrackingError):  # noqa: N818  it is not broken, and may come back
    """A server that does not answer, or answers that it cannot for the time being."""


class RequestLost(ServerAway):
    """A request that a server did not answer, or not well, although it is well itself."""


@dataclass(frozen=True)
class Address:
    """Where MLflow's runs are kept.

    Attributes:
        uri: For MLflow: without name and password.
        shown: For people: without a password, a query or a fragment.
        folder: Where a process has to stand to use a ``uri`` that is relative; None for anywhere.
        login: Environment variables of MLflow that hold the name and password of the address.
    """

    uri: str
    shown: str
    folder: Path | None = None
    login: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_server(self) -> bool:
        """Whether it is asked over HTTP."""
        return self.uri.partition("://")[0].lower() in _SERVERS

    @property
    def is_database(self) -> bool:
        """Whether MLflow opens a database itself."""
        scheme, separator, _ = self.uri.partition("://")
        return bool(separator) and scheme.lower() not in _SERVERS | {"file"}

    def environment(self) -> dict[str, str]:
        """Return the variables from which MLflow reads where to log, and as whom."""
        return {VARIABLE: self.uri, **self.login}


def tracking_address(results: Path) -> Address:
    """Return the address that ``MLFLOW_TRACKING_URI`` names, or else a file beside the results.

    Args:
        results: The results folder.

    Raises:
        TrackingError: When the variable holds no address.
    """
    if uri := os.environ.get(VARIABLE, "").strip():
        return read_address(uri)
    # A relative name: in an absolute one MLflow and SQLAlchemy read ``%``, ``?`` and ``#``, and
    # which of them they read depends on their versions.
    return Address(f"sqlite:///{DATABASE}", str(results / DATABASE), results.resolve())


def read_address(uri: str) -> Address:
    """Return an address of MLflow's, taken apart.

    Args:
        uri: An address as ``http://host:5000``, with or without a name and a password, of a
            database, or a folder.

    Raises:
        TrackingError: When it is none, or its password hides where the host is.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme.lower() == "file":
        return Address(uri, uri)
    if scheme.lower() == "sqlite":
        return Address(uri, uri.partition("?")[0])
    parts = _split(uri)
    netloc = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{netloc}{parts.path}"
    if parts.scheme not in _SERVERS:
        return Address(uri, shown)
    login = {}
    if parts.username:
        login = {_USER: unquote(parts.username), _PASSWORD: unquote(parts.password or "")}
    return Address(parts._replace(netloc=netloc).geturl(), shown, login=login)


def _split(uri: str) -> SplitResult:
    """Take an address apart; one that has ``@`` after its host was cut within the password."""
    try:
        parts = urlsplit(uri)
        broken = "@" in f"{parts.path}{parts.query}{parts.fragment}" or parts.port == 0
    except ValueError:
        broken = True
    if broken:
        remedy = "write http://name:password@host:port, with %23 for a # in the password, %2F for /"
        raise TrackingError(VARIABLE, "is no address that can be read", remedy)
    return parts


def without_secrets(text: str, address: Address) -> str:
    """Return a text in one line with every password and token left out.

    Args:
        text: What MLflow, a server or the system said.
        address: Whose passwords.
    """
    words = " ".join(text.split())
    for secret in sorted(set(_secrets(address)), key=len, reverse=True):
        words = words.replace(secret, "***")
    return words if len(words) <= 200 else words[:199] + "…"


def _secrets(address: Address) -> Iterator[str]:
    before, at, _ = address.uri.partition("://")[2].partition("@")
    inside = before.partition(":")[2] if at else ""  # of a database's address
    password = address.login.get(_PASSWORD) or os.environ.get(_PASSWORD, "")
    user = address.login.get(_USER) or os.environ.get(_USER, "")
    for secret in filter(None, (password, os.environ.get(_TOKEN), inside, unquote(inside))):
        yield secret
        yield quote(secret, safe="")
    if password:
        yield base64.b64encode(f"{user}:{password}".encode()).decode()
