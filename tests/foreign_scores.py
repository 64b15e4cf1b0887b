"""Scores of a simulation as other people have them: written here, not by what reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pyBigWig
from numpy.typing import NDArray

TEXT = ("gene_id", "chrom", "strand", "base", "label")
SITES = ("donor", "acceptor")
STRANDS = {"+": "plus", "-": "minus"}


def scores_in(root: Path, base: str = "pwm") -> pl.DataFrame:
    """All per-nucleotide scores of a data root."""
    paths = sorted(root.glob(f"nucleotide_scores/{base}_chr*.parquet"))
    return pl.concat(
        [
            pl.read_parquet(path).with_columns(pl.col(TEXT).cast(pl.String), pl.col("position").cast(pl.Int64))
            for path in paths
        ]
    )


def genes(scores: pl.DataFrame) -> Iterator[pl.DataFrame]:
    yield from scores.partition_by("gene_id", maintain_order=True)


def contig_lengths(fasta: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    name = ""
    for line in fasta.read_text().splitlines():
        if line.startswith(">"):
            name = line[1:].split()[0]
            found[name] = 0
        else:
            found[name] += len(line)
    return found


def bigwigs(
    folder: Path, scores: pl.DataFrame, lengths: dict[str, int], moved: dict[tuple[str, str], int] | int = 0
) -> list[Path]:
    """A quartet, named as donor_plus.bw; moved: bases along the chromosome, of all or by class and strand."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for site in SITES:
        for strand, word in STRANDS.items():
            path = folder / f"{site}_{word}.bw"
            by = moved if isinstance(moved, int) else moved.get((site, strand), 0)
            part = scores.filter(pl.col("strand") == strand).sort("chrom", "position")
            with_score = part.filter(pl.col(f"{site}_score").is_not_null())
            file = pyBigWig.open(str(path), "w")
            file.addHeader(sorted(lengths.items()))
            for (chrom,), rows in with_score.group_by("chrom", maintain_order=True):
                start = rows["position"].to_numpy() - 1 + by
                file.addEntries(
                    [str(chrom)] * len(rows),
                    start,
                    ends=start + 1,
                    values=rows[f"{site}_score"].cast(pl.Float64).to_numpy(),
                )
            file.close()
            paths.append(path)
    return paths


def bedgraphs(folder: Path, scores: pl.DataFrame, separator: str = "\t") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for site in SITES:
        for strand, word in STRANDS.items():
            path = folder / f"{site}.{word}.bedGraph"
            rows = scores.filter(pl.col("strand") == strand).select("chrom", "position", f"{site}_score")
            lines = ["browser position chr1:1-100", f'track type=bedGraph name="{site}"']
            lines += [separator.join((c, str(p - 1), str(p), repr(s))) for c, p, s in rows.iter_rows()]
            path.write_text("\n".join(lines) + "\n")
            paths.append(path)
    return paths


def spliceai_array(gene: pl.DataFrame) -> NDArray[np.float32]:
    """(L, 3), neither, acceptor, donor in transcript sense."""
    columns = ("neither_score", "acceptor_score", "donor_score")
    array = gene.select(columns).to_numpy().astype(np.float32)
    return np.ascontiguousarray(array[::-1] if gene["strand"][0] == "-" else array)


def predict_h5(folder: Path, scores: pl.DataFrame, lengths: dict[str, int], flank: int = 40) -> Path:
    """`predict.h5` and `datafile.h5` of `openspliceai predict` with an annotation: genes with real letters around."""
    folder.mkdir(parents=True, exist_ok=True)
    names, letters, blocks = [], [], []
    for gene in genes(scores):
        gene_id, chrom, strand = gene.select("gene_id", "chrom", "strand").row(0)
        start, end = int(gene["position"][0]), int(gene["position"][-1])
        low, high = max(1, start - flank), min(lengths[chrom], end + flank)
        array = spliceai_array(gene)
        before, after = (start - low, high - end) if strand == "+" else (high - end, start - low)
        whole = np.full((high - low + 1, 3), (1, 0, 0), dtype=np.float32)
        whole[before : len(whole) - after] = array
        padded = np.concatenate([whole, np.full((-len(whole) % 5000, 3), (0.2, 0.4, 0.4), np.float32)])
        blocks.append(padded.reshape(-1, 5000, 3).transpose(0, 2, 1))
        names.append(f"{gene_id} {chrom}:{low}-{high}({strand}):+")
        letters.append("N" * len(whole))
    with h5py.File(folder / "predict.h5", "w") as file:
        file.create_dataset("predictions", data=np.concatenate(blocks), chunks=True)
    with h5py.File(folder / "datafile.h5", "w") as file:
        kind = h5py.string_dtype(encoding="utf-8")
        file.create_dataset("NAME", data=np.asarray(names, dtype=kind), dtype=kind)
        file.create_dataset("SEQ", data=np.asarray(letters, dtype=kind), dtype=kind)
    return folder / "predict.h5"


def predict_beds(
    folder: Path, scores: pl.DataFrame, threshold: float, flank: int = 40, past: int = 0, *, plain: bool = False
) -> list[Path]:
    """BED as `openspliceai predict` 0.0.7 with an annotation writes it, line by line.

    Args:
        folder: to write into.
        scores: of genes.
        threshold: calls lie above.
        flank: real letters around a gene.
        past: calls of each gene in the padding behind its end.
        plain: contigs have no `chr`, so that it takes no place from the names of sequences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {"Donor": [], "Acceptor": []}
    for gene in genes(scores):
        gene_id, chrom, strand = gene.select("gene_id", "chrom", "strand").row(0)
        low, high = int(gene["position"][0]) - flank, int(gene["position"][-1]) + flank
        array = spliceai_array(gene)
        whole = np.concatenate([np.zeros((flank, 3)), array, np.zeros((flank, 3)), np.full((past, 3), 0.4)])
        for at, (_, acceptor, donor) in enumerate(whole):
            for word, score, start, end in (("Acceptor", acceptor, at - 1, at), ("Donor", donor, at, at + 1)):
                if score > threshold and start >= 0 and plain:
                    sequence = f"{gene_id} {chrom.removeprefix('chr')}:{low}-{high}({strand}):+"
                    fields = (sequence, start, end, f"{sequence}_{word}", f"{score:.6f}", "+", "absolute_coordinates")
                    lines[word].append("\t".join(map(str, fields)))
                elif score > threshold and start >= 0:
                    place = (low - 1 + start, low - 1 + end) if strand == "+" else (high - end, high - start)
                    fields = (chrom, *place, f"{gene_id} {chrom}:{low}-{high}({strand})_{word}", f"{score:.6f}", strand)
                    lines[word].append("\t".join(map(str, fields)))
    paths = []
    for word, found in lines.items():
        paths.append(folder / f"{word.lower()}_predictions.bed")
        paths[-1].write_text("\n".join(found) + "\n")
    return paths
