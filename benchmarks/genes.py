"""`python -m benchmarks.genes DIR [BASE ...] [--head HEAD]`: the preset `genes` on real genes; two bases mixed.

DIR holds nucleotide_scores/. Trained as a user does (`metalayer train --scores`) by three seeds, validated on genes
held out of chr1, compared with the base on all positions of chr3 (`metalayer evaluate`). `--head` is the setting
`model.head`. Two bases are mixed, too, by the factors that chr1 supports. Takes some minutes a seed, so `make bench`
leaves it out.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalayer.data.score_files import ScoreFile
from metalayer.evaluation.calibration import Corrections, mixed
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.inference.torch_network import base_probabilities
from metalayer.settings.sections import EvaluateConfig

SEEDS = (1, 2, 3)
METRICS = ("ap_donor", "ap_acceptor", "pr_auc_splice", "ece")


def metalayer(*arguments: object) -> None:
    command = [sys.executable, "-m", "metalayer", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def one_seed(scores: Path, base: str, head: str, seed: int, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    train = ("train", "--scores", scores / f"{base}_chr1.parquet", "--set", f"head={head}")
    metalayer(*train, "--output-dir", folder, "--seed", seed)
    seconds = time.monotonic() - started
    held_out, report = scores / f"{base}_chr3.parquet", folder / "report.json"
    metalayer("evaluate", "--model", folder, "--scores", held_out, "--output", report)
    calibration = json.loads((folder / "model" / "model.json").read_text())["calibration"]
    return {**json.loads(report.read_text()), "seconds": seconds, "shrinkage": calibration["positions"]["shrinkage"]}


def _both(factors: Sequence[float]) -> str:
    return "{:.2f} (donor) and {:.2f} (acceptor)".format(*factors)


def summary(report: dict[str, Any]) -> str:
    parts = []
    for metric in METRICS:
        form = ".6f" if metric == "ece" else ".4f"
        gap = report["difference"][metric]
        parts.append(
            f"{metric} {report['base'][metric]:{form}} -> {report['meta'][metric]:{form}} "
            f"({gap['low']:+{form}} to {gap['high']:+{form}})"
        )
    return ", ".join(parts)


def stack(scores: Path, weak: str, strong: str, folder: Path) -> None:
    """Both bases as inputs, mixed geometrically by the factors that training genes support, against the better."""

    def both(chrom: str) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        stores = [
            ScoreFile.read([scores / f"{base}_{chrom}.parquet"], folder / f"{base}_{chrom}.parquet", {}).store
            for base in (strong, weak)
        ]
        tracks = [[store.read(gene) for gene in stores[0].genes()] for store in stores]
        return [
            (a.gene.gene_id, a.labels, base_probabilities(a.scores), base_probabilities(b.scores))
            for a, b in zip(*tracks, strict=True)
        ]

    corrections = Corrections()
    for _, labels, a, b in both("chr1"):
        corrections.add(np.log(a), np.log(b), labels)
    factors = corrections.shrinkage_factors()
    genes = [
        GeneScores(
            name, "3", labels, {"base": a, "meta": np.exp(mixed(np.log(a), np.log(b), factors)).astype(np.float32)}
        )
        for name, labels, a, b in both("chr3")
    ]
    compared = summary(evaluate(genes, EvaluateConfig()))
    print(f"stack of {strong} with {_both(factors)} of {weak}, against {strong}: {compared}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("real", type=Path)
    parser.add_argument("bases", nargs="*", default=["openspliceai_80", "openspliceai_10000"])
    parser.add_argument("--head", choices=("network", "stack", "both"), default="network")
    given = parser.parse_args()
    scores, bases = given.real / "nucleotide_scores", given.bases
    with tempfile.TemporaryDirectory() as name:
        for base in bases:
            found = []
            for seed in SEEDS:
                found.append(one_seed(scores, base, given.head, seed, Path(name) / f"{base}-{seed}"))
                print(f"{base}, {given.head}, seed {seed}: {summary(found[-1])}; shrinkage ", end="")
                print(f"{_both(found[-1]['shrinkage'])}, {found[-1]['seconds']:.0f} s", flush=True)
            medians = [f"{m} {statistics.median(one['meta'][m] for one in found):.4f}" for m in METRICS]
            print(f"{base}, {given.head}, median of {len(SEEDS)}: {', '.join(medians)}", flush=True)
        print(f"peak memory of a run {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3:.0f} MB")
        if len(bases) == 2:
            stack(scores, bases[0], bases[1], Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
