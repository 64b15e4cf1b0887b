"""Every block of docs/ runs as it stands, in order, in a folder with base-layer files."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines import stacks
from tests.test_manifests import SECRETS

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "docs" / "kubernetes.md"
"""Its blocks need a cluster: what they name is checked, and they are not run."""
PAGES = sorted(set((ROOT / "docs").glob("*.md")) - {CLUSTER})


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    shutil.copytree(simulation, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "state"))
    names: dict[str, object] = {"__name__": "docs"}
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, page.name, "exec"), names)
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line.replace(" pipelines/run.py ", f" {ROOT}/pipelines/run.py "))
            command = [str(Path(sys.executable).with_name(program)), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr


def test_commands_for_a_cluster_are_ones_there_are() -> None:
    from pipelines import commands, run, schedule

    text = CLUSTER.read_text("utf-8").replace("\\\n", "")
    lines = re.findall(r"^python pipelines/run.py (.*)$", text, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        arguments = shlex.split(line, comments=True)
        parser = commands._parser() if arguments[0] in commands.NAMES else run._parser()
        parser.parse_args(arguments)
    made = set(re.findall(r"create secret generic (\S+)", text))
    assert made == set().union(*SECRETS.values()) | {*schedule._SECRETS, schedule._OPTIONAL_SECRET}
    for name in {**stacks.variables("kubernetes"), **stacks.variables("kubeflow")}:
        assert name in text
    for path in re.findall(r"`(k8s/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_arithmetic_of_genomes_follows_from_its_inputs() -> None:
    text = (ROOT / "docs" / "genome.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(import math\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {"__name__": "docs"}
    exec(compile(block, "genome.md", "exec"), found)
    rows = re.search(r"^\|(?:---\|)+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows
    assert rows[1].splitlines() == found["table"]
    genes, genome = found["merge_minutes"]
    for told in (
        f"takes {found['networks'] * found['scoring'] / found['network']:.0f} times as long",
        f"{genes:.0f} minutes for the genes, {genome:.0f} for the genome",
        f"100 million positions take {1e8 / found['scoring'] / 60:.0f}.",
        f"Of {found['stored']} bytes",
        f"up to {found['window']:,} positions",
        f"but for {found['untouched']:.3%}".replace("%", " %"),
        f"{found['alone']:.1f} core-seconds",
    ):
        assert told in " ".join(text.split()), told
    assert found["cost"](10, 4, 3, 0.5, 0.25) == 8
