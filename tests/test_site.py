"""The documentation as a site: every page in it, links good, nothing fetched, and what it says of the code true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it: a page that is in no menu, a link or an anchor that leads nowhere stops it."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


def test_every_page_is_there_and_nothing_is_fetched(site: Path) -> None:
    pages = {path.stem for path in site.glob("*.html")}
    assert pages >= {"index", *(path.stem for path in DOCS.glob("*.md"))}
    assert "metalayer takes the per-nucleotide scores" in (site / "index.html").read_text("utf-8")
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        text = path.read_text("utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=[\"']([^\"']+)", text)
        fetched += re.findall(r"<link[^>]*\bhref=[\"']([^\"']+)", text) + re.findall(r"url\([\"']?([^\"')]+)", text)
        assert not [one for one in fetched if one.startswith(("http:", "https:", "//"))], path
    assert not (site / "site.py").exists()


def test_the_messages_of_the_errors_page_are_ours() -> None:
    """Each in the left column stands in a text of the code, but for the parts that are filled in."""
    said = []
    for path in (*(ROOT / "metalayer").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    text = "\n".join(said)
    table = (DOCS / "errors.md").read_text("utf-8").partition("| message |")[2]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(messages) > 8
    for message in messages:
        assert message in text, message


def test_files_that_the_architecture_names_are_there() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    named = [name for name in re.findall(r"`([\w/]+(?:\.py|/))`", text) if "/" in name or name.endswith(".py")]
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "metalayer" / name).exists(), name
