"""The page that shows the calls of a server: from the package alone, in a real browser, also of a server with keys."""

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from metalayer.release.engine import Engine
from metalayer.serving import pages
from metalayer.serving.app import create_app
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from tests.releases import make_release
from tests.test_tracks import NEAR

CHROMIUM = shutil.which("chromium")


@contextmanager
def served(engine: Engine, **settings: object) -> Iterator[str]:
    """Address of a server in a thread."""
    with in_thread(Serving(engine, ServingSettings(**settings))) as url:
        yield url


@contextmanager
def in_thread(serving: Serving) -> Iterator[str]:
    """Address of a server in a thread, of what is loaded."""
    app = create_app(serving)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=asyncio.run, args=(server.serve([listening]),))
        thread.start()
        try:
            until = time.monotonic() + 30
            while not server.started:
                assert thread.is_alive() and time.monotonic() < until
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def reads_genes(folder: Path) -> Engine:
    """Of a model that reads base scores far around a position, which rows lack."""
    return Engine(make_release(folder, track_encoder="stages", track_encoder_config=NEAR))


@pytest.mark.parametrize("model", ["of rows", "of whole genes"])
def test_each_example_is_answered_as_it_is(model: str, engine: Engine, tmp_path: Path) -> None:
    answering = engine if model == "of rows" else reads_genes(tmp_path)
    with served(answering) as url, httpx.Client(base_url=url) as client:
        described = client.get("/openapi.json").json()
        posts = {path: methods["post"] for path, methods in described["paths"].items() if "post" in methods}
        assert posts.keys() == {"/v1/score", "/v1/score_sequence"}
        for path, call in posts.items():
            example = call["requestBody"]["content"]["application/json"]["example"]
            parameters = {one["name"]: json.dumps(one["example"]) for one in call.get("parameters", ())}
            answer = client.post(path, json=example, params=parameters)
            assert answer.status_code == 200, answer.text
            rows = answer.json()["rows"]
            columns = call["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["rows"]
            assert rows and all(row.keys() == columns["items"]["properties"].keys() for row in rows)
            assert all("probability, 0 to 1" in one["description"] for one in columns["items"]["properties"].values())
            assert any(name.startswith("base_") for name in rows[0])  # base beside meta
        for path in ("/v1/model", "/openapi.json", "/docs", "/metrics"):
            assert "get" in described["paths"][path]
            assert client.get(path).status_code == 200


def test_the_pages_are_of_the_package_and_lead_nowhere_else(engine: Engine) -> None:
    with served(engine) as url, httpx.Client(base_url=url) as client:
        for path in pages.OPEN:
            answer = client.get(path)
            assert answer.status_code == 200
            assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert 'src="view/page.js"' in client.get("/").text
        for name in ("docs/LICENSE.swagger-ui", "view/LICENSE.igv", "view/", "view/../app.py"):
            assert client.get(f"/{name}").status_code == 404
        assert client.post("/docs").status_code == 405
    here = Path(pages.__file__).parent
    assert "Apache License" in (here / "docs_page" / "LICENSE.swagger-ui").read_text()
    assert "The MIT License" in (here / "view_page" / "LICENSE.igv").read_text()
    assert sorted(
        path.name for path in (here / "view_page").iterdir() if not path.name.startswith("LICENSE")
    ) == sorted(Path(path).name or "index.html" for path in pages.OPEN if not path.startswith("/docs"))


def test_a_server_with_keys_shows_the_page_and_nothing_of_its_own(engine: Engine) -> None:
    with served(engine, api_keys="secret") as url, httpx.Client(base_url=url) as client:
        for path in pages.OPEN:
            assert client.get(path).status_code == 200
        for path in ("/openapi.json", "/v1/model", "/docs/", "/docs/../openapi.json", "/docs/other"):
            assert client.get(path).status_code == 401
        assert client.get("/openapi.json", headers={"authorization": "Bearer secret"}).status_code == 200


def shown(url: str, folder: Path) -> str:
    """What a browser shows of a page, as HTML, after its scripts have run; it may reach no other address."""
    assert CHROMIUM
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}",
        "--virtual-time-budget=20000",
    ]
    options.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_in_a_browser(engine: Engine, tmp_path: Path) -> None:
    with served(engine) as url:
        found = shown(f"{url}/docs", tmp_path / "a")
    for text in ("/v1/score_sequence", "/v1/model", "/readyz", "Probabilities of rows"):
        assert text in found
    assert "Failed to load" not in found
    assert 'class="opblock-summary' in found  # drawn by swagger-ui, not listed as text
    with served(engine, api_keys="secret") as url:
        asked = shown(f"{url}/docs", tmp_path / "b")
    assert "opblock" not in asked
    assert "This server answers to those who have an API key" in asked
    form = asked[asked.index('<form id="key"') :].partition(">")[0]
    assert "hidden" not in form


def test_the_example_is_a_donor(engine: Engine) -> None:
    """What a reader sees is a site: GT at the labelled base, its scores add up."""
    from metalayer.serving.openapi import document

    example = json.loads(json.dumps(document(ServingSettings())))["paths"]["/v1/score"]["post"]["requestBody"]
    row = example["content"]["application/json"]["example"]["rows"][0]
    assert row["sequence"][row["index"] :].startswith("GT")
    assert sum(row[name] for name in ("donor_score", "acceptor_score", "neither_score")) == pytest.approx(1)
