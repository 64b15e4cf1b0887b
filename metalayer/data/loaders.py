"""Train, validation and test loaders of a training set: whole genes in one part, never rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.dataset import MetaLayerDataset, RowLoader
from metalayer.data.gene_table import load_genes
from metalayer.data.prevalence import prevalence_weights
from metalayer.data.row_table import Rows, RowTable
from metalayer.data.splits import PARTS, random_split, split_genes
from metalayer.data.tracks import TrackStore
from metalayer.errors import ConfigError, SchemaError, SplitError
from metalayer.schema import CLASSES, NEITHER

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowPart:
    """Rows of the genes of one part of a split.

    Attributes:
        table: where the rows are.
        rows: their numbers there, int64 (n,).
        in_genes: float32 (n,), positions of whole genes that each row stands for.
    """

    table: RowTable
    rows: Rows
    in_genes: NDArray[np.float32]

    @classmethod
    def read(cls, path: Path, tracks: Path | None, gene_ids: Sequence[str]) -> Self:
        """Rows of these genes from labelled rows, weighed with per-nucleotide scores, if there are any."""
        table = RowTable.read(path, gene_ids)
        return cls(table, np.arange(len(table)), prevalence_weights(table, TrackStore(tracks) if tracks else None))

    def training(self, batch_size: int, seed: int, num_workers: int = 0) -> RowLoader:
        """Shuffled, weighted by variants too."""
        weights = self.table.weights[self.rows] * self.in_genes
        return RowLoader(
            self.table, batch_size, rows=self.rows, weights=weights, shuffle=True, seed=seed, num_workers=num_workers
        )

    def validation(self, batch_size: int, num_workers: int = 0) -> RowLoader:
        """In order, weighted as whole genes: variants weigh what is learned, not what is measured."""
        return RowLoader(self.table, batch_size, rows=self.rows, weights=self.in_genes, num_workers=num_workers)


def create_dataloaders(
    dataset: MetaLayerDataset,
    train_split: float = 0.8,
    val_split: float = 0.1,
    test_split: float = 0.1,
    batch_size: int = 64,
    num_workers: int = 0,
    seed: int = 42,
    by: Literal["gene", "random"] = "gene",
) -> tuple[RowLoader, RowLoader, RowLoader]:
    """Split a training set and load its parts.

    Genes that overlap, and paralogs where they are known, stay together; for that `genes.parquet` lies
    beside the training set. Where `tracks.parquet` does, a negative row of the training and validation
    part weighs as many positions of its own part's genes as it stands for, times its sample weight.

    Args:
        dataset: the training set.
        train_split: share of the genes to train on.
        val_split: share to validate on.
        test_split: share to test on.
        batch_size: rows a batch.
        num_workers: processes that fetch batches.
        seed: draws the parts, and the order of the training rows.
        by: `gene`, or `random`: LEAKY, rows of one gene land on both sides (see `random_split`).

    Returns:
        Loaders of training (shuffled), validation and test rows.

    Raises:
        ConfigError: shares that do not add up to 1.
        SchemaError: a training set without gene_id and chrom.
        SplitError: a part without a donor or an acceptor.
    """
    parts = row_parts(dataset, train_split, val_split, test_split, seed, by)
    return (
        parts["train"].training(batch_size, seed, num_workers),
        parts["valid"].validation(batch_size, num_workers),
        parts["test"].validation(batch_size, num_workers),
    )


def row_parts(
    dataset: MetaLayerDataset,
    train_split: float,
    val_split: float,
    test_split: float,
    seed: int,
    by: Literal["gene", "random"] = "gene",
) -> dict[str, RowPart]:
    """The parts of `create_dataloaders` (train, valid, test), with its arguments and errors; test rows weigh 1."""
    check_shares(train_split, val_split, test_split)
    if by == "random":
        logger.warning("rows are split at random: windows of one gene land in several parts, and metrics are too good")
        parts = dict(zip(PARTS, random_split(len(dataset), train_split, val_split, seed), strict=True))
    elif by == "gene":
        parts = _by_gene(dataset, val_split, test_split, seed)
    else:
        raise ConfigError(f"by: given {by!r}; allowed are 'gene' and 'random'")
    for part, rows in parts.items():
        for site_class in range(NEITHER):
            if not (dataset.labels[rows] == site_class).any():
                raise SplitError(
                    f"the {part} part has no {CLASSES[site_class]} ({len(rows)} of {len(dataset)} rows); give it a "
                    "larger share, or prepare more data"
                )
    tracks = dataset.beside("tracks.parquet")
    store = TrackStore(tracks) if tracks and by == "gene" else None
    return {
        part: RowPart(dataset, rows, prevalence_weights(dataset, None if part == "test" else store, rows))
        for part, rows in parts.items()
    }


def check_shares(train_split: float, val_split: float, test_split: float) -> None:
    """Refuse shares that do not add up to 1.

    Raises:
        ConfigError: with what they add up to.
    """
    total = train_split + val_split + test_split
    if min(train_split, val_split, test_split) <= 0 or abs(total - 1.0) > 1e-6:
        raise ConfigError(
            f"train_split {train_split:g}, val_split {val_split:g}, test_split {test_split:g}: each must be above 0, "
            f"and together 1, not {total:g}"
        )


def _by_gene(dataset: MetaLayerDataset, val_split: float, test_split: float, seed: int) -> dict[str, Rows]:
    missing = [name for name in ("gene_id", "chrom") if name not in dataset.frame.columns]
    if missing:
        raise SchemaError(
            f"{dataset.path}: no column {', '.join(missing)}, so rows cannot be kept together by gene; write it with "
            "prepare_training_dataset"
        )
    chrom_of = dict(dataset.frame.select("gene_id", "chrom").unique(maintain_order=True).iter_rows())
    table = load_genes(dataset.beside("genes.parquet"))
    lacking = [gene_id for gene_id in chrom_of if gene_id not in table]
    if lacking:
        logger.warning(
            "%d of %d genes have no known place: their chromosomes stay whole, as any gene there may overlap them",
            *(len(lacking), len(chrom_of)),
        )
    part_of = split_genes(chrom_of, table, {"test": test_split, "valid": val_split}, seed)
    return {part: _in_order(dataset, [g for g, p in part_of.items() if p == part]) for part in PARTS}


def _in_order(dataset: MetaLayerDataset, gene_ids: Sequence[str]) -> Rows:
    """Numbers of the rows of these genes, in the order of `RowTable.read`: the order of files changes no weight."""
    rows = dataset.of_genes(gene_ids)
    keys = [name for name in ("chrom", "gene_id", "position") if name in dataset.frame.columns]
    order = dataset.frame.select(keys)[rows].select(pl.arg_sort_by(keys, maintain_order=True)).to_series()
    ordered: Rows = rows[order.to_numpy()]
    return ordered
