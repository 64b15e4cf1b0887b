"""`python -m benchmarks.genome DIR BASE`: what the arithmetic of docs/genome.md starts from.

DIR holds nucleotide_scores/ of BASE. On a CPU times are CPU seconds of one thread, so that other programs on the
machine hardly matter; on a GPU they pass on the clock, reading and writing of files among them. Without --model an
untrained one of the preset `genes` scores, which costs the same; the base-layer networks have random weights, as
nothing is downloaded here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.base.openspliceai import load_openspliceai
from metalayer.core import MetaLayerConfig
from metalayer.models.bundle import save_model
from metalayer.models.description import digest
from metalayer.models.meta import build_model
from metalayer.settings.sections import DataConfig
from metalayer.workflows.score_genome import ScoringModel, merge_shards, plan_shards, score_shard

FLANKS = {10_000: 40_000, 80: 200_000}
"""Networks, and letters to score with each; on a GPU twenty times as many."""

T = TypeVar("T")
Timed = Callable[[Callable[[], T]], tuple[float, T]]


def timed_by(clock: Callable[[], float]) -> Timed:
    def timed(call: Callable[[], T]) -> tuple[float, T]:
        began = clock()
        answer = call()
        return clock() - began, answer

    return timed


def base_rate(flank: int, letters: int, device: str, timed: Timed) -> float:
    """Positions a second of one network."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(PlainSpliceAI(flank).eval().state_dict(), Path(folder) / f"model_{flank}nt_rs1.pt")
        network = load_openspliceai(folder, device=device)
    tokens = np.random.default_rng(0).integers(0, 4, letters + flank).astype(np.uint8)
    network.score_tokens(tokens[: 2 * flank + 1000])  # once before, to be warm
    seconds, _ = timed(lambda: network.score_tokens(tokens))
    return letters / seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.genome")
    parser.add_argument("data", type=Path)
    parser.add_argument("base_model")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    timed = timed_by(time.process_time if on_cpu else time.perf_counter)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plan = plan_shards(DataConfig(data_root=options.data, base_model=options.base_model), 2)
    positions = sum(shard.positions for shard in plan.shards)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or folder / "model"
        if not options.model:
            save_model(build_model(MetaLayerConfig.from_yaml("genes")), model, {"base_model": options.base_model})
        scoring, parts = 0.0, []
        for shard in plan.shards:
            files = [plan.folder / file for file in shard.files]
            output = folder / f"shard_{shard.number}" / "scores.parquet"
            output.parent.mkdir()

            def score(shard=shard, files=files, output=output) -> dict:
                return score_shard(shard, files, model, output, device=options.device, threads=1)

            seconds, manifest = timed(score)
            scoring += seconds
            parts.append((output, manifest))
        facts = {
            "base_model": options.base_model,
            "genome_build": plan.genome_build,
            "model": ScoringModel(model, digest(model)).facts(),
        }
        whole = folder / "whole.parquet"
        merging, _ = timed(lambda: merge_shards(plan.shards, parts, facts, whole))
        stored = whole.stat().st_size
    read = sum(path.stat().st_size for path in plan.files)
    where = "CPU core" if on_cpu else torch.cuda.get_device_name()
    print(f"{positions:,} positions of {sum(len(shard.genes) for shard in plan.shards)} genes, {options.base_model}")
    print(f"positions a second of one {where}")
    print(f"scoring a shard, files to file  {positions / scoring:>12,.0f}")
    print(f"putting shards together         {positions / merging:>12,.0f}")
    for flank, letters in FLANKS.items():
        rate = base_rate(flank, letters * (1 if on_cpu else 20), options.device, timed)
        print(f"base, flank {flank:>6}, a network  {rate:>12,.0f}")
    print("bytes a position")
    print(f"base scores                     {read / positions:>12.2f}")
    print(f"scores                          {stored / positions:>12.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
