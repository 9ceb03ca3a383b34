"""Addresses of MLflow: passwords get where they belong and nowhere else."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dgm_bench.tracking.address import (
    TrackingError,
    read_address,
    tracking_address,
    without_secrets,
)

#: Passwords that are no part of the rest of an address.
PASSWORDS = st.text(min_size=6, max_size=20).filter(
    lambda text: quote(text) not in "http://host:5000"
)


@given(password=PASSWORDS, path=st.sampled_from(["", "/", "/mlflow"]))
@example(password="p@ss#1/%41", path="/x")
def test_a_password_goes_to_mlflow_and_is_not_shown(password, path):
    address = read_address(f"https://ann:{quote(password, safe='')}@host:5000{path}")
    assert address.environment() == {
        "MLFLOW_TRACKING_URI": f"https://host:5000{path}",
        "MLFLOW_TRACKING_USERNAME": "ann",
        "MLFLOW_TRACKING_PASSWORD": password,
    }
    assert address.shown == f"https://host:5000{path}"
    assert address.is_server
    assert password not in repr(address)


@pytest.mark.parametrize(
    "uri",
    [
        "http://ann:hid#den@host",
        "http://ann:hid/den@host:5000",
        "http://ann:hid?den@host",
        "http://ann:hid[den@host",
        "http://host:port/hidden",
    ],
)
def test_an_address_that_cannot_be_read_is_told_without_a_part_of_it(uri):
    with pytest.raises(TrackingError) as caught:
        read_address(uri)
    assert str(caught.value).startswith("MLFLOW_TRACKING_URI: is no address that can be read; ")
    for part in ("hid", "den", "host/"):
        assert part not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown", "server", "database"),
    [
        ("http://host:5000/a?token=hidden#x", "http://host:5000/a", True, False),
        ("HTTPS://[::1]:5000", "https://[::1]:5000", True, False),
        ("sqlite:////a%20b/m.db?timeout=3", "sqlite:////a%20b/m.db", False, True),
        ("postgresql+psycopg://ann:hidden@host/name?ssl=hidden",
         "postgresql+psycopg://host/name", False, True),
        ("/some/folder", "/some/folder", False, False),
        ("file:///some/folder", "file:///some/folder", False, False),
        ("databricks", "databricks", False, False),
    ],
)  # fmt: skip
def test_what_an_address_is(uri, shown, server, database):
    address = read_address(uri)
    assert (address.shown, address.is_server, address.is_database) == (shown, server, database)
    if "?" not in uri or not server:
        assert address.uri.lower() == uri.lower()


def test_the_variable_comes_before_the_file_beside_the_results(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ")
    assert tracking_address(tmp_path).shown == str(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_address(tmp_path).shown == "http://host:5000"


@given(secret=PASSWORDS)
def test_secrets_are_left_out_of_what_others_say(secret):
    with pytest.MonkeyPatch.context() as patch:
        quoted = quote(secret, safe="")
        patch.setenv("MLFLOW_TRACKING_TOKEN", "token-" + quoted)
        address = read_address(f"postgresql://ann:{quoted}@host/name")
        said = without_secrets(f"no\n{quoted} with token-{quoted}, {address.uri} " * 2, address)
    assert quoted not in said
    assert "\n" not in said
    assert "no *** with ***" in said


def test_a_login_is_left_out_of_what_a_server_says(monkeypatch):
    login = base64.b64encode(b"ann:hidden-one").decode()
    address = read_address("http://ann:hidden-one@host")
    assert "hidden" not in without_secrets(f"hidden-one {login}", address)
    assert login not in without_secrets(f"hidden-one {login}", address)
