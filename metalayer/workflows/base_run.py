"""The base-layer pass: any base model over any annotation, gene by gene, to a data root.

Annotation and reference are checked against each other before anything is scored. Scores of finished genes
are kept beside the output until the whole pass is published, so a pass that was killed goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import metalayer
from metalayer import storage
from metalayer.base.annotation import AnnotatedGene, in_words
from metalayer.base.artifacts import ScoredGene, artifact_directory, write_artifacts, write_scores
from metalayer.base.genome_files import write_gene_table
from metalayer.base.installed_tables import annotation_file
from metalayer.base.protocol import BaseModel, load_base_model
from metalayer.data.gene_table import genes_from_frame, read_gene_table
from metalayer.device import use_threads
from metalayer.errors import ConfigError, InputError, MetalayerError
from metalayer.files import only_one, publish_file, sha256
from metalayer.formats.evidence import Evidence
from metalayer.gene_track import GeneTrack
from metalayer.genome import LARGEST_32_BIT, Gene, decode, reverse_complement, same_build
from metalayer.integrity import content_digest, unsealed, write_json
from metalayer.provenance import code_hash
from metalayer.schema import BASE_SCORES, KERNELS_KEY, PRECISION_KEY, SITE_CONVENTION
from metalayer.settings.evidence import COLUMN, files_of
from metalayer.settings.sections import BaseConfig
from metalayer.workflows.annotated_genome import AnnotatedGenome, file_facts
from metalayer.workflows.progress import Progress

logger = logging.getLogger(__name__)

_FORMAT_VERSION = 1
_SHA256_BYTES = 32


def base_run(config: BaseConfig) -> dict[str, Any]:
    """Score every position of every gene and write a data root: artifact rows, scores, gene table, manifest.

    A base model that does not tell donors from acceptors has no artifact rows.

    Args:
        config: model, files and output.

    Returns:
        The manifest, as in `base_layer_<model>.json`: JSON-ready.

    Raises:
        ConfigError: an unknown model, or options that it does not take.
        InputError: files that cannot be used, of which too much would be left out, or that are not of one genome
            build; a chromosome that the FASTA lacks; aliases that cannot be used; an output that holds other genes.
        ModelError: weights that are damaged or of another architecture.
        MetalayerError: another pass of this model writes there, a worker that died, or a full disk; finished
            genes are kept.
    """
    config = config.model_copy(update={"annotation": annotation_file(config.annotation)})
    model = _load(config)
    if config.evidence and (model.columns != BASE_SCORES or COLUMN in config.evidence.values()):
        raise ConfigError(
            f"base.evidence: given for {model.name}; it is files beside a base model that tells donors from acceptors. "
            "Leave it out, and name it in data.evidence"
        )
    facts = _facts(config, model)
    genome = AnnotatedGenome.read(
        config.fasta,
        config.annotation,
        config.aliases,
        min_intron_bp=config.min_intron_bp,
        allow_introns=config.allow_introns,
    )
    by_chrom, genes, reference, own_names = genome.by_chrom, genome.genes, genome.reference, genome.own_names
    evidence = Evidence(config.evidence, genome.contigs) if config.evidence else None
    positions = sum(map(len, genes))
    logger.info("%d genes on %d chromosomes, %s nt", len(genes), len(by_chrom), f"{positions:,}")
    manifest_path = config.output / manifest_name(model.name)
    has_gene_table = has_genes(config.output / "genes.tsv", genes, manifest_path)
    lock = config.output / f".base-layer-{model.name}.lock"
    with _told(config), only_one(lock, "give this pass another output"):
        kept = _kept_folder(config.output, model.name, content_digest(facts))
        kernels = _kernels(kept, model)
        if kernels:
            logger.info("%s in %s (%s)", model.name, facts["precision"], ", ".join(kernels))

        def scored() -> Iterator[ScoredGene]:
            progress = Progress(positions)
            with _Scorer(model, config, kept) as scorer:
                for chrom, tokens in reference.chromosomes(by_chrom):
                    for annotated, letters, scores in scorer.over(by_chrom[chrom], tokens):
                        progress.add(len(letters))
                        labels, marks = annotated.labels(config.labels), annotated.marks()
                        yield annotated.gene, letters, scores, labels, marks

        files: dict[str, Any] = {
            "base_model": model.name,
            "build": config.build,
            "long_chroms": {gene.interval.chrom for gene in genes if gene.interval.end > LARGEST_32_BIT},
            "contigs": own_names,
            "metadata": {PRECISION_KEY: facts["precision"], KERNELS_KEY: json.dumps(kernels)} if kernels else {},
        }
        if model.columns == BASE_SCORES:
            tracks = (
                GeneTrack(gene, tokens, scores, labels, marks=marks, evidence=evidence.values(gene) if evidence else {})
                for gene, tokens, scores, labels, marks in scored()
            )
            report = write_artifacts(config.output, tracks, annotation_source=config.annotation_source, **files)
        else:
            report = write_scores(config.output, scored(), columns=model.columns, **files)
        if not has_gene_table:
            write_gene_table(config.output / "genes.tsv", genes, own_names)
        manifest = {
            "format": "metalayer base layer",
            "format_version": _FORMAT_VERSION,
            "fingerprint": content_digest(facts),
            "site_convention": SITE_CONVENTION,
            "genome_build": config.build,
            "annotation_source": config.annotation_source,
            **facts,
            "columns": list(model.columns),
            "origin": model.origin.described(),
            **({"kernels": kernels} if kernels else {}),
            "genes": report.genes,
            "positions": report.positions,
            "sites": report.sites,
            "sites_without_row": report.sites_without_row,
            "rows": report.rows,
            "introns": genome.fitting.introns,
            "canonical": genome.fitting.canonical,
            "any_introns_allowed": config.allow_introns,
            "annotation_handled": genome.handled,
            "principal_by": genome.principal_by(),
            "contigs": own_names,
            "ambiguous_letters": reference.ambiguous,
            "files": _files(config, model.name),
        }
        write_json(manifest_path, manifest)
        shutil.rmtree(kept, ignore_errors=True)
    for line in (*genome.labels_in_words(config.labels), *in_words(genome.handled)):
        logger.info("%s: %s", config.annotation.name, line)
    return manifest


def manifest_name(base_model: str) -> str:
    """The manifest's file in a data root, which may hold passes of several base models."""
    return f"base_layer_{base_model}.json"


def fingerprint(config: BaseConfig) -> str:
    """SHA-256 of all that decides the scores: code, model, weights, padding, reference and annotation, by content.

    Raises:
        ConfigError, InputError, ModelError: as in `base_run`, of model, weights and absent files.
    """
    return content_digest(_facts(config, _load(config)))


def is_written(config: BaseConfig, data_hash: str) -> bool:
    """Whether a pass of this fingerprint has written `config.output`, and its files are as it left them."""
    wanted = {"fingerprint": data_hash, "annotation_source": config.annotation_source}
    for path in config.output.glob(manifest_name("*")):
        with contextlib.suppress(ValueError):  # damaged: not of a finished pass
            manifest = unsealed(path.read_text(encoding="utf-8"))
            if wanted.items() <= manifest.items() and same_build(manifest.get("genome_build"), config.build):
                return not changed_files(manifest, config.output)
    return False


def changed_files(manifest: Mapping[str, Any], output: Path) -> list[str]:
    """Files of a pass that are gone, or other than it wrote them."""
    return [
        name
        for name, digest in manifest["files"].items()
        if not (output / name).is_file() or sha256(output / name) != digest
    ]


def _load(config: BaseConfig) -> BaseModel:
    given = {name: getattr(config, name) for name in ("weights", "flank", "device", "precision")}
    return load_base_model(config.model, **{name: value for name, value in given.items() if value is not None})


def _facts(config: BaseConfig, model: BaseModel) -> dict[str, Any]:
    """All that decides the scores; a pass with other facts starts again."""
    return {
        "metalayer_version": metalayer.__version__,
        "code_hash": code_hash(),
        "base_model": model.name,
        "flank_bp": model.flank_bp,
        "padding": config.flanks,
        "min_intron_bp": config.min_intron_bp,
        "labels": config.labels,
        "weights_sha256": getattr(model, "weights", {}),
        **({"precision": model.precision} if hasattr(model, "precision") else {}),
        "fasta": file_facts("FASTA", config.fasta),
        "annotation": file_facts("annotation", annotation_file(config.annotation)),
        **({"aliases": file_facts("aliases", config.aliases)} if config.aliases else {}),
        **({"evidence": _evidence_facts(config)} if config.evidence else {}),
    }


def _evidence_facts(config: BaseConfig) -> dict[str, Any]:
    named = ((name, files_of({name: source})) for name, source in config.evidence.items())
    return {name: [file_facts(f"evidence {name}", path) for path in paths] for name, paths in named}


def _files(config: BaseConfig, model: str) -> dict[str, str]:
    """What the pass has written, by path below the output, with its SHA-256."""
    paths = [
        *artifact_directory(config.output, model, config.annotation_source, config.build).glob("*.tsv"),
        *(config.output / "nucleotide_scores").glob(f"{model}_chr*.parquet"),
        config.output / "genes.tsv",
    ]
    return {path.relative_to(config.output).as_posix(): sha256(path) for path in sorted(paths)}


def _kept_folder(output: Path, model: str, digest: str) -> Path:
    """Where scores of finished genes are kept; those of an earlier pass of this model with other facts go."""
    kept = output / f".base-layer-{model}-{digest[:16]}"
    for old in output.glob(f".base-layer-{model}-{'[0-9a-f]' * 16}"):
        if old != kept:
            shutil.rmtree(old, ignore_errors=True)
    kept.mkdir(exist_ok=True)
    return kept


def _kernels(kept: Path, model: BaseModel) -> list[str]:
    """The instructions that this pass's networks run on, with those of the machines where it was begun.

    They change the last digits alone, so they do not start a pass again; none of a model that is no network.
    """
    own = getattr(model, "kernels", None)
    if own is None:
        return []
    path = kept / "kernels.txt"
    known = sorted({own, *(path.read_text(encoding="ascii").split() if path.exists() else ())})
    with publish_file(path) as draft:
        draft.write_text("\n".join(known), encoding="ascii")
    return known


@contextlib.contextmanager
def _told(config: BaseConfig) -> Iterator[None]:
    """What can happen in hours, as errors that say how to go on."""
    again = "finished genes are kept: run the same command again"
    try:
        yield
    except BrokenProcessPool:
        raise MetalayerError(
            f"one of {config.workers} processes that score genes died, most often because memory ran out; "
            f"{again}, with fewer workers"
        ) from None
    except OSError as error:
        told = storage.explained(error) or MetalayerError(str(error))
        raise type(told)(f"{config.output} cannot be written: {told}. All {again}") from error


def has_genes(path: Path, genes: Sequence[Gene], own_manifest: Path) -> bool:
    """Whether the gene table there holds these genes; if not, it may be replaced.

    Raises:
        InputError: it holds others, and is not of this model's own earlier pass alone.
    """
    if not path.exists():
        return False
    there = genes_from_frame(read_gene_table(path))
    other = [gene for gene in genes if _place(gene) != _place(there.get(gene.gene_id))]
    if not other:
        return True
    if set(path.parent.glob(manifest_name("*"))) == {own_manifest}:
        return False
    raise InputError(
        f"{path} is of another annotation: {len(other)} of {len(genes)} genes are not in it or lie elsewhere, the "
        f"first {other[0].gene_id}; a data root has one gene table. Give another output"
    )


def _place(gene: Gene | None) -> object:
    return gene and (gene.interval, gene.strand)


def _letters(
    gene: AnnotatedGene, chromosome: NDArray[np.uint8], flank_bp: int, flanks: str
) -> tuple[NDArray[np.uint8], str, str]:
    """Tokens of the gene and the text before and after it, transcript sense."""
    span = gene.gene.interval
    tokens = chromosome[span.start : span.end]
    left, right = chromosome[max(0, span.start - flank_bp) : span.start], chromosome[span.end : span.end + flank_bp]
    if gene.gene.strand == "-":
        tokens, left, right = reverse_complement(tokens), reverse_complement(right), reverse_complement(left)
    if flanks == "N":
        return tokens, "", ""
    return tokens, decode(left), decode(right)


_Scores = NDArray[np.float32]


class _Scorer:
    """Scores genes in order, in this process or in several, keeping what is done on disk."""

    def __init__(self, model: BaseModel, config: BaseConfig, kept: Path) -> None:
        self.model, self.config, self.kept = model, config, kept
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Scorer:
        if self.config.workers > 1:
            spawned = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.config.workers, spawned, _start_worker, (self.config,))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def over(
        self, genes: Sequence[AnnotatedGene], chromosome: NDArray[np.uint8]
    ) -> Iterator[tuple[AnnotatedGene, NDArray[np.uint8], _Scores]]:
        """Each gene with its letters and scores; with several processes, a few genes ahead are being scored."""
        ahead = 2 * self.config.workers if self._pool else 0
        begun: deque[tuple[AnnotatedGene, NDArray[np.uint8], Callable[[], _Scores]]] = deque()
        for gene in genes:
            tokens, before, after = _letters(gene, chromosome, self.model.flank_bp, self.config.flanks)
            begun.append((gene, tokens, self._begin(gene, tokens, before, after)))
            if len(begun) > ahead:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())

    def _begin(self, gene: AnnotatedGene, tokens: NDArray[np.uint8], before: str, after: str) -> Callable[[], _Scores]:
        """What gives the scores of a gene and keeps them."""
        path = self.kept / (hashlib.sha256(gene.gene.gene_id.encode()).hexdigest()[:24] + ".npy")
        done = _read_kept(path, (len(tokens), len(self.model.columns)))
        if done is not None:
            return lambda: done
        letters = decode(tokens)
        if self._pool:
            result = self._pool.submit(_score_in_worker, letters, before, after).result
        else:
            result = partial(self.model.score, letters, before, after)

        def finish() -> _Scores:
            scores = result()
            _keep(path, scores)
            return scores

        return finish


def _finished(
    gene: AnnotatedGene, tokens: NDArray[np.uint8], scores: Callable[[], _Scores]
) -> tuple[AnnotatedGene, NDArray[np.uint8], _Scores]:
    return gene, tokens, scores()


def _keep(path: Path, scores: _Scores) -> None:
    """Keep the scores of a gene, with their SHA-256 behind them."""
    content = io.BytesIO()
    np.save(content, scores)
    part = path.with_suffix(".part")
    with part.open("wb") as handle:
        handle.write(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def _read_kept(path: Path, shape: tuple[int, int]) -> _Scores | None:
    """Scores of a gene that an earlier, unfinished pass has kept; None where there are none to use."""
    if not path.exists():
        return None
    content = path.read_bytes()
    scores: _Scores = np.empty(0, np.float32)
    if content[-_SHA256_BYTES:] == hashlib.sha256(content[:-_SHA256_BYTES]).digest():
        scores = np.load(io.BytesIO(content))
    if scores.shape != shape or scores.dtype != np.float32:
        logger.warning("%s is damaged; the gene is scored again", path)
        return None
    return scores


_worker_model: list[BaseModel] = []


def _start_worker(config: BaseConfig) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(1)
    _worker_model[:] = [_load(config)]


def _end_with_parent() -> None:
    """A killed pass leaves no workers behind, waiting for genes that never come."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _score_in_worker(sequence: str, before: str, after: str) -> _Scores:
    return _worker_model[0].score(sequence, before, after)
