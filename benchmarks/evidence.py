"""Two BigWigs as evidence: what they add to training on whole genes and to scoring them, in CPU time of one run."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import polars as pl
import pyBigWig
import torch

from benchmarks.measure import Result, seconds
from metalayer.base.planted_evidence import CONSERVATION, JUNCTIONS
from metalayer.core import MetaLayerConfig
from metalayer.device import use_threads
from metalayer.models.bundle import save_model
from metalayer.models.meta import build_model
from metalayer.workflows.score_genes import score_genes
from metalayer.workflows.train_genes import train_on_scores

EPOCHS, REPEATS = 3, 5


def run(data: Path) -> list[Result]:
    use_threads(1)
    evidence = {name: str(as_bigwig(data / "evidence" / f"{name}.parquet")) for name in (CONSERVATION, JUNCTIONS)}
    files = sorted(data.glob("nucleotide_scores/*.parquet"))
    positions = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in files)
    return [_training(data / "trained", files, evidence, positions), _scoring(data / "scored", files, evidence)]


def as_bigwig(table: Path) -> Path:
    """Parquet of evidence as BigWig; of a position on both strands the first number."""
    rows = pl.read_parquet(table).unique(["chrom", "position"], keep="first").sort("chrom", "position")
    genes = pl.read_csv(table.parents[1] / "genes.tsv", separator="\t", schema_overrides={"chrom": pl.String})
    lengths = dict(genes.group_by(pl.col("chrom").str.strip_prefix("chr")).agg(pl.col("end").max()).iter_rows())
    with pyBigWig.open(str(table.with_suffix(".bw")), "w") as out:
        parts = {str(part["chrom"][0]): part for part in rows.partition_by("chrom", maintain_order=True)}
        out.addHeader([(name, lengths[name]) for name in parts])
        for name, part in parts.items():
            ends, values = part["position"].to_list(), part["value"].to_list()
            out.addEntries([name] * len(ends), [end - 1 for end in ends], ends=ends, values=values)
    return table.with_suffix(".bw")


def _training(folder: Path, files: list[Path], evidence: dict[str, str], positions: int) -> Result:
    """From files to a model directory, reading included."""

    def train(sources: dict[str, str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        config = MetaLayerConfig.from_yaml("genes")
        config.base_model, config.max_epochs, config.device, config.evidence = "pwm", EPOCHS, "cpu", sources
        train_on_scores(files, [], config, folder)

    contestants = {"with": lambda: train(evidence), "without": lambda: train({})}
    times = seconds(contestants, REPEATS, time.process_time)
    rate, plain = (EPOCHS * positions / times[name] for name in ("with", "without"))
    return _compared(f"training on genes with two BigWigs, {EPOCHS} epochs and reading", rate, plain)


def _scoring(folder: Path, files: list[Path], evidence: dict[str, str]) -> Result:
    folder.mkdir()
    torch.manual_seed(0)
    models: dict[str, tuple[Path, dict[str, str]]] = {}
    for name, sources in (("with", evidence), ("without", {})):
        save_model(build_model(MetaLayerConfig.from_yaml("genes"), sources), folder / name, {"base_model": "pwm"})
        models[name] = folder / name, sources
    done = {name: 0 for name in models}

    def score(name: str) -> None:
        model, sources = models[name]
        done[name] = sum(score_genes(path, model, folder / "out.parquet", evidence=sources) for path in files)

    contestants = {"with": lambda: score("with"), "without": lambda: score("without")}
    times = seconds(contestants, REPEATS, time.process_time)
    rate, plain = (done[name] / times[name] for name in ("with", "without"))
    return _compared("scoring genes with two BigWigs", rate, plain)


def _compared(name: str, rate: float, plain: float) -> Result:
    note = f"{plain / rate - 1:+.1%} CPU, aim at most +15 %"
    return Result(name, rate, "positions/s of CPU", "without evidence", rate / plain, note)
