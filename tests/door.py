"""A door before an HTTP server, which asks for credentials that the server itself does not know."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def bearer(token: str) -> str:
    """An Authorization header."""
    return f"Bearer {token}"


def basic(user: str, password: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def guarded_door(server: str, server_port: int, allowed: set[str], host: str = "127.0.0.1") -> Iterator[int]:
    """Port of a door to a server that opens for requests with one of these Authorization headers.

    Args:
        server: address of the server behind it.
        server_port: of the server.
        allowed: Authorization headers.
        host: address that the door listens on.
    """

    class Door(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") not in allowed:
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            inside = http.client.HTTPConnection(server, server_port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
            inside.request(self.command, self.path, body, headers)
            reply = inside.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            inside.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    door = ThreadingHTTPServer((host, 0), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        yield door.server_address[1]
    finally:
        door.shutdown()
