"""What a model is trained and validated on, whoever brings it: the genes of two parts of a split, their rows, variants.

Genes are taken in the order of their ids, so that the order of files, of a manifest or of a table changes no weight.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import polars as pl

from metalayer.data.crops import CropLoader, GeneArrays
from metalayer.data.dataset import MetaLayerDataset, RowLoader
from metalayer.data.loaders import RowPart, row_parts
from metalayer.data.splits import PARTS
from metalayer.data.tracks import TrackStore, open_tracks
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE, VariantWeights
from metalayer.errors import ArtifactError, ConfigError
from metalayer.models.meta import MetaSpliceModel
from metalayer.settings.flat import MetaLayerConfig
from metalayer.settings.sections import TrainConfig

logger = logging.getLogger(__name__)

Loader = RowLoader | CropLoader
Loaders = tuple[Loader, Loader]


@dataclass(frozen=True)
class Part:
    """One part of a split: its genes, and its rows where there are any.

    Attributes:
        gene_ids: all genes of the part.
        store: per-nucleotide scores with letters, of any of them; None where there are none.
        rows: None where the part has no rows.
    """

    gene_ids: Sequence[str]
    store: TrackStore | None
    rows: RowPart | None = None

    def tracked(self) -> list[str]:
        """Ids of its genes that have per-nucleotide scores with letters, in their order."""
        return sorted(gene_id for gene_id in self.gene_ids if self.store is not None and gene_id in self.store)

    def arrays(
        self, name: str, folder: Path | None, variants: VariantWeights | None = None, evidence: Sequence[str] = ()
    ) -> GeneArrays:
        """All positions of its genes.

        Args:
            name: of the part, for messages.
            folder: gets the arrays, which are then mapped; None holds them in memory.
            variants: weigh positions; None weighs all alike.
            evidence: names of that which the model reads.

        Raises:
            InputError: evidence that is not there.
            ArtifactError: none of its genes has per-nucleotide scores with letters.
        """
        there = self.tracked()
        if self.store is None or not there:
            raise ArtifactError(
                f"train.training_unit is genes, but none of the {len(self.gene_ids)} genes of the {name} part has "
                "per-nucleotide scores with letters; add nucleotide_scores/<base_model>_<chrom>.parquet, or train on "
                "rows"
            )
        if len(there) < len(self.gene_ids):
            logger.warning(
                "%d of %d genes of the %s part have no per-nucleotide scores and are left out",
                *(len(self.gene_ids) - len(there), len(self.gene_ids), name),
            )
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return GeneArrays.read(self.store, there, folder, variants, evidence)


@dataclass(frozen=True)
class TrainingParts:
    """What a training sees: nothing of it is a test gene.

    Attributes:
        train: to learn from.
        valid: to pick the best epoch and to calibrate on.
        variants: weigh positions and rows of `train`; None weighs all alike.
        num_workers: processes that fetch batches of rows.
    """

    train: Part
    valid: Part
    variants: VariantWeights | None = None
    num_workers: int = 0

    @classmethod
    def of_dataset(cls, dataset: MetaLayerDataset, config: MetaLayerConfig) -> tuple[Self, Part]:
        """The parts of a prepared training set, split by gene, and its test part.

        Args:
            dataset: of `prepare_training_dataset`.
            config: shares, seed and workers.

        Raises:
            ConfigError: shares that do not add up to 1.
            SchemaError: a training set without gene_id and chrom.
            SplitError: a part without a donor or an acceptor.
        """
        shares = config.train_split, config.val_split, config.test_split
        rows = row_parts(dataset, *shares, config.seed)
        store = open_tracks(dataset.beside("tracks.parquet"))
        gene_ids = dataset.frame["gene_id"]
        train, valid, test = (
            Part(gene_ids.gather(rows[name].rows).unique().sort().to_list(), store, rows[name]) for name in PARTS
        )
        variants = VariantWeights.read(dataset.beside(VARIANT_WEIGHTS_FILE))
        return cls(train, valid, variants, config.num_workers), test

    def loaders(self, model: MetaSpliceModel, config: TrainConfig, folder: Path | None) -> Loaders:
        """To train and to validate on: rows, or crops of genes, as `config.training_unit` says.

        Crops of training genes are drawn again each epoch; of validation genes they are all that there are.

        Args:
            model: how far it reads, and whether it reads score features.
            config: unit, sizes, shares and seed.
            folder: gets the mapped arrays of genes, which stay mapped while the loaders are used; None holds them.

        Raises:
            ArtifactError: a part without genes, or without rows, to train on.
            TrainingError: a part without sites.
            ConfigError: `augment_tracks` of a model that reads score features.
        """
        if config.training_unit == "rows":
            if self.train.rows is None or self.valid.rows is None:
                raise ConfigError("train.training_unit: given rows, and there are none; train on genes")
            return (
                self.train.rows.training(config.batch_size, config.seed, self.num_workers),
                self.valid.rows.validation(config.batch_size, self.num_workers),
            )
        loaders = []
        for name, part in (("train", self.train), ("valid", self.valid)):
            trains = name == "train"
            loaders.append(
                CropLoader(
                    part.arrays(name, folder and folder / name, self.variants if trains else None, model.evidence),
                    model.reach_bp,
                    crop_bp=config.crop_bp,
                    batch_crops=config.batch_crops,
                    easy_share=config.easy_share,
                    shuffle=trains,
                    seed=config.seed,
                    with_features=model.reads_features,
                    augmented=config.augment_tracks and trains,
                )
            )
        return loaders[0], loaders[1]

    def learned(self, config: TrainConfig) -> pl.DataFrame:
        """gene_id of what is learned from; of rows also their position."""
        rows = self.train.rows
        if config.training_unit == "genes" or rows is None:
            return pl.DataFrame({"gene_id": self.train.tracked()})
        return rows.table.frame.select("gene_id", "position")[rows.rows]
