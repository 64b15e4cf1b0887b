"""Which genes train, validate and test: whole genes, never rows.

Windows of one gene overlap, and so do genes: rows of a gene, of genes that overlap it and of its
paralogs always share a part. What cannot be kept together (a paralog on a test chromosome) is left
out of training and counted. Where a gene has no place (no gene table, no per-nucleotide scores) any
gene of its chromosome may overlap it, so that whole chromosome shares a part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.base.origin import seen_by_base, training_note
from metalayer.contigs import own_names
from metalayer.data.gene_table import contigs_of, genes_from_frame
from metalayer.errors import SplitError
from metalayer.gene_groups import related, united
from metalayer.genome import Gene, chrom_order
from metalayer.schema import CLASSES
from metalayer.settings.sections import SplitConfig

logger = logging.getLogger(__name__)

PARTS = ("train", "valid", "test")
NOT_CHECKED_PARALOGS = "not checked: the gene table has no paralog_group"


def make_split(
    rows: Path, genes: Path | None, config: SplitConfig, base_model: str = "", genome_build: str | None = None
) -> dict[str, Any]:
    """Assign every gene of the rows to a part.

    Args:
        rows: labelled rows.
        genes: the typed gene table, if there is one.
        config: by chromosome or by gene.
        base_model: whose scores the rows have; empty says nothing of what it was trained on.
        genome_build: of the rows; None where unknown.

    Returns:
        The manifest, JSON-ready: for each of `PARTS` genes, rows, classes and chromosomes; `seen_by_base` (by part,
        which of these the base model itself was trained on, see `base.origin`; None for none); `left_out`
        (genes whose paralogs are in a held-out part); `related_test_genes` (groups of test genes that overlap or are
        paralogs, which an evaluation counts as one); `checks` with what was proven or not checked.

    Raises:
        SplitError: a chromosome in no part or in two, no gene table where one is needed, or a part
            without a donor or an acceptor.
    """
    counted = (
        pl.scan_parquet(rows)
        .group_by("gene_id", "chrom")
        .agg(pl.len().alias("rows"), *[(pl.col("splice_type") == name).sum().alias(name) for name in CLASSES])
        .sort("chrom", "gene_id")
        .collect()
    )
    placed = pl.read_parquet(genes) if genes else pl.DataFrame()
    table, ours = genes_from_frame(placed), own_names(contigs_of(placed))
    if config.by == "gene" and not table:
        raise SplitError(
            "split.by is gene, which needs a gene table to keep overlapping genes together: put genes.tsv into "
            "data.data_root, set data.gene_table, or split by chromosome"
        )
    chrom_of = dict(counted.select("gene_id", "chrom").iter_rows())
    lacking = sorted(set(chrom_of) - set(table))
    if config.by == "gene" and lacking:
        raise SplitError(
            f"split.by is gene, but the gene table lacks {len(lacking)} genes of the rows ({', '.join(lacking[:5])}): "
            "those that overlap another cannot be kept with it. Complete the table, or split by chromosome"
        )
    if lacking:
        whole = sorted({chrom_of[gene_id] for gene_id in lacking}, key=chrom_order)
        logger.warning(
            "%d genes have no known place (%s ...), so what overlaps them is not known: chromosomes %s stay whole",
            *(len(lacking), ", ".join(lacking[:3]), ", ".join(whole)),
        )
    part_of, left_out = parts_of(chrom_of, table, config, ours)
    manifest: dict[str, Any] = {"by": config.by, "seed": config.seed, "left_out": left_out}
    for part in PARTS:
        ids = sorted(gene for gene, name in part_of.items() if name == part)
        here = counted.filter(pl.col("gene_id").is_in(ids))
        manifest[part] = {
            "genes": ids,
            "rows": int(here["rows"].sum()),
            "classes": {name: int(here[name].sum()) for name in CLASSES},
            "chromosomes": sorted(here["chrom"].unique().to_list(), key=chrom_order),
        }
    manifest["seen_by_base"] = {
        part: seen_by_base(base_model, ((gene, chrom_of[gene], genome_build) for gene in manifest[part]["genes"]))
        for part in PARTS
    }
    if learned := manifest["seen_by_base"]["train"]:
        logger.warning("%s", training_note(learned))
    tested = manifest["test"]["genes"]
    together = united(tested, related(table[gene_id] for gene_id in tested if gene_id in table))
    manifest["related_test_genes"] = [group for group in together if len(group) > 1]
    manifest["checks"] = check_split(manifest, table, chrom_of)
    for part in PARTS:
        for name in ("donor", "acceptor"):
            if not manifest[part]["classes"][name]:
                raise SplitError(
                    f"the {part} part has no {name} ({len(manifest[part]['genes'])} genes on chromosomes "
                    f"{', '.join(manifest[part]['chromosomes']) or 'none'}; the data has "
                    f"{', '.join(sorted(set(chrom_of.values()), key=chrom_order))}). Change split.test_chroms, "
                    "valid_chroms or the fractions"
                    + ("" if not lacking else "; a gene table would let chromosomes be divided")
                )
    return manifest


def check_split(manifest: Mapping[str, Any], table: Mapping[str, Gene], chrom_of: Mapping[str, str]) -> dict[str, Any]:
    """Prove that nothing crosses the parts, from the manifest's own gene lists.

    Args:
        manifest: genes of each part.
        table: gene by id; a gene that is not there may overlap any other of its chromosome.
        chrom_of: chromosome of every gene of the rows.

    Returns:
        Numbers of crossing genes, overlapping gene pairs and paralog groups (each 0), or the reason
        why paralogs were not checked.

    Raises:
        SplitError: something crosses.
    """
    part_of: dict[str, str] = {}
    for part in PARTS:
        for gene_id in manifest[part]["genes"]:
            if gene_id in part_of:
                raise SplitError(f"gene {gene_id} is in both {part_of[gene_id]} and {part}")
            part_of[gene_id] = part
    checks: dict[str, Any] = {"genes_crossing": 0}
    placed = sorted(
        (table[gene_id] for gene_id in part_of if gene_id in table),
        key=lambda gene: (gene.interval.chrom, gene.interval.start),
    )
    without_place = [gene_id for gene_id in part_of if gene_id not in table]
    for gene_id in without_place:
        parts = {part_of[other] for other in part_of if chrom_of[other] == chrom_of[gene_id]}
        if len(parts) > 1:
            raise SplitError(
                f"gene {gene_id} has no place, and its chromosome {chrom_of[gene_id]} is in "
                f"{' and '.join(sorted(parts))}"
            )
    checks["overlapping_genes_crossing"] = 0
    checks["genes_without_place"] = len(without_place)
    reach: dict[str, Gene] = {}  # furthest-reaching gene so far, of each part
    for gene in placed:
        part = part_of[gene.gene_id]
        for other_part, other in reach.items():
            if other_part != part and gene.interval.overlaps(other.interval):
                raise SplitError(f"{gene.gene_id} ({part}) overlaps {other.gene_id} ({other_part})")
        best = reach.get(part)
        if best is None or best.interval.chrom != gene.interval.chrom or best.interval.end < gene.interval.end:
            reach[part] = gene
    parts_of_group: dict[str, str] = {}
    known = False
    for gene in placed:
        if gene.paralog_group is not None:
            known = True
            part = part_of[gene.gene_id]
            if parts_of_group.setdefault(gene.paralog_group, part) != part:
                raise SplitError(
                    f"paralog group {gene.paralog_group} is in both {parts_of_group[gene.paralog_group]} and {part}"
                )
    unknown = sum(gene.paralog_group is None for gene in placed) + len(without_place)
    checks["paralog_groups_crossing"] = 0 if known else NOT_CHECKED_PARALOGS
    checks["genes_without_paralog_group"] = unknown
    return checks


def parts_of(
    chrom_of: Mapping[str, str], table: Mapping[str, Gene], config: SplitConfig, ours: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Part of every gene, and why genes are left out.

    Args:
        chrom_of: chromosome by gene id.
        table: gene by id; a gene that is not there may overlap any other of its chromosome.
        config: by chromosome or by gene.
        ours: our names of chromosomes by those of the FASTA.
    """
    if config.by == "gene":
        fractions = {"test": config.test_fraction, "valid": config.valid_fraction}
        return split_genes(chrom_of, table, fractions, config.seed), {}
    return _by_chromosome(chrom_of, _groups(chrom_of, table), table, config, ours or {})


def split_genes(
    chrom_of: Mapping[str, str],
    table: Mapping[str, Gene],
    fractions: Mapping[str, float],
    seed: int,
    together: Sequence[Sequence[str]] = (),
) -> dict[str, str]:
    """Part of every gene, drawn at random: overlapping genes and paralogs together.

    Args:
        chrom_of: chromosome by gene id.
        table: gene by id; a gene that is not there may overlap any other of its chromosome.
        fractions: share of the genes of each part but `train`, which gets the rest.
        seed: draws.
        together: ids of further genes that must share a part.
    """
    return _draw(_groups(chrom_of, table, together), fractions, seed)


def _groups(
    chrom_of: Mapping[str, str], table: Mapping[str, Gene], together: Sequence[Sequence[str]] = ()
) -> list[list[str]]:
    """Genes that must share a part: overlapping ones, paralogs, a chromosome's where one of them has no place."""
    by_chrom: dict[str, list[str]] = {}
    for gene_id, chrom in chrom_of.items():
        by_chrom.setdefault(chrom, []).append(gene_id)
    undivided = {chrom for gene_id, chrom in chrom_of.items() if gene_id not in table}
    placed = related(table[gene_id] for gene_id in chrom_of if gene_id in table)
    return united(chrom_of, [*placed, *(by_chrom[chrom] for chrom in undivided), *together])


def _draw(groups: Iterable[list[str]], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Whole groups at random until each part has its fraction of the genes; the rest trains."""
    shuffled: list[list[str]] = sorted(groups)
    np.random.default_rng(seed).shuffle(shuffled)
    total = sum(len(group) for group in shuffled)
    part_of = {}
    filled = dict.fromkeys(fractions, 0)
    for group in shuffled:
        chosen = "train"
        for part, fraction in fractions.items():
            target = max(1.0, round(fraction * total))
            if filled[part] + len(group) <= target:
                chosen = part
                filled[part] += len(group)
                break
        part_of.update(dict.fromkeys(group, chosen))
    for part in [name for name, genes in filled.items() if not genes]:
        # Every group is larger than the part: the smallest, as long as one is left to train on.
        training = [group for group in shuffled if part_of[group[0]] == "train"]
        if len(training) > 1:
            _, smallest = min((len(group), group) for group in training)
            part_of.update(dict.fromkeys(smallest, part))
    return part_of


def _by_chromosome(
    chrom_of: Mapping[str, str],
    groups: Sequence[list[str]],
    table: Mapping[str, Gene],
    config: SplitConfig,
    ours: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Part of every gene, and why genes are left out; `ours`: our names of chromosomes by those of the FASTA."""
    there = set(chrom_of.values())
    lists = {"test": config.test_chroms, "valid": config.valid_chroms or (), "train": config.train_chroms or ()}
    listed = {
        chrom if chrom in there else ours.get(chrom, chrom): part for part, chroms in lists.items() for chrom in chroms
    }
    if config.train_chroms is not None:
        nowhere = sorted(there - set(listed), key=chrom_order)
        if nowhere:
            raise SplitError(
                f"chromosome {', '.join(nowhere)} of the data is in no part; add it to split.train_chroms, "
                "valid_chroms or test_chroms, or leave train_chroms out to train on all others"
            )
    part_of = {gene_id: listed.get(chrom, "train") for gene_id, chrom in chrom_of.items()}
    held_out = {gene_id for gene_id, part in part_of.items() if part == "test"}
    left_out: dict[str, str] = {}

    def leave_out(part: str, held: str) -> None:
        """Take genes of `part` out whose paralogs are in `held`."""
        groups_held = {
            table[g].paralog_group for g, p in part_of.items() if p == held and g in table and table[g].paralog_group
        }
        for gene_id in [g for g, p in part_of.items() if p == part]:
            if gene_id in table and table[gene_id].paralog_group in groups_held:
                left_out[gene_id] = f"paralog of a {held} gene"
                del part_of[gene_id]

    leave_out("valid", "test")
    leave_out("train", "test")
    if config.valid_chroms is not None:
        leave_out("train", "valid")
    else:
        remaining = [[g for g in group if g in part_of and g not in held_out] for group in groups]
        part_of.update(_draw([g for g in remaining if g], {"valid": config.valid_fraction}, config.seed))
    return part_of, left_out


def random_split(
    n_rows: int, train: float = 0.8, valid: float = 0.1, seed: int = 42
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row indices of three parts at random: LEAKY, windows of one gene land on both sides.

    For comparison with results obtained so; metrics on such a test part are not metrics on unseen
    genes. The pipeline never uses it.

    Returns:
        Three int64 index arrays: train, valid, and all the rest.
    """
    order = np.random.default_rng(seed).permutation(n_rows)
    first, second = round(train * n_rows), round((train + valid) * n_rows)
    return order[:first], order[first:second], order[second:]
