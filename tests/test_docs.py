"""Every block of docs/ runs as it stands, in order, in a folder with base-layer files."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    shutil.copytree(simulation, folder)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "docs"}
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, page.name, "exec"), names)
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            command = [str(Path(sys.executable).with_name(program)), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr
