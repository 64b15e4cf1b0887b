"""A virtual environment that holds what one extra requires and nothing else, as links to what is installed here."""

from __future__ import annotations

import functools
import os
import subprocess
import sysconfig
import tomllib
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def declared() -> dict[str, list[str]]:
    """Requirements by extra, as pyproject.toml has them; "" is the package's own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def closure(extra: str) -> set[str]:
    """Names of all distributions that `pip install .[extra]` would install."""
    ours = declared()
    waiting = [Requirement(text) for name in {"", extra} for text in ours[name]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        if (name, extras) in seen or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        seen.add((name, extras))
        if name == "metalayer":
            waiting += [Requirement(text) for other in extras for text in ours[other]]
            continue
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *extras)):
                needed.marker = None
                waiting.append(needed)
    return {name for name, _ in seen if name != "metalayer"}


def _paths(one: metadata.Distribution) -> list[tuple[str, ...]]:
    """Parts of the installed paths of a distribution, those outside site-packages left out."""
    lines = (one.read_text("RECORD") or "").splitlines()
    parts = (tuple(line.rsplit(",", 2)[0].strip('"').split("/")) for line in lines)
    return [path for path in parts if path[0] != ".."]


@functools.cache
def _owners() -> dict[str, set[str]]:
    """First part of an installed path to the distributions that have files there."""
    owners: dict[str, set[str]] = {}
    for one in metadata.distributions():
        for first in {path[0] for path in _paths(one)}:
            owners.setdefault(first, set()).add(canonicalize_name(one.name))
    return owners


def make(extra: str, folder: Path) -> Path:
    """A virtual environment: links to the distributions of an extra, the package, and its metadata."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    for name in closure(extra):
        one = metadata.distribution(name)
        for path in {path[:1] if _owners()[path[0]] == {name} else path for path in _paths(one)}:
            target, source = site.joinpath(*path), Path(str(one.locate_file("/".join(path))))
            if source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
    (site / "metalayer").symlink_to(ROOT / "metalayer")
    info = site / "metalayer-0.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: metalayer", "Version: 0"]
    for name, texts in declared().items():
        lines += [f"Provides-Extra: {name}"] if name else []
        lines += [f"Requires-Dist: {text}" + (f'; extra == "{name}"' if name else "") for text in texts]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    return folder


def run(env: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python of the environment, with nothing of the shell's."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [env / "bin" / "python", *arguments],
        env={**kept, "OMP_NUM_THREADS": "1", "METALAYER_HOME": str(cwd / "state")},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
