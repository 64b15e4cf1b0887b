"""Training on whole genes: from per-nucleotide score files to a model directory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metalayer.base.origin import seen_by_base, training_note
from metalayer.contigs import Contigs
from metalayer.core import MetaLayerConfig
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import genes_from_frame, read_gene_table
from metalayer.data.nucleotide_scores import base_models_in
from metalayer.data.same_genes import KnownGene, alike, known_genes, same_as
from metalayer.data.score_files import ScoreFile
from metalayer.data.splits import split_genes
from metalayer.data.tracks import TrackStore
from metalayer.errors import SplitError
from metalayer.files import sha256
from metalayer.formats.evidence import Evidence
from metalayer.settings.evidence import files_of
from metalayer.training import distributed
from metalayer.training.checkpoint import LAST
from metalayer.training.parts import Part, TrainingParts
from metalayer.training.trainer import new_model
from metalayer.workflows.fit import fit
from metalayer.workflows.train_meta import MODEL, resumed_config

logger = logging.getLogger(__name__)

TRAIN_TRACKS, VALID_TRACKS = "train_tracks.parquet", "valid_tracks.parquet"


def train_on_scores(
    scores: Sequence[Path],
    valid_scores: Sequence[Path],
    config: MetaLayerConfig,
    output_dir: Path,
    *,
    use_wandb: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Train on every position of the genes in per-nucleotide score files.

    Writes into `output_dir` what `train_meta_model` writes: checkpoints, history, curves and `model/`, the
    model directory.

    Args:
        scores: labelled Parquet files with letters, to train on. Where `config` does not name their base model, the
            name in their metadata is taken.
        valid_scores: likewise, to pick the best epoch and to calibrate on; none: `val_split` of the genes of
            `scores`, whole genes; those that overlap, have equal letters, or are paralogs by `gene_table`, together.
        config: model and training.
        output_dir: folder to write.
        use_wandb: log to Weights & Biases.
        resume: go on from `last_model.pt` of a run that was cut off, where there is one.

    Returns:
        history, best_epoch, calibration, genes of each part and paths; JSON-ready but for the paths.

    Raises:
        ArtifactError: files that cannot be used.
        ConfigError: settings that this does not read, such as `variant_source`.
        SplitError: a gene to train on that is the same data as one to validate on, or a part without genes.
        TrainingError: a part without sites, or a loss that is not finite.
    """
    config = MetaLayerConfig.for_scores(config.given(), separate=bool(valid_scores))
    is_named = _take_name(config, scores)
    folder = Path(output_dir)
    resumed = resume and (folder / LAST).exists()
    if resumed:
        config = resumed_config(folder / LAST, config)
    world = distributed.join(config.get_device())
    model = new_model(config, config, config.evidence)
    data = folder / "data"
    if world.is_first:
        read_tracks(scores, valid_scores, data, config)
    world.wait()
    parts = score_parts(data, bool(valid_scores), config)
    genes = {"train": list(parts.train.gene_ids), "valid": list(parts.valid.gene_ids)}
    logger.info("training on %d genes, validating on %d", *map(len, genes.values()))
    if is_named and (store := parts.train.store):
        places, build = store.genes(), store.genome_build
        learned = ((gene_id, places[gene_id].interval.chrom, build) for gene_id in genes["train"])
        if seen := seen_by_base(config.base_model, learned):
            logger.warning("%s", training_note(seen))
    tables = [path for path in (config.gene_table, config.aliases) if path]
    files = [*scores, *valid_scores, *tables, *files_of(config.evidence)]
    arrays = data / f"process-{world.rank}"
    fitted = fit(
        model,
        parts,
        config,
        folder / MODEL,
        {
            "base_model": config.base_model,
            "data_hash": {path.name: sha256(path) for path in files},
            "config": config.model_dump(mode="json"),
            "split": {**genes, "test": []},
        },
        arrays=arrays,
        checkpoints=folder,
        resume=resumed,
        use_wandb=use_wandb,
    )
    shutil.rmtree(arrays, ignore_errors=True)
    result: dict[str, Any] = {
        "history": fitted.history,
        "best_epoch": fitted.best_epoch,
        "genes": genes,
        "paths": {"model": folder / MODEL},
    }
    if not fitted.is_written:
        return result
    if fitted.trainer:
        fitted.trainer.plot_history()
    return {**result, "calibration": fitted.calibration}


def _take_name(config: MetaLayerConfig, scores: Sequence[Path]) -> bool:
    """Take the name of the base model from the files, where it was not given; returns whether it is known."""
    if config.base_model != MetaLayerConfig.model_fields["base_model"].default:
        return True
    names = {name for path in scores if path.is_file() for name in base_models_in(path)}
    if len(names) != 1 or "" in names:
        return False
    config.base_model = names.pop()
    return True


def read_tracks(scores: Sequence[Path], valid_scores: Sequence[Path], data: Path, config: MetaLayerConfig) -> None:
    """Read the files to train and to validate on into the folder `data`, for `score_parts`.

    Args:
        scores: files to train on.
        valid_scores: files to validate on; perhaps none.
        data: folder to write.
        config: gene table, aliases and `allow_introns`.

    Raises:
        ArtifactError: files that cannot be used, or a gene table of other genes.
        InputError: aliases that cannot be used.
    """
    table, contigs = gene_names(config)
    read_file(scores, data / TRAIN_TRACKS, table, contigs, config)
    if valid_scores:
        read_file(valid_scores, data / VALID_TRACKS, table, contigs, config)
    table.check("the scores", f"gene table {config.gene_table}")


def read_file(
    scores: Sequence[Path], canonical: Path, table: GeneNames, contigs: Contigs, config: MetaLayerConfig
) -> ScoreFile:
    """Files with the scores of `config.base_model`, as `ScoreFile.read` has them."""
    return ScoreFile.read(
        scores,
        canonical,
        table,
        contigs,
        base_model=config.base_model,
        allow_introns=config.allow_introns,
        evidence=Evidence(config.evidence, contigs) if config.evidence else None,
    )


def gene_names(config: MetaLayerConfig) -> tuple[GeneNames, Contigs]:
    """Gene table (empty where none was given) and names of contigs, of `gene_table` and `aliases`; errors as above."""
    contigs = Contigs.of(config.aliases)
    table = genes_from_frame(read_gene_table(config.gene_table, contigs)) if config.gene_table else {}
    return GeneNames(table), contigs


def score_parts(data: Path, separate: bool, config: MetaLayerConfig) -> TrainingParts:
    """The genes to train and to validate on.

    Args:
        data: folder of `read_tracks`.
        separate: whether there were files to validate on; else `val_split` of the genes is drawn by `seed`.
        config: share and seed.

    Raises:
        SplitError: a gene to train on that is the same data as one to validate on, or a part without genes.
    """
    store = TrackStore(data / TRAIN_TRACKS)
    genes = store.genes()
    known = known_genes(store, genes)
    if separate:
        other = TrackStore(data / VALID_TRACKS)
        validated = known_genes(other, other.genes())
        refuse_crossing(known, validated, "--scores", "--valid-scores")
        return TrainingParts(Part(sorted(genes), store), Part(sorted(other.genes()), other))
    chrom_of = {gene_id: gene.interval.chrom for gene_id, gene in genes.items()}
    part_of = split_genes(chrom_of, genes, {"valid": config.val_split}, config.seed, alike(known))
    parts = {part: sorted(gene_id for gene_id in genes if part_of[gene_id] == part) for part in ("train", "valid")}
    for part, there in parts.items():
        if not there:
            raise SplitError(
                f"{len(genes)} genes to train on leave none for the {part} part at val_split {config.val_split:g}; "
                "give more genes, another share, or --valid-scores"
            )
    return TrainingParts(Part(parts["train"], store), Part(parts["valid"], store))


def refuse_crossing(genes: Sequence[KnownGene], others: Sequence[KnownGene], option: str, other_option: str) -> None:
    """Refuse genes on both sides, by name, in any version, by place, by letters or as paralogs.

    Args:
        genes: of one side.
        others: of the other.
        option: which files `genes` are of.
        other_option: which files `others` are of.

    Raises:
        SplitError: a gene that is the same data as one of the others.
    """
    found = same_as(genes, others)
    both = sorted(gene_id for gene_id, why in found.items() if why.by == "name")
    if both:
        raise SplitError(
            f"{len(both)} genes are in {option} and in {other_option} ({', '.join(both[:5])}): what was learned from "
            "them would be judged on them. Give each gene once"
        )
    for gene_id, why in found.items():
        raise SplitError(
            f"{len(found)} genes of {option} share data with {other_option} (gene {gene_id} {why}, to begin with); "
            "leave one of each two out"
        )
