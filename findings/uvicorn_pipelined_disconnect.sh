#!/usr/bin/env bash
# uvicorn 0.54.0 with httptools 0.9.0: a client that has sent two requests on one connection and then leaves. The
# application that works on the first request waits for "http.disconnect" and never gets it, so it cannot stop work
# that nobody will read. With h11 0.16.0, and with a single request, it is sent. Which of the two is used depends on
# whether httptools happens to be installed. Output seen:
#   httptools {'/alone': 'http.disconnect', '/first': 'nothing within 4 s'}
#   h11 {'/alone': 'http.disconnect', '/first': 'http.disconnect'}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0
"$folder/venv/bin/python" - <<'P'
import asyncio
import importlib.metadata
import socket
import threading
import time

import uvicorn

seen = {}


async def app(scope, receive, send):
    await receive()  # the request, without a body
    try:
        seen[scope["path"]] = (await asyncio.wait_for(receive(), 4))["type"]
    except asyncio.TimeoutError:
        seen[scope["path"]] = "nothing within 4 s"


def ask_and_leave(port, *paths):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode() for path in paths))
        time.sleep(0.5)


def heard(parser):
    seen.clear()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=parser, loop="asyncio", lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    ask_and_leave(listener.getsockname()[1], "/alone")
    ask_and_leave(listener.getsockname()[1], "/first", "/second")
    time.sleep(6)
    server.should_exit = True
    thread.join()
    found = dict(sorted(seen.items()))
    print(parser, found)
    return found


print("uvicorn", importlib.metadata.version("uvicorn"))
assert heard("httptools") == {"/alone": "http.disconnect", "/first": "nothing within 4 s"}
assert heard("h11") == {"/alone": "http.disconnect", "/first": "http.disconnect"}
P
