"""The genes of each part of a split, as crops to train and to validate on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metalayer.config import TrainConfig
from metalayer.data.crops import CropLoader, GeneArrays
from metalayer.data.tracks import TrackStore
from metalayer.data.variant_weights import VariantWeights
from metalayer.errors import ArtifactError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenePart:
    """Genes of one part of a split.

    Attributes:
        store: where they are.
        gene_ids: which ones.
    """

    store: TrackStore
    gene_ids: Sequence[str]


def gene_loaders(
    train: GenePart,
    valid: GenePart,
    config: TrainConfig,
    reach_bp: int,
    with_features: bool,
    folder: Path,
    variants: VariantWeights | None = None,
) -> tuple[CropLoader, CropLoader]:
    """Crops of the training genes, drawn again each epoch, and all crops of the validation genes.

    Args:
        train: the training genes.
        valid: the validation genes.
        config: sizes, shares and seed.
        reach_bp: positions on either side that the model reads.
        with_features: whether it reads score features.
        folder: gets the mapped arrays.
        variants: weigh the training positions; validation counts all alike.

    Raises:
        TrainingError: a part without sites.
        ConfigError: `augment_tracks` of a model that reads score features.
    """
    loaders = []
    for name, part in (("train", train), ("valid", valid)):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        loaders.append(
            CropLoader(
                GeneArrays.read(part.store, part.gene_ids, place, variants if name == "train" else None),
                reach_bp,
                crop_bp=config.crop_bp,
                batch_crops=config.batch_crops,
                easy_share=config.easy_share,
                shuffle=name == "train",
                seed=config.seed,
                with_features=with_features,
                augmented=config.augment_tracks and name == "train",
            )
        )
    return loaders[0], loaders[1]


def genes_with_tracks(store: TrackStore | None, gene_ids: Sequence[str], part: str) -> GenePart:
    """The genes of a part that have per-nucleotide scores with letters.

    Raises:
        ArtifactError: there is none.
    """
    there = [gene_id for gene_id in gene_ids if store is not None and gene_id in store]
    if store is None or not there:
        raise ArtifactError(
            f"train.training_unit is genes, but none of the {len(gene_ids)} genes of the {part} part has "
            "per-nucleotide scores with letters; add nucleotide_scores/<base_model>_<chrom>.parquet, or train on rows"
        )
    if len(there) < len(gene_ids):
        logger.warning(
            "%d of %d genes of the %s part have no per-nucleotide scores and are left out",
            *(len(gene_ids) - len(there), len(gene_ids), part),
        )
    return GenePart(store, there)
