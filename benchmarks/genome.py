"""`python -m benchmarks.genome DIR BASE [MODEL]`: what the arithmetic of docs/genome.md starts from.

DIR holds nucleotide_scores/ of BASE. Times are CPU seconds of one thread, so that other programs on the machine hardly
matter. Without MODEL an untrained one of the preset `genes` scores, which costs the same; the base-layer networks have
random weights, as nothing is downloaded here.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.base.openspliceai import OpenSpliceAI
from metalayer.config import DataConfig
from metalayer.core import MetaLayerConfig
from metalayer.models.build import build_model
from metalayer.models.bundle import save_model
from metalayer.workflows.score_genome import ScoringModel, merge_shards, plan_shards, score_shard

FLANKS = {10_000: 40_000, 80: 200_000}
"""Networks, and letters to score with each."""

T = TypeVar("T")


def core_seconds(call: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    answer = call()
    return time.process_time() - began, answer


def base_rate(flank: int, letters: int) -> float:
    """Positions a core-second of one network."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(PlainSpliceAI(flank).eval().state_dict(), Path(folder) / f"model_{flank}nt_rs1.pt")
        network = OpenSpliceAI(folder, device="cpu")
    tokens = np.random.default_rng(0).integers(0, 4, letters + flank).astype(np.uint8)
    seconds, _ = core_seconds(lambda: network.score_tokens(tokens))
    return letters / seconds


def main() -> int:
    data = DataConfig(data_root=Path(sys.argv[1]), base_model=sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plan = plan_shards(data, 2)
    positions = sum(shard.positions for shard in plan.shards)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(sys.argv[3]) if len(sys.argv) > 3 else folder / "model"
        if len(sys.argv) <= 3:
            save_model(build_model(MetaLayerConfig.from_yaml("genes")), model, {"base_model": data.base_model})
        scoring, parts = 0.0, []
        for shard in plan.shards:
            files = [plan.folder / file for file in shard.files]
            output = folder / f"shard_{shard.number}" / "scores.parquet"
            output.parent.mkdir()
            seconds, manifest = core_seconds(
                lambda shard=shard, files=files, output=output: score_shard(
                    shard, files, model, output, device="cpu", threads=1
                )
            )
            scoring += seconds
            parts.append((output, manifest))
        facts = {
            "base_model": data.base_model,
            "genome_build": plan.genome_build,
            "model": ScoringModel(model, parts[0][1]["model_digest"]).facts(),
        }
        whole = folder / "whole.parquet"
        merging, _ = core_seconds(lambda: merge_shards(plan.shards, parts, facts, whole))
        stored = whole.stat().st_size
    read = sum(path.stat().st_size for path in plan.files)
    print(f"{positions:,} positions of {sum(len(shard.genes) for shard in plan.shards)} genes, {data.base_model}")
    print(f"scoring a shard, files to file   {positions / scoring:>12,.0f} positions a core-second")
    print(f"putting shards together          {positions / merging:>12,.0f} positions a core-second")
    for flank, letters in FLANKS.items():
        print(f"base, flank {flank:>6}, one network {base_rate(flank, letters):>13,.0f} positions a core-second")
    print(f"base scores on disk              {read / positions:>12.2f} bytes a position")
    print(f"scores on disk                   {stored / positions:>12.2f} bytes a position")
    return 0


if __name__ == "__main__":
    sys.exit(main())
