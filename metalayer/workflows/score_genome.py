"""Every position of all genes, scored shard by shard and put together: what `--pipeline score` does in steps.

A shard is a run of genes in genome order. Its file appears whole or not at all; putting shards together checks that
every gene and every position is there once, and that one model has scored them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

import metalayer
from metalayer.data.discovery import check_written, find_score_files
from metalayer.data.nucleotide_scores import contigs_in, genes_in, genome_build_of, write_tracks
from metalayer.data.scored import ScoredGenome, ScoredGenomeWriter, genome_order
from metalayer.data.tracks import TrackStore
from metalayer.device import resolve_device, use_threads
from metalayer.errors import ArtifactError, ConfigError, InputError, MetalayerError
from metalayer.files import publish_file, scratch_directory, sha256
from metalayer.genome import LARGEST_32_BIT, Gene, builds_once, one_based
from metalayer.inference import Predictor
from metalayer.integrity import sealed
from metalayer.models.description import digest, read_description
from metalayer.registry import names
from metalayer.schema import SITE_CONVENTION, bases_of
from metalayer.settings.evidence import COLUMN, Source, absolute_sources, files_of
from metalayer.settings.sections import DataConfig, ScoreConfig
from metalayer.workflows.asked_evidence import evidence_for
from metalayer.workflows.progress import Progress

logger = logging.getLogger(__name__)

_SHARDS = 8

_FORMAT_VERSION = 1
_OPTION = "score.model"
_NAMES_TOLD = 5
_DIGITS = 12


class Shard(BaseModel):
    """Genes that one step scores; JSON-ready."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    number: int
    """From 1."""
    of: int
    """How many shards there are."""
    files: dict[str, str]
    """Per-nucleotide files that hold its genes: SHA-256 by name."""
    genes: tuple[tuple[str, str, str, int, int], ...]
    """gene_id, chrom, strand, start, end (1-based inclusive), in genome order."""
    evidence: dict[str, Source] = {}
    """That the model reads, by name, as of `data.evidence`, with whole paths."""
    evidence_files: tuple[str, ...] = ()
    """SHA-256 of its files, in their order."""
    allow_introns: bool = False
    """Whether introns may begin and end with anything; looked at where the files have labels."""

    @property
    def positions(self) -> int:
        """How many positions its genes have."""
        return sum(end - start + 1 for *_, start, end in self.genes)

    def placed(self) -> list[Gene]:
        """Its genes."""
        return [Gene.from_table(*line) for line in self.genes]


@dataclass(frozen=True)
class ScoringPlan:
    """What will be scored.

    Attributes:
        base_model: whose scores the files hold.
        genome_build: that the files name; None where they name none.
        files: SHA-256 by path, all in one folder.
        shards: of all their genes.
        contigs: names of chromosomes in the FASTA, by ours, as the files name them.
        evidence: SHA-256 by path of the files of `data.evidence`.
    """

    base_model: str
    genome_build: str | None
    files: dict[Path, str]
    shards: tuple[Shard, ...]
    contigs: dict[str, str]
    evidence: dict[Path, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """base_model, genome_build and contigs, of the files: JSON-ready."""
        return {"base_model": self.base_model, "genome_build": self.genome_build, "contigs": self.contigs}

    @property
    def data_hash(self) -> str:
        """SHA-256 over names and contents of the files, in hex."""
        names = {path.name: content for path, content in self.files.items()}
        names |= {f"evidence {number}": content for number, content in enumerate(self.evidence.values())}
        return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()

    @property
    def copied(self) -> dict[Path, str]:
        """SHA-256 by path of all that its steps read."""
        return {**self.files, **self.evidence}

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return next(iter(self.files)).parent


@dataclass(frozen=True)
class ScoringModel:
    """The model that scores.

    Attributes:
        directory: model directory.
        digest: its identity.
        name: registered name; None for a directory that was named.
        version: registered version, likewise.
    """

    directory: Path
    digest: str
    name: str | None = None
    version: int | None = None

    def facts(self) -> dict[str, Any]:
        """digest, name and version: JSON-ready."""
        return {"digest": self.digest, "name": self.name, "version": self.version}


def plan_shards(data: DataConfig, shards: int | None = None) -> ScoringPlan:
    """Cut all genes of a base model's per-nucleotide files into runs of about as many positions each.

    Args:
        data: which files.
        shards: how many; None: `_SHARDS`, or one a gene where there are fewer.

    Raises:
        ArtifactError: no files, or files that cannot be used; a gene in two of them; several genome builds.
        ConfigError: more shards than genes.
    """
    files = find_score_files(data)
    builds = [build for build in builds_once(map(genome_build_of, files)) if build]
    if len(builds) > 1:
        raise ArtifactError(f"{files[0].parent}: files of several genome builds, {', '.join(builds)}; score each alone")
    file_of: dict[str, Path] = {}
    genes: list[Gene] = []
    for path in files:
        for gene in genes_in(path):
            if gene.gene_id in file_of:
                raise ArtifactError(f"gene {gene.gene_id} is in {file_of[gene.gene_id]} and in {path}; give it once")
            file_of[gene.gene_id] = path
            genes.append(gene)
    shards = min(_SHARDS, len(genes)) if shards is None else shards
    if shards > len(genes):
        raise ConfigError(f"configuration: score.shards: given {shards}, but there are {len(genes)} genes to score")
    genes.sort(key=genome_order)
    ends = np.cumsum([len(gene) for gene in genes])
    cuts = [0]
    for number in range(1, shards):
        nearest = int(np.abs(ends - ends[-1] * number / shards).argmin()) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), len(genes) - (shards - number)))
    check_written(files)
    contents = {path: sha256(path) for path in files}
    evidence = absolute_sources(data.evidence)
    evidence_files = {path: sha256(path) for path in files_of(evidence)}
    made = []
    for number, (first, last) in enumerate(pairwise([*cuts, len(genes)]), start=1):
        part = genes[first:last]
        made.append(
            Shard(
                number=number,
                of=shards,
                files={path.name: contents[path] for path in sorted({file_of[gene.gene_id] for gene in part})},
                genes=tuple(
                    (g.gene_id, g.interval.chrom, g.strand, *one_based(g.interval.start, g.interval.end)) for g in part
                ),
                allow_introns=data.allow_introns,
                evidence=evidence,
                evidence_files=tuple(evidence_files.values()),
            )
        )
    contigs = {ours: theirs for path in files for ours, theirs in contigs_in(path).items()}
    build = builds[0] if builds else None
    return ScoringPlan(data.base_model, build, contents, tuple(made), contigs, evidence_files)


def named_model(config: ScoreConfig, base_model: str) -> ScoringModel | None:
    """The model directory that the configuration names; None where it means a registered one.

    Raises:
        InputError: no name of a model, or a model of another base model.
        ModelError, SchemaError: a directory that is incomplete or damaged, or of another feature schema.
    """
    wanted = None if config.model is None or isinstance(config.model, int) else names.parse(config.model, _OPTION)
    return _checked(wanted, base_model) if isinstance(wanted, Path) else None


def registered_model(config: ScoreConfig, base_model: str, tracking_uri: str) -> ScoringModel:
    """The champion, or the version that the configuration names, with its files.

    Args:
        config: which version.
        base_model: whose scores it reads.
        tracking_uri: of the registry.

    Raises:
        InputError: no champion, or no such version.
        RegistryError: the registry cannot be reached or refuses.
        ModelError: the stored model is damaged.
    """
    from metalayer.registry import versions

    name, given = versions.registered_name(base_model), config.model
    if given is None and versions.find_champion(name, tracking_uri) is None:
        raise InputError(
            f"{name} has no champion to score with: train one that passes the gate, or name a version or a model "
            "directory with score.model"
        )
    if given is None or isinstance(given, int):
        found = versions.known_version(name, given, tracking_uri) if given else None
        given = name if found is None else f"{name}/{found.version}"
    model = names.fetch(given, tracking_uri, _OPTION)
    assert model.registered is not None  # else it is a folder, which `named_model` knows
    return _checked(model.directory, base_model, model.registered.name, model.registered.version)


def any_model(given: str, tracking_uri: str, option: str) -> ScoringModel:
    """The model of a name, whatever its base models are; errors as of `registry.names.fetch`."""
    model = names.fetch(given, tracking_uri, option)
    registered = model.registered
    name, version = (registered.name, registered.version) if registered else (None, None)
    return ScoringModel(model.directory, digest(model.directory), name, version)


def _checked(directory: Path, base_model: str, name: str | None = None, version: int | None = None) -> ScoringModel:
    info = read_description(directory)
    if info.get("base_model") != base_model:
        raise InputError(
            f"score.model: {directory} recalibrates {info.get('base_model')!r}, but the scores are of {base_model!r}; "
            "name a model of that base, or set data.base_model"
        )
    return ScoringModel(directory, digest(directory), name, version)


def score_shard(
    shard: Shard, files: Sequence[Path], model: Path, output: Path, *, device: str = "auto", threads: int | None = None
) -> dict[str, Any]:
    """Score every position of a shard's genes.

    Args:
        shard: which genes.
        files: those of `shard.files`.
        model: model directory.
        output: Parquet of `data.scored`; appears whole or not at all.
        device: of the network.
        threads: CPU threads of the network; None: as many as cores.

    Returns:
        The manifest: shard, genes, positions, files, model digest and SHA-256 of the output. JSON-ready.

    Raises:
        ConfigError: evidence that the model does not read, or reads and is not there.
        ArtifactError: other files than were planned with, or genes in them that cannot be scored.
        ModelError: a model directory that is absent or damaged.
    """
    for path in files:
        if sha256(path) != shard.files.get(path.name):
            raise ArtifactError(f"{path}: changed since the run began; start it again")
    use_threads(threads)
    predictor = Predictor.load(model, resolve_device(device))
    evidence = evidence_for(predictor, files, shard.evidence, setting="data.evidence")
    manifest = {
        "shard": shard.number,
        "of": shard.of,
        "genes": len(shard.genes),
        "positions": shard.positions,
        "files": shard.files,
        "model_digest": predictor.digest,
        **({"evidence": {name: shard.evidence.get(name, COLUMN) for name in predictor.evidence}} if evidence else {}),
    }
    genes = {gene.gene_id: gene for gene in shard.placed()}
    output.parent.mkdir(parents=True, exist_ok=True)
    with scratch_directory(output.with_name(f"{output.name}-tracks")) as folder:
        tracks = folder / "tracks.parquet"
        no_sites = pl.DataFrame(schema={"gene_id": pl.String, "position": pl.Int64, "splice_type": pl.String})
        found = write_tracks(
            files,
            tracks,
            genes,
            lambda: no_sites,
            only=genes,
            base_models=bases_of(predictor.info["base_model"]),
            allow_introns=shard.allow_introns,
            evidence=evidence,
        )
        lacking = sorted(genes.keys() - TrackStore(tracks).genes().keys())
        if lacking:
            causes = ", ".join(f"{gene_id} ({found.genes_dropped.get(gene_id, 'absent')})" for gene_id in lacking[:5])
            raise ArtifactError(
                f"shard {shard.number}: {len(lacking)} genes cannot be scored: {causes}. None is left out in silence: "
                "fix or remove them in the per-nucleotide files"
            )
        if not found.letters:
            raise ArtifactError(f"shard {shard.number}: per-nucleotide files without letters; write them again")
        store = TrackStore(tracks)
        logger.info("shard %d of %d: %d genes, %s nt", shard.number, shard.of, len(genes), f"{shard.positions:,}")
        progress = Progress(shard.positions)
        is_long = any(gene.interval.end > LARGEST_32_BIT for gene in genes.values())
        with publish_file(output) as draft, ScoredGenomeWriter(draft, manifest, is_long=is_long) as writer:
            for gene_id, gene in genes.items():
                writer.add(gene, predictor.predict_gene_track(store.read(gene_id)))
                progress.add(len(gene))
    return manifest | {"sha256": sha256(output)}


def merge_shards(
    plan: Sequence[Shard],
    parts: Sequence[tuple[Path, Mapping[str, Any]]],
    facts: Mapping[str, Any],
    output: Path,
) -> dict[str, Any]:
    """Put shards together where they are complete.

    Args:
        plan: the shards there must be.
        parts: file and manifest of each that there is.
        facts: those of `ScoringPlan.facts`, and model (`ScoringModel.facts`), for the manifest.
        output: Parquet of `data.scored`; appears whole or not at all.

    Returns:
        The manifest of the whole: JSON-ready.

    Raises:
        MetalayerError: a shard or gene that is absent, there twice, damaged or of another model, all of them named.
    """
    mistakes = _mistakes(plan, parts, facts["model"]["digest"])
    if mistakes:
        raise MetalayerError("the shards are not put together:\n" + "\n".join(f"  {line}" for line in mistakes))
    in_order = sorted(parts, key=lambda part: int(part[1]["shard"]))
    manifest = {
        "format": "metalayer scores of whole genes",
        "format_version": _FORMAT_VERSION,
        "metalayer_version": metalayer.__version__,
        "site_convention": SITE_CONVENTION,
        **facts,
        "files": {name: content for shard in plan for name, content in shard.files.items()},
        "genes": sum(len(shard.genes) for shard in plan),
        "positions": sum(shard.positions for shard in plan),
        "shards": [dict(made) for _, made in in_order],
    }
    is_long = any(gene.interval.end > LARGEST_32_BIT for shard in plan for gene in shard.placed())
    with publish_file(output) as draft, ScoredGenomeWriter(draft, manifest, is_long=is_long) as writer:
        for shard, (path, _) in zip(plan, in_order, strict=True):
            scored = ScoredGenome(path)
            for gene in shard.placed():
                try:
                    writer.copy(gene, scored.rows(gene.gene_id))
                except ArtifactError as error:
                    raise MetalayerError(f"the shards are not put together: shard {shard.number}: {error}") from None
    logger.info("%d genes of %d shards, %s nt", manifest["genes"], len(plan), f"{manifest['positions']:,}")
    return manifest


def _mistakes(plan: Sequence[Shard], parts: Sequence[tuple[Path, Mapping[str, Any]]], model_digest: str) -> list[str]:
    """Why shards do not make a whole, each with its genes; empty where they do."""
    shards = {shard.number: shard for shard in plan}
    given = Counter(int(manifest["shard"]) for _, manifest in parts)
    lines = [f"shard {number} is none of the {len(plan)}" for number in sorted(given.keys() - shards.keys())]
    for number, shard in shards.items():
        if given[number] != 1:
            genes = _listed([line[0] for line in shard.genes])
            lines.append(f"shard {number} is {'missing' if not given[number] else 'there twice'}: genes {genes}")
    for path, manifest in parts:
        number = int(manifest["shard"])
        if number not in shards:
            continue
        if manifest["model_digest"] != model_digest:
            scored_by = manifest["model_digest"][:_DIGITS]
            lines.append(f"shard {number} was scored by model {scored_by}, not by {model_digest[:_DIGITS]}")
        if sha256(path) != manifest["sha256"]:
            lines.append(f"shard {number}: {path} is not the file that was written")
            continue
        planned, there = shards[number].placed(), ScoredGenome(path).genes()
        absent, extra = _other_genes(planned, there), _other_genes(there, planned)
        if absent:
            lines.append(f"shard {number} lacks {len(absent)} genes, or has them elsewhere: {_listed(absent)}")
        if extra:
            lines.append(f"shard {number} has {len(extra)} genes that are not its own: {_listed(extra)}")
        if not absent and not extra and planned != there:
            lines.append(f"shard {number} has genes twice, or in another order")
    return lines


def _other_genes(genes: Sequence[Gene], others: Sequence[Gene]) -> list[str]:
    there = set(others)
    return [gene.gene_id for gene in genes if gene not in there]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return ", ".join(names[:_NAMES_TOLD]) + more


def publish_scores(scored: Path, manifest: Mapping[str, Any], output: Path) -> Path:
    """Copy a file of scores to `output`, and its manifest beside it as JSON, which comes last.

    Args:
        scored: Parquet, of `merge_shards`.
        manifest: of the same.
        output: path of the copy.

    Returns:
        The JSON's path.
    """
    described = output.with_suffix(".json")
    with publish_file(described) as text, publish_file(output) as draft:
        shutil.copyfile(scored, draft)
        facts = {**manifest, "file": output.name, "bytes": draft.stat().st_size, "sha256": sha256(draft)}
        text.write_text(json.dumps(sealed(facts), indent=1), encoding="utf-8")
    return described
