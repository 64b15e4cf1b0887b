"""What lies in a user's folder, and the settings of a run on it: `metalayer init`, and a run without a configuration.

Nothing of the demo is in these settings: the base model is the one whose files are there, chromosomes are the user's,
and the network is that of the preset for what it can be trained on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from metalayer import yaml12
from metalayer.base.origin import CISPLICEAI, seen_by_base, unseen_chroms
from metalayer.data.artifacts import read_sites
from metalayer.data.discovery import base_models_of, find_files, find_score_files
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import genes_from_frame, read_gene_table
from metalayer.data.nucleotide_scores import genome_build_of
from metalayer.data.splits import parts_of
from metalayer.errors import ArtifactError, ConfigError
from metalayer.evaluation.gate import new_to_base
from metalayer.evaluation.intervals import MIN_CLUSTERS
from metalayer.file_kinds import FASTA, GFF, head_of, kind_of
from metalayer.gene_groups import related, united
from metalayer.genome import Gene, builds_once, chrom_order, is_human_build, normalise_chrom
from metalayer.integrity import open_parquet
from metalayer.schema import CLASSES, SPLICED_SCORE, bases_of
from metalayer.settings.door import sectioned
from metalayer.settings.mistakes import choices
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import DataConfig, SplitConfig
from metalayer.words import count_of

logger = logging.getLogger(__name__)

CONFIG_NAME = "run.yaml"
"""Of the configuration in a data root."""
_TEST_SHARE, _VALID_SHARE, _LEAST_TRAIN_SHARE = 0.3, 0.15, 0.4
_FOREIGN = {".bw": "BigWig", ".bigwig": "BigWig", ".bedgraph": "bedGraph", ".bdg": "bedGraph", ".bed": "BED"}
_BATCH_ROWS = 1_000_000
_NAMED = 8


@dataclass(frozen=True)
class BaseFiles:
    """The files of one base model.

    Attributes:
        name: of the base model.
        scores: per-nucleotide Parquet.
        rows: whether there is a folder of artifact rows.
    """

    name: str
    scores: tuple[Path, ...] = ()
    rows: bool = False


@dataclass(frozen=True)
class Contents:
    """What lies in a folder.

    Attributes:
        root: the folder.
        bases: base models with files, by name.
        fasta: FASTA files, at the top or one folder below.
        annotations: GTF and GFF3 files, likewise.
        foreign: scores of other tools that `metalayer import` reads, likewise.
        gene_table: genes.tsv, if it is there.
        variants: the SpliceVarDB download, if it is there.
    """

    root: Path
    bases: Mapping[str, BaseFiles]
    fasta: tuple[Path, ...] = ()
    annotations: tuple[Path, ...] = ()
    foreign: tuple[Path, ...] = ()
    gene_table: Path | None = None
    variants: Path | None = None


@dataclass
class Genes:
    """The genes of a base model, with how many sites each has.

    Attributes:
        genes: gene by id, where its place is known.
        chroms: chromosome by gene id.
        sites: donors and acceptors by gene id.
        positions: of all genes; 0 where there are rows alone.
        builds: genome builds that the files name.
        letters: whether whole genes can be read.
        labels: whether the files say where sites are.
    """

    genes: dict[str, Gene] = field(default_factory=dict)
    chroms: dict[str, str] = field(default_factory=dict)
    sites: dict[str, tuple[int, int]] = field(default_factory=dict)
    positions: int = 0
    builds: tuple[str, ...] = ()
    letters: bool = False
    labels: bool = True

    @property
    def whole(self) -> bool:
        """Whether whole genes can be trained on and judged."""
        return self.letters and self.labels and self.positions > 0

    def clusters(self) -> list[list[str]]:
        """Genes that overlap or are paralogs together, as far as their places are known."""
        return united(self.sites, related(self.genes.values()))


@dataclass(frozen=True)
class Plan:
    """Settings for a run on the files of a base model.

    Attributes:
        base: its files.
        genes: its genes.
        values: sections with their settings, as a configuration has them.
        reasons: by `section.key`, why a setting is as it is.
        parts: which genes train, validate and test, by gene id.
        test_clusters: clusters of genes to test on that have donors, and that have acceptors; without those that the
            base model was trained on, where there are others.
        seen: of the genes to test on, those that the base model was trained on, see `base.origin`.
    """

    base: BaseFiles
    genes: Genes
    values: dict[str, dict[str, Any]]
    reasons: dict[str, str]
    parts: dict[str, str]
    test_clusters: tuple[int, int]
    seen: Mapping[str, Any] | None = None

    def config(self) -> RunConfig:
        """The settings, checked."""
        return RunConfig.from_dict(self.values)

    def text(self) -> str:
        """The settings as commented YAML."""
        lines = [
            "# Settings of  python pipelines/run.py --stack local --data-root DIR  for the data in this folder.",
            "# `python pipelines/run.py --data-root DIR --print-config` shows all others with their defaults.",
        ]
        for section, values in self.values.items():
            lines.append(f"{section}:")
            for key, value in values.items():
                reason = self.reasons.get(f"{section}.{key}")
                text = yaml12.dump({key: value}).rstrip("\n").replace("\n", "\n  ")
                lines.append(f"  {text}" + (f"  # {reason}" if reason else ""))
        return "\n".join(lines) + "\n"


def contents(root: Path) -> Contents:
    """Look at a folder; only the beginnings of files are read.

    Raises:
        ArtifactError: no such folder.
    """
    if not root.is_dir():
        raise ArtifactError(f"given {root}, which is {'a file' if root.exists() else 'not there'}; give a folder")
    bases: dict[str, BaseFiles] = {}
    for path in sorted(root.glob("nucleotide_scores/*.parquet")):
        for name in _bases_of(path):
            known = bases.get(name, BaseFiles(name))
            bases[name] = BaseFiles(name, (*known.scores, path))
    for path in sorted(root.glob("data/*/*/*_eval/meta_models")):
        name = path.parent.name.removesuffix("_eval")
        bases[name] = BaseFiles(name, bases[name].scores if name in bases else (), rows=True)
    kinds: dict[str, list[Path]] = {FASTA: [], GFF: [], "foreign": []}
    for path in sorted([*root.glob("*"), *root.glob("*/*")]):
        if path.is_file() and path.parent.name != "nucleotide_scores":
            kind = _kind(path)
            if kind in kinds:
                kinds[kind].append(path)
    gene_table, variants = root / "genes.tsv", root / "splicevardb.download.tsv"
    return Contents(
        root,
        dict(sorted(bases.items())),
        tuple(kinds[FASTA]),
        tuple(kinds[GFF]),
        tuple(kinds["foreign"]),
        gene_table if gene_table.is_file() else None,
        variants if variants.is_file() else None,
    )


def chosen_base(found: Contents, name: str | None = None) -> BaseFiles:
    """The base model to train for: the one that is named, or the only one.

    Raises:
        ArtifactError: none, or not the one that is named.
        ConfigError: several, and none is named.
    """
    if not found.bases:
        raise ArtifactError(f"{found.root}: no scores of a base model. {missing(found)}")
    if name is None and len(found.bases) > 1:
        raise ConfigError(
            f"{found.root} has the scores of {len(found.bases)} base models ({', '.join(found.bases)}); name one: "
            "--base NAME of metalayer init, --set data.base_model=NAME of a run"
        )
    if name is None:
        return next(iter(found.bases.values()))
    if name not in found.bases and len(several := bases_of(name)) > 1:
        return _side_by_side(found, name, several)
    if name not in found.bases:
        raise ArtifactError(
            f"data.base_model: given {name!r}, of which {found.root} has no files; {choices(name, found.bases)}"
        )
    return found.bases[name]


def _side_by_side(found: Contents, name: str, bases: Sequence[str]) -> BaseFiles:
    """The files that hold several base models.

    Raises:
        ArtifactError: none does.
    """
    try:
        return BaseFiles(name, find_score_files(DataConfig(base_model=name, data_root=found.root)))
    except ArtifactError as error:
        absent = [base for base in bases if base not in found.bases]
        raise ArtifactError(f"{choices(absent[0], found.bases)}; {error}" if absent else str(error)) from None


def missing(found: Contents) -> str:
    """What to do where a folder has no scores, in a sentence or two."""
    expected = "Expected are nucleotide_scores/<base>_<chrom>.parquet or data/<annotation>/<build>/<base>_eval"
    fasta = found.fasta[0] if found.fasta else "genome.fa"
    annotation = found.annotations[0] if found.annotations else "genes.gff3"
    genome = f"--fasta {fasta} --annotation {annotation}"
    if found.foreign:
        files = " ".join(map(str, found.foreign[:_NAMED])) + " ..." * (len(found.foreign) > _NAMED)
        given = f"{files} {genome}"
        return f"{expected}. Bring these in: metalayer import {given} --base NAME --output {found.root}"
    run = f"pip install --no-deps {CISPLICEAI} && metalayer base run --model cispliceai {genome} --output {found.root}"
    if found.fasta and found.annotations:
        return f"{expected}. Make them: {run}"
    own = f"metalayer import FILE {genome} --base NAME --output {found.root}"
    return f"{expected}. From scores that you have: {own}; from a genome: {run}"


def genes_of(found: Contents, base: BaseFiles) -> Genes:
    """Read which genes a base model has scores of, and how many sites; whole files, a stretch at a time.

    Raises:
        ArtifactError: files that cannot be read.
    """
    if base.scores:
        read = _genes_of_scores(base, _gene_table(found))
        if read.labels or not base.rows:
            return read
    return _genes_of_rows(found, base)


def plan(found: Contents, base: BaseFiles, genes: Genes) -> Plan:
    """Settings of a run on these genes: its parts by chromosome where there are enough, else by cluster of genes.

    Raises:
        ArtifactError: no labels, or too few genes to divide.
    """
    if not genes.labels:
        raise ArtifactError(
            f"{base.scores[0]}: no column label, so nothing says where sites are, and nothing can be learned; write it "
            "again with `metalayer base run` or `metalayer import`, which label by an annotation"
        )
    clusters = [cluster for cluster in genes.clusters() if any(sum(genes.sites[one]) for one in cluster)]
    if len(clusters) < 3:
        raise ArtifactError(
            f"{found.root}: {len(clusters)} clusters of genes with sites; at least one each is needed to train, to "
            "validate and to test on, and many more to show a gain"
        )
    values: dict[str, dict[str, Any]] = {"data": {"base_model": base.name}}
    reasons = {"data.base_model": "the base model whose scores are here"}
    if len(genes.builds) == 1:
        values["data"]["genome_build"] = genes.builds[0]
        reasons["data.genome_build"] = "of the files"
    values["split"], reasons["split.by"] = _split(clusters, genes, base.name)
    if genes.whole and len(bases_of(base.name)) > 1:
        values |= {"model": {"head": "stack"}, "train": {"training_unit": "genes"}}
        reasons["model.head"] = "several base models; both trains a network on top, where there are thousands of genes"
        reasons["train.training_unit"] = "a stack reads the scores around each position"
    elif genes.whole:
        preset, _ = sectioned(yaml12.read_mapping(Path(__file__).parents[1] / "configs" / "genes.yaml"))
        preset["data"].pop("base_model")
        values |= {name: section for name, section in preset.items() if section}
        reasons["train.training_unit"] = "there are scores, letters and labels of every position"
    else:
        values["train"] = {"training_unit": "rows"}
        why = "without letters" if base.scores and not genes.letters else "none of every position"
        reasons["train.training_unit"] = f"artifact rows are what is here; per-nucleotide scores: {why}"
    parts, _ = parts_of(genes.chroms, genes.genes, SplitConfig(**values["split"]))
    test = [tested for one in clusters if (tested := [gene_id for gene_id in one if parts.get(gene_id) == "test"])]
    build = genes.builds[0] if genes.builds else None
    seen = seen_by_base(base.name, ((one, genes.chroms[one], build) for cluster in test for one in cluster))
    learned = set(seen["genes"] if seen else ())
    counted = [cluster for cluster in test if learned.isdisjoint(cluster)] or test
    donors, acceptors = (sum(any(genes.sites[one][kind] for one in cluster) for cluster in counted) for kind in (0, 1))
    return Plan(base, genes, values, reasons, parts, (donors, acceptors), seen)


def summary(found: Contents, made: Plan) -> list[str]:
    """What was found and what follows, a line each."""
    genes, base = made.genes, made.base
    chroms = Counter(genes.chroms[one] for one in genes.sites)
    donors, acceptors = (sum(counts[kind] for counts in genes.sites.values()) for kind in (0, 1))
    clusters = [cluster for cluster in genes.clusters() if any(sum(genes.sites[one]) for one in cluster)]
    listed = ", ".join(f"{chrom} ({n:,})" for chrom, n in sorted(chroms.items(), key=lambda item: chrom_order(item[0])))
    there = [count_of(len(base.scores), "per-nucleotide file")] * bool(base.scores) + ["artifact rows"] * base.rows
    lines = [
        f"base model    {base.name}: {' and '.join(there)}"
        + (f"; also there: {', '.join(name for name in found.bases if name != base.name)}" * (len(found.bases) > 1)),
        f"genes         {len(genes.sites):,} in {count_of(len(clusters), 'cluster')} with sites (genes that overlap or "
        f"are paralogs are one), {genes.positions:,} positions",
        f"chromosomes   {listed}",
        f"build         {', '.join(genes.builds) or 'the files name none'}",
        f"labels        {count_of(donors, 'donor')}, {count_of(acceptors, 'acceptor')}",
        f"gene table    {'genes.tsv' if found.gene_table else 'none, so that paralogs are not known'}",
        f"split         {made.reasons['split.by']}",
        f"training      on {made.values['train']['training_unit']}: {made.reasons['train.training_unit']}",
    ]
    if found.variants:
        lines.append(
            "variants      splicevardb.download.tsv is not used; data.variant_source: splicevardb weighs by it"
        )
    fewest, seen = min(made.test_clusters), made.seen
    if seen:
        is_all = len(seen["genes"]) == seen["of"]
        then = f"rejects the model: {new_to_base(seen['unseen_chroms'])}" if is_all else "leaves these out"
        lines.append(f"held out      test genes: {seen['note']}; the gate {then}")
    if fewest < MIN_CLUSTERS:
        lines.append(
            f"gate          cannot be passed: {made.test_clusters[0]} clusters to test on have donors and "
            f"{made.test_clusters[1]} acceptors, and an interval needs {MIN_CLUSTERS} of each; bring more genes"
        )
    else:
        with_sites = (
            f"{made.test_clusters[0]:,} clusters to test on have donors and {made.test_clusters[1]:,} acceptors"
        )
        lines.append(f"gate          {with_sites}; at least {MIN_CLUSTERS} of each are needed")
    return lines


def _kind(path: Path) -> str | None:
    if (name := path.name.lower().removesuffix(".gz")).endswith(tuple(_FOREIGN)) or name.endswith((".npz", ".h5")):
        return "foreign"
    if not name.endswith((".fa", ".fasta", ".fna", ".gtf", ".gff", ".gff3")):
        return None
    return kind_of(head_of(path, "genome file", ArtifactError))


def _bases_of(path: Path) -> tuple[str, ...]:
    """The base models of a file: those that it names, else what stands before the chromosome in its name.

    Those that do not tell donors from acceptors are left out: nothing is trained over them alone.
    """
    if SPLICED_SCORE in open_parquet(path, "copy or write it again").schema_arrow.names:
        return ()
    return tuple(name or path.stem for name in base_models_of(path))


def _genes_of_scores(base: BaseFiles, table: GeneNames) -> Genes:
    read = Genes(builds=tuple(filter(None, builds_once(genome_build_of(path) for path in base.scores))))
    parts = []
    read.letters = True
    for path in base.scores:
        file = open_parquet(path, "copy or write it again")
        names = file.schema_arrow.names
        read.letters &= "base" in names
        read.labels &= "label" in names
        columns = ["gene_id", "chrom", "strand", "position", *(["label"] if "label" in names else [])]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            rows = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            counts = [
                ((pl.col("label").cast(pl.String).str.to_lowercase() == kind) if "label" in names else pl.lit(False))
                .sum()
                .alias(kind)
                for kind in CLASSES[:2]
            ]
            text = [pl.col(name).cast(pl.String) for name in ("gene_id", "chrom", "strand")]
            parts.append(
                rows.with_columns(*text)
                .group_by("gene_id", "chrom", "strand", maintain_order=True)
                .agg(pl.col("position").min().alias("start"), pl.col("position").max().alias("end"), pl.len(), *counts)
            )
    total = (
        pl.concat(parts)
        .group_by("gene_id", "chrom", "strand", maintain_order=True)
        .agg(pl.col("start").min(), pl.col("end").max(), pl.col("len").sum(), pl.col(CLASSES[:2]).sum())
    )
    for gene_id, chrom, strand, start, end, n, donors, acceptors in total.iter_rows():
        gene = Gene.from_table(gene_id, normalise_chrom(chrom), strand, start, end)
        known = table.find(gene.gene_id, gene.interval.chrom)
        read.genes[gene.gene_id] = replace(gene, paralog_group=known.paralog_group) if known else gene
        read.chroms[gene.gene_id] = gene.interval.chrom
        read.sites[gene.gene_id] = (int(donors), int(acceptors))
        read.positions += n
    return read


def _genes_of_rows(found: Contents, base: BaseFiles) -> Genes:
    files = find_files(DataConfig(base_model=base.name, data_root=found.root))
    read = Genes(builds=tuple(filter(None, [files.genome_build])))
    table = _gene_table(found)
    for file in files.artifacts:
        counts = read_sites(file).group_by("gene_id", "splice_type").len()
        for gene_id, kind, n in counts.iter_rows():
            donors, acceptors = read.sites.get(gene_id, (0, 0))
            read.sites[gene_id] = (donors + n, acceptors) if kind == CLASSES[0] else (donors, acceptors + n)
            read.chroms[gene_id] = normalise_chrom(file.chrom)
            if place := table.find(gene_id, read.chroms[gene_id]):
                read.genes[gene_id] = place
    return read


def _gene_table(found: Contents) -> GeneNames:
    return GeneNames(genes_from_frame(read_gene_table(found.gene_table)) if found.gene_table else {})


def _split(clusters: Sequence[Sequence[str]], genes: Genes, base_model: str) -> tuple[dict[str, Any], str]:
    """The section `split`, and why it is so."""
    by_chrom = Counter(genes.chroms[cluster[0]] for cluster in clusters)
    chroms = sorted(by_chrom, key=chrom_order)
    is_human = not genes.builds or all(is_human_build(build) for build in genes.builds)
    new = [chrom for chrom in chroms if chrom in (unseen_chroms(base_model) or ())] if is_human else []
    test = new if not new or _share(new, by_chrom) <= 1 - _LEAST_TRAIN_SHARE else _some_chroms(new, by_chrom)
    why = f"on chromosomes {', '.join(test)}, on which {base_model}, as published, was not trained"
    total = len(clusters)
    if not test:
        test = _some_chroms(chroms, by_chrom)
        why = f"on {_percent(_share(test, by_chrom))} of the clusters of genes, by chromosome"
    if test and min(sum(by_chrom[chrom] for chrom in test), total) >= MIN_CLUSTERS:
        return {"by": "chromosome", "test_chroms": test, "valid_fraction": _VALID_SHARE}, f"tests {why}"
    values = {"by": "gene", "test_fraction": _TEST_SHARE, "valid_fraction": _VALID_SHARE}
    share = _percent(_TEST_SHARE)
    return values, f"tests on {share} of the genes, drawn by cluster: too few chromosomes to set some aside"


def _some_chroms(chroms: Sequence[str], by_chrom: Mapping[str, int]) -> list[str]:
    """Chromosomes with about the share to test on, the smallest first; none where too little is left to train on."""
    chosen: list[str] = []
    for chrom in sorted(chroms, key=lambda one: (by_chrom[one], chrom_order(one))):
        if _share([*chosen, chrom], by_chrom) > 1 - _LEAST_TRAIN_SHARE:
            break
        chosen.append(chrom)
        if _share(chosen, by_chrom) >= _TEST_SHARE:
            break
    return sorted(chosen, key=chrom_order) if _share(chosen, by_chrom) >= _TEST_SHARE / 2 else []


def _share(chroms: Sequence[str], by_chrom: Mapping[str, int]) -> float:
    return sum(by_chrom[chrom] for chrom in chroms) / sum(by_chrom.values())


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
