"""Evidence of simulated genes whose signal is known: conservation of exons and sites, and junction reads of a sample.

Conservation is of both strands, junctions of one. Both are numbers per base; where there is none they are missing:
between genes, in gaps of the alignment, and junctions in genes that the sample does not express. Decoys look like any
other base, but for a few that a wrong alignment put reads on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.base.simulator import Simulation
from metalayer.genome import Gene
from metalayer.schema import NEITHER

CONSERVATION, JUNCTIONS = "conservation", "junctions"
GAP_SHARE = 0.1
"""Share of blocks of 200 bp without an alignment, so without a number of conservation."""
EXPRESSED_SHARE = 0.8
"""Share of genes with junction reads."""
COVERED_SHARE = 0.9
"""Share of the sites of these genes with reads."""
STRAY_SHARE = 0.03
"""Share of decoys with reads."""
_BLOCK_BP = 200
_SITE_BP = 3
_EXON_MEAN, _SITE_MEAN = 1.0, 3.0
_READS = 20.0


def planted_evidence(simulation: Simulation, seed: int) -> Iterator[tuple[Gene, dict[str, NDArray[np.float32]]]]:
    """Evidence by name of each gene, float32 (L,), NaN where missing, transcript sense; a function of the seed."""
    rng = np.random.default_rng([seed, 2])
    for item in simulation.genes:
        length, sites = len(item.tokens), np.flatnonzero(item.labels != NEITHER)
        mean = np.zeros(length)
        for start, end in item.exons:
            mean[start:end] = _EXON_MEAN
        for site in sites:
            mean[max(0, site - _SITE_BP) : site + _SITE_BP + 1] = _SITE_MEAN
        conserved = (mean + rng.standard_normal(length)).round(2).astype(np.float32)
        gaps = rng.random(-(-length // _BLOCK_BP)) < GAP_SHARE
        conserved[np.repeat(gaps, _BLOCK_BP)[:length]] = np.nan
        reads = np.zeros(length, np.float32)
        covered = sites[rng.random(len(sites)) < COVERED_SHARE]
        reads[covered] = 1 + rng.poisson(_READS, len(covered))
        decoys = np.array([base for base, _ in item.decoys], np.int64)
        strays = decoys[rng.random(len(decoys)) < STRAY_SHARE]
        reads[strays] = 1 + rng.poisson(_READS / 4, len(strays))
        if rng.random() >= EXPRESSED_SHARE:
            reads[:] = np.nan
        yield item.gene, {CONSERVATION: conserved, JUNCTIONS: reads}


def write_evidence(folder: Path, simulation: Simulation, seed: int) -> None:
    """Write `conservation.parquet` (of both strands) and `junctions.parquet` (with strand), positions 1-based."""
    folder.mkdir(parents=True)
    rows: dict[str, list[pl.DataFrame]] = {CONSERVATION: [], JUNCTIONS: []}
    for gene, evidence in planted_evidence(simulation, seed):
        turn = slice(None, None, -1 if gene.strand == "-" else 1)
        places = np.arange(gene.interval.start + 1, gene.interval.end + 1)
        for name, values in evidence.items():
            known = ~np.isnan(values[turn])
            frame = pl.DataFrame({"position": places[known], "value": values[turn][known]})
            rows[name].append(
                frame.select(pl.lit(gene.interval.chrom).alias("chrom"), pl.lit(gene.strand).alias("strand"), pl.all())
            )
    for name, frames in rows.items():
        table = pl.concat(frames)
        keys = ["chrom", "position"]
        if name == CONSERVATION:  # where genes overlap, that of the first counts
            table = table.unique(keys, keep="first", maintain_order=True).drop("strand")
        else:
            keys.append("strand")
        table.sort(keys).write_parquet(folder / f"{name}.parquet", compression="zstd")
