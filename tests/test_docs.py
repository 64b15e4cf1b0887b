"""Every block of docs/ and of the README's own-data part runs unchanged, in order, as a reader would run it.

The shell is a plain bash in an empty home folder and a checkout; Python blocks go, one after the other, to the Python
that the shell finds, in the folder where the shell then is. A `text` block below a block is what it prints.
"""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines import stacks
from tests.manifests import K8S, kustomize, pod_specs
from tests.reader import Reader, run_page
from tests.test_manifests import SECRETS

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "docs" / "kubernetes.md"
"""Its blocks need a cluster: what they name is checked, and they are not run."""
IN_WORDS = {ROOT / "docs" / f"{name}.md" for name in ("architecture", "errors", "method", "security")}
"""Without a block to run; test_site.py and test_security.py look at what they say."""
PAGES = sorted(set((ROOT / "docs").glob("*.md")) - IN_WORDS - {CLUSTER, ROOT / "docs" / "serving.md"})
"""Without that which begins where `make run` has ended: test_readme.py runs it there."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "home", forks=True)
    try:
        run_page(reader, page)
    finally:
        reader.close()


def test_commands_for_a_cluster_are_ones_there_are() -> None:
    from pipelines import commands, run, schedule

    text = CLUSTER.read_text("utf-8").replace("\\\n", "")
    lines = re.findall(r"^python pipelines/run.py (.*)$", text, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        arguments = shlex.split(line, comments=True)
        parser = commands._parser() if arguments[0] in commands.NAMES else run._parser()
        parser.parse_args(arguments)
    made = set(re.findall(r"^secret (\S+)", text, re.MULTILINE))
    assert made == set().union(*SECRETS.values()) | {*schedule._SECRETS, schedule._OPTIONAL_SECRET}
    for name in {**stacks.variables("kubernetes"), **stacks.variables("kubeflow")}:
        assert name in text
    for path in re.findall(r"`(k8s/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_road_to_a_cluster_is_bash_and_its_overlay_has_the_images(tmp_path: Path) -> None:
    text = CLUSTER.read_text("utf-8")
    road = text[text.index("## From an empty cluster") : text.index("## Who may do what")]
    blocks = re.findall(r"^```\n(.*?)^```", road, re.MULTILINE | re.DOTALL)
    done = subprocess.run(["bash", "-n"], input="".join(blocks), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = next(block for block in blocks if "kustomization.yaml" in block).partition("\nkubectl")[0]
    (tmp_path / "k8s").symlink_to(K8S)
    given = {"METALAYER_REGISTRY": "registry:5000/lab", "METALAYER_IMAGE_TAG": "7", "METALAYER_BUCKET": "s3://b/m"}
    subprocess.run(["bash", "-e", "-c", written], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **given}, check=True)
    documents = kustomize(tmp_path / "cluster")
    images = {container["image"] for spec in pod_specs(documents).values() for container in spec["containers"]}
    assert images >= {f"registry:5000/lab/metalayer-{name}:7" for name in ("pipeline", "serving")}
    assert not [image for image in images if image in ("metalayer-pipeline", "metalayer-serving")]
    maps = [one["data"] for one in documents if one["kind"] == "ConfigMap"]
    assert "s3://b/m/mlflow" in [of.get("MLFLOW_ARTIFACTS_DESTINATION") for of in maps]


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
