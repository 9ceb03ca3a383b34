"""Servers that are not what they should be, and what is said of them."""

import socket

import pytest
from tracking_servers import BAD, PASSWORD, QUOTED, USER, answer, bad_server

from dgm_bench.tracking import trouble
from dgm_bench.tracking.address import ServerAway, TrackingError, read_address

SAID = {
    "hang": (True, "takes what is sent and does not answer"),
    "reset": (True, "not reachable (Connection reset by peer)"),
    "401": (False, "does not accept the login, or wants one (401)"),
    "403": (False, "forbids it (403) Invalid Host header"),
    "404": (False, "is no MLflow server (answers 404 with text/html)"),
    "page": (False, "is no MLflow server (answers 200 with text/html)"),
    "500": (True, "answers with error 500"),
    "502": (True, "answers with error 502"),
    "503": (True, "answers with error 503"),
    "redirect": (False, "sends on to https://login.example/sso"),
}


def said_of(uri, monkeypatch):
    monkeypatch.setattr(trouble, "PROBE_SECONDS", 0.3)
    address = read_address(uri)
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    return trouble.server_trouble(address)


@pytest.mark.parametrize("name", SAID)
def test_a_bad_server_is_told_in_one_line_with_a_remedy(name, monkeypatch):
    may_come_back, reason = SAID[name]
    with bad_server(BAD[name]) as uri:
        error = said_of(uri, monkeypatch)
    assert isinstance(error, TrackingError)
    assert isinstance(error, ServerAway) == may_come_back
    assert error.reason == reason
    assert error.thing == f"MLflow server {uri.replace(f'{USER}:{QUOTED}@', '')}"
    assert error.remedy
    for secret in (PASSWORD, QUOTED, "secret", "\n"):
        assert secret not in str(error)


def test_nobody_there(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = said_of(f"http://127.0.0.1:{port}", monkeypatch)
    assert isinstance(error, ServerAway)
    assert error.reason == "not reachable (Connection refused)"
    assert error.remedy == "run `dgm-bench sync` later"


def test_no_such_host(monkeypatch):
    assert "not reachable" in said_of("http://no-such-host.invalid", monkeypatch).reason


def test_a_server_that_answers_as_it_should_is_well_and_gets_the_login(monkeypatch):
    heard = []

    def well(connection):
        heard.append(connection.recv(65536))
        connection.sendall(answer("200 OK", b'{"experiments": []}', "application/json"))

    with bad_server(well) as uri:
        assert said_of(uri, monkeypatch) is None
    assert b"Authorization: Basic YW5uOnBAc3MjMS8l" in heard[0]


@pytest.mark.parametrize(("name", "lost"), [("reset", True), ("500", True), ("404", False)])
def test_a_request_that_is_lost_is_told_from_one_that_is_refused(name, lost, monkeypatch):
    import requests

    with bad_server(BAD[name]) as uri, pytest.raises(requests.RequestException) as caught:
        requests.get(uri, timeout=5).raise_for_status()
    wrapped = ValueError("MLflow's own words")
    wrapped.__context__ = caught.value
    error = trouble.lost_request(read_address(uri), wrapped)
    assert (error is not None) == lost
    assert trouble.lost_request(read_address(uri), ValueError("refused")) is None
