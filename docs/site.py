"""What MkDocs needs to make a site of these pages: the README as its first one, with links that fit."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

README = Path(__file__).resolve().parents[1] / "README.md"


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Adds the README, whose links begin in the folder above."""
    text = README.read_text("utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files
