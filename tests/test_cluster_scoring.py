"""Scoring of all genes on the test bed: a Job a shard, one of which loses its pod; the scores are those made here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from metalayer.core import MetaLayerConfig
from metalayer.files import sha256
from metalayer.models.bundle import save_model
from metalayer.models.meta import build_model
from metalayer.variants.calls import Sources
from metalayer.variants.scoring import Options
from metalayer.workflows.variants import score_file
from tests.bed import NAMESPACE, kubectl, objects, wait_for
from tests.releases import make_bundle
from tests.test_cluster import environment, here, log_of, on_the_bed, process_of, untainted  # noqa: F401
from tests.test_pipeline import found

BASE = "openspliceai_80"
SHARDS = 3
LOST = 2

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> list[str]:
    """Of a run over real genes, which take some seconds a shard."""
    import torch

    torch.manual_seed(0)
    network = build_model(MetaLayerConfig.from_yaml("genes"))
    for weights in network.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.05)
    model = tmp_path_factory.mktemp("model") / "model"
    save_model(network, model, {"base_model": BASE})
    changes = (f"data.base_model={BASE}", f"score.model={model}", f"score.shards={SHARDS}", "score.threads=1")
    sets = [part for change in changes for part in ("--set", change)]
    return ["--pipeline", "score", "--data-root", str(shared / "real"), *sets]


def scoring_pod(number: int, run: subprocess.Popen[str]) -> str | None:
    """Name of the pod of a shard, once it scores; fails where the run has ended."""
    assert run.poll() is None, run.communicate()
    for pod in objects("pods", f"step_name=score_shard_{number}"):
        name: str = pod["metadata"]["name"]
        if pod["status"]["phase"] == "Running" and f"shard {number} of {SHARDS}" in log_of(name):
            return name
    return None


def succeeded(pods: list[dict[str, Any]]) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Succeeded"]


@pytest.mark.usefixtures("environment", "untainted")
class TestScoring:
    """In order: the second run finds what the first has left."""

    def test_a_shard_that_loses_its_pod_is_scored_again(self, settings: list[str], tmp_path: Path) -> None:
        output, same = tmp_path / "bed.parquet", tmp_path / "local.parquet"
        with (
            process_of(on_the_bed([*settings, "--set", f"score.output={output}"])) as process,
            process_of(*here(tmp_path / "state", [*settings, "--set", f"score.output={same}"])) as local,
        ):
            lost = wait_for(f"shard {LOST} scores", 600, lambda: scoring_pod(LOST, process))
            kubectl("-n", NAMESPACE, "delete", "pod", lost, "--grace-period=1", "--wait=false")
            out, err = process.communicate(timeout=1200)
            _, local_err = local.communicate(timeout=600)
        assert process.returncode == 0, err
        assert local.returncode == 0, local_err
        assert found(r"^cached +(.+)$", out) == "no step"
        jobs = {job["metadata"]["labels"].get("step_name") for job in objects("jobs", "pipeline=score")}
        shards = {f"score_shard_{number}" for number in range(1, SHARDS + 1)}
        assert jobs >= {*shards, "merge_shards"}
        for name in shards:
            done = succeeded(objects("pods", f"step_name={name}"))
            assert len(done) == 1
            assert lost not in done
        told = json.loads(output.with_suffix(".json").read_text())
        assert [shard["shard"] for shard in told["shards"]] == list(range(1, SHARDS + 1))
        assert sum(shard["positions"] for shard in told["shards"]) == told["positions"] > 1_000_000
        assert sha256(same) == told["sha256"] == sha256(output)

    def test_the_same_again_scores_nothing(self, settings: list[str], tmp_path: Path) -> None:
        with process_of(on_the_bed([*settings, "--set", f"score.output={tmp_path / 'again.parquet'}"])) as again:
            out, err = again.communicate(timeout=1200)
        assert again.returncode == 0, err
        assert "0 input files copied" in err
        assert len(found(r"^cached +(.+)$", out).split(", ")) == SHARDS + 1

    def test_variants_are_scored_in_pods(self, simulation: Path, tmp_path: Path) -> None:
        genome = simulation / "genome"
        text = (genome / "simulated.fa").read_text().split(">")[1].partition("\n")[2].replace("\n", "").upper()
        variants, output = tmp_path / "in.vcf", tmp_path / "out.vcf"
        lines = ["##fileformat=VCFv4.2", "##contig=<ID=chr1>", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
        places = range(100, len(text) - 100, len(text) // 40)
        lines += [f"chr1\t{at + 1}\t.\t{text[at]}\t{'A' if text[at] != 'A' else 'G'}\t.\t.\t." for at in places]
        variants.write_text("\n".join(lines) + "\n")
        model = make_bundle(tmp_path / "model")
        given = {"file": variants, "fasta": genome / "simulated.fa", "annotation": genome / "simulated.gff3"}
        given |= {"bases": "pwm", "model": model, "output": output, "shards": 2, "threads": 1}
        sets = [part for name, value in given.items() for part in ("--set", f"variants.{name}={value}")]
        with process_of(on_the_bed(["--pipeline", "variants", *sets])) as process:
            out, err = process.communicate(timeout=1200)
        assert process.returncode == 0, err
        assert out.endswith("exit status 0: scored\n")
        jobs = {job["metadata"]["labels"].get("step_name") for job in objects("jobs", "pipeline=variants")}
        assert jobs >= {"score_variants_1", "score_variants_2"}
        alone = tmp_path / "alone.vcf"
        sources = Sources(given["fasta"], given["annotation"], ["pwm"], model=model, device="cpu")
        score_file(variants, alone, sources, Options())
        assert output.read_text().splitlines() == alone.read_text().splitlines()
