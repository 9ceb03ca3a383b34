"""MLflow servers for tests: the real one over HTTP, which can be stopped, and bad ones."""

import base64
import contextlib
import logging
import os
import socket
import struct
import threading
import time

USER, PASSWORD = "ann", "p@ss#1/%"
#: How the password is written in an address.
QUOTED = "p%40ss%231%2F%25"


class RealServer:
    """MLflow's own application, over HTTP in a thread of this process; asks for a password.

    Args:
        database: Its SQLite file.
    """

    def __init__(self, database):
        os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{database}"
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
        os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = str(database.parent / "files")
        os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
        self.port = 0
        self.requests = 0
        self.start()

    @property
    def uri(self):
        return f"http://{USER}:{QUOTED}@127.0.0.1:{self.port}"

    def start(self):
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", self.port, self._application, threaded=True)
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def _application(self, environ, start_response):
        from mlflow.server import app

        self.requests += 1
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if environ.get("HTTP_AUTHORIZATION") != f"Basic {login}":
            start_response("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b"who are you?"]
        return app(environ, start_response)


def answer(status, body=b"", kind="text/html", **headers):
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def says(*text, **headers):
    """Return how a server behaves that gives one answer to everything."""

    def behave(connection):
        connection.recv(65536)
        connection.sendall(answer(*text, **headers))

    return behave


def hang(connection):
    """Take everything and answer nothing."""
    while connection.recv(65536):
        pass


def answer_then_hang(connection):
    """Answer the question for an experiment, and nothing else."""
    if b"get-by-name" not in connection.recv(65536):
        return hang(connection)
    body = b'{"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}}'
    return connection.sendall(answer("200 OK", body, "application/json"))


def only_look_well(connection):
    """Answer the question whether it is well, and fail at all else."""
    if b"experiments/search" in connection.recv(65536):
        connection.sendall(answer("200 OK", b'{"experiments": []}', "application/json"))
    else:
        connection.sendall(answer("500 Internal Server Error", b"<html>oh</html>"))


def drip(connection):
    """Answer, one byte at a time: no wait for the next byte is ever long."""
    connection.recv(65536)
    for byte in answer("200 OK", b" " * 1000 + b"{}", "application/json"):
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def reset(connection):
    """Break off the connection."""
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


BAD = {
    "hang": hang,
    "answer-then-hang": answer_then_hang,
    "only-look-well": only_look_well,
    "drip": drip,
    "reset": reset,
    "401": says("401 Unauthorized", b"no"),
    "403": says("403 Forbidden", b"Invalid Host header", "text/plain"),
    "404": says("404 Not Found", b"<html>nothing here</html>"),
    "page": says("200 OK", b"<html>Welcome to nginx!</html>"),
    "500": says("500 Internal Server Error", b"<html>oh</html>"),
    "502": says("502 Bad Gateway", b"<html>nginx</html>"),
    "503": says("503 Service Unavailable", b'{"error_code": "BUSY"}', "application/json"),
    "redirect": says("302 Found", Location="https://me:secret@login.example/sso?token=secret"),
    "empty-json": says("200 OK", b"{}", "application/json"),
}  # fmt: skip


@contextlib.contextmanager
def bad_server(behave):
    """Serve badly, and yield the address."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threading.Thread(target=_serve, args=(listener, behave), daemon=True).start()
        yield f"http://{USER}:{QUOTED}@127.0.0.1:{listener.getsockname()[1]}"
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener, behave):
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_one, args=(connection, behave), daemon=True).start()


def _one(connection, behave):
    with connection, contextlib.suppress(OSError):
        behave(connection)
