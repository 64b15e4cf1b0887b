"""The base-layer pass: any base model over any annotation, gene by gene, to a data root.

Scores of finished genes are kept beside the output until the whole pass is published, so a pass that was
killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import metalayer
from metalayer.base.annotation import AnnotatedGene, read_annotation
from metalayer.base.artifacts import write_artifacts
from metalayer.base.fasta import Reference
from metalayer.base.genome_files import write_gene_table
from metalayer.base.protocol import BaseModel, load_base_model
from metalayer.device import use_threads
from metalayer.errors import ConfigError, InputError
from metalayer.files import publish_file, sha256
from metalayer.gene_track import GeneTrack
from metalayer.genome import decode, encode, reverse_complement
from metalayer.schema import SITE_CONVENTION

logger = logging.getLogger(__name__)

MANIFEST = "base_layer.json"
MIN_CANONICAL = 0.9
"""Share of introns that begin with GT (or GC) and end with AG, below which annotation and FASTA do not fit."""
_MIN_INTRONS = 20
_FORMAT_VERSION = 1
_TELL_EVERY_S = 10.0


@dataclass(frozen=True)
class PassOptions:
    """What decides the scores of a pass.

    Attributes:
        model: name of the base model.
        options: of it (weights, flank ...).
        flanks: `real`: the letters around the gene; `N`: none, which tells the network where the gene ends.
    """

    model: str
    options: Mapping[str, Any]
    flanks: str = "real"


def base_run(
    options: PassOptions,
    fasta: Path,
    annotation: Path,
    output_dir: Path,
    *,
    annotation_source: str = "annotation",
    build: str = "unknown",
    workers: int = 1,
) -> dict[str, Any]:
    """Score every position of every gene and write a data root: artifact rows, scores, gene table, manifest.

    Args:
        options: model and flanks.
        fasta: reference, plain or gzip.
        annotation: GTF or GFF3, plain or gzip.
        output_dir: data root to write into.
        annotation_source: folder name of the annotation.
        build: folder name of the genome build.
        workers: processes that score genes, one CPU thread each; 1 scores in this process with all threads.

    Returns:
        The manifest: JSON-ready.

    Raises:
        ConfigError: an unknown model, option, or flanks.
        InputError: files that cannot be used, a chromosome that the FASTA lacks, or an annotation of another
            build.
    """
    if options.flanks not in ("real", "N"):
        raise ConfigError(f"flanks: given {options.flanks!r}; allowed are 'real' and 'N'")
    model = load_base_model(options.model, **options.options)
    genes = read_annotation(annotation)
    reference = Reference(fasta)
    chroms = list(dict.fromkeys(gene.gene.interval.chrom for gene in genes))
    there = reference.names()
    absent = [chrom for chrom in chroms if chrom not in there]
    if absent:
        raise InputError(
            f"FASTA {fasta} has no chromosome {', '.join(absent)} of the annotation {annotation}; give the whole "
            "reference, or an annotation of what is there"
        )
    logger.info("%d genes on %d chromosomes, %s nt", len(genes), len(chroms), f"{sum(len(g.gene) for g in genes):,}")
    facts = _facts(options, model, fasta, annotation, build)
    kept = output_dir / f".base-layer-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"
    for old in output_dir.glob(".base-layer-*"):
        if old != kept:
            shutil.rmtree(old, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    canonical: dict[str, int] = {"introns": 0, "canonical": 0}
    by_chrom = {chrom: [gene for gene in genes if gene.gene.interval.chrom == chrom] for chrom in chroms}

    def tracks() -> Iterator[GeneTrack]:
        progress = _Progress(sum(len(gene.gene) for gene in genes))
        with _Scorer(model, options, kept, workers) as scorer:
            for chrom, tokens in reference.chromosomes(chroms):
                _check_chromosome(by_chrom[chrom], tokens, canonical, fasta, annotation)
                for gene, letters, scores in scorer.over(by_chrom[chrom], tokens):
                    progress.add(len(letters))
                    yield GeneTrack(gene.gene, letters, scores, gene.labels())

    report = write_artifacts(
        output_dir, tracks(), base_model=model.name, annotation_source=annotation_source, build=build
    )
    write_gene_table(output_dir / "genes.tsv", (gene.gene for gene in genes))
    manifest = {
        "format": "metalayer base layer",
        "format_version": _FORMAT_VERSION,
        "metalayer_version": metalayer.__version__,
        "site_convention": SITE_CONVENTION,
        "annotation_source": annotation_source,
        **facts,
        "genes": report.genes,
        "positions": report.positions,
        "sites": report.sites,
        "rows": report.rows,
        **canonical,
        "ambiguous_letters": reference.ambiguous,
    }
    with publish_file(output_dir / MANIFEST) as draft:
        draft.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    shutil.rmtree(kept, ignore_errors=True)
    return manifest


def _facts(options: PassOptions, model: BaseModel, fasta: Path, annotation: Path, build: str) -> dict[str, Any]:
    """All that decides the scores; a pass with other facts starts anew."""
    return {
        "base_model": model.name,
        "flank_bp": model.flank_bp,
        "flanks": options.flanks,
        "weights_sha256": getattr(model, "weights", {}),
        "fasta": {"name": fasta.name, "sha256": sha256(fasta) if fasta.is_file() else ""},
        "annotation": {"name": annotation.name, "sha256": sha256(annotation)},
        "genome_build": build,
    }


def _check_chromosome(
    genes: Sequence[AnnotatedGene], tokens: NDArray[np.uint8], counts: dict[str, int], fasta: Path, annotation: Path
) -> None:
    """Refuse genes beyond the chromosome, and introns that do not begin and end as introns do."""
    gt, gc, ag = encode("GT"), encode("GC"), encode("AG")
    for annotated in genes:
        gene = annotated.gene
        if gene.interval.end > len(tokens):
            raise InputError(
                f"gene {gene.gene_id} of {annotation} ends at {gene.interval.chrom}:{gene.interval.end}, but the "
                f"chromosome in {fasta} has {len(tokens)} nt. Are both of one genome build?"
            )
        for start, end in annotated.introns():
            if end - start < 4:
                continue
            letters = tokens[start:end] if gene.strand == "+" else reverse_complement(tokens[start:end])
            first, last = letters[:2], letters[-2:]
            if first.max() > 3 or last.max() > 3:
                continue  # N tells nothing
            counts["introns"] += 1
            starts = np.array_equal(first, gt) or np.array_equal(first, gc)
            counts["canonical"] += int(starts and np.array_equal(last, ag))
    if counts["introns"] >= _MIN_INTRONS and counts["canonical"] < MIN_CANONICAL * counts["introns"]:
        raise InputError(
            f"only {counts['canonical']} of {counts['introns']} introns of {annotation} begin with GT or GC and end "
            f"with AG in {fasta}; nearly all do where both are of one genome build and the strand is right"
        )


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


class _Scorer:
    """Scores genes in order, in this process or in several, keeping what is done on disk."""

    def __init__(self, model: BaseModel, options: PassOptions, kept: Path, workers: int) -> None:
        self.model, self.options, self.kept, self.workers = model, options, kept, workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Scorer:
        if self.workers > 1:
            self._pool = ProcessPoolExecutor(
                self.workers, get_context("spawn"), _start_worker, (self.options.model, dict(self.options.options))
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def over(
        self, genes: Sequence[AnnotatedGene], chromosome: NDArray[np.uint8]
    ) -> Iterator[tuple[AnnotatedGene, NDArray[np.uint8], NDArray[np.float32]]]:
        """Each gene with its letters and scores; a few genes ahead are being scored."""
        ahead: list[tuple[AnnotatedGene, NDArray[np.uint8], Path, Future[NDArray[np.float32]] | None]] = []
        for gene in genes:
            tokens, before, after = _letters(gene, chromosome, self.model.flank_bp, self.options.flanks)
            path = self.kept / (hashlib.sha256(gene.gene.gene_id.encode()).hexdigest()[:24] + ".npy")
            future = None
            if self._pool and not path.exists():
                future = self._pool.submit(_score_in_worker, decode(tokens), before, after)
            ahead.append((gene, tokens, path, future))
            if self._pool is None:
                yield self._done(*ahead.pop(), before, after)
            elif len(ahead) > 2 * self.workers:
                yield self._done(*ahead.pop(0))
        for item in ahead:
            yield self._done(*item)

    def _done(
        self,
        gene: AnnotatedGene,
        tokens: NDArray[np.uint8],
        path: Path,
        future: Future[NDArray[np.float32]] | None,
        before: str = "",
        after: str = "",
    ) -> tuple[AnnotatedGene, NDArray[np.uint8], NDArray[np.float32]]:
        if path.exists():
            return gene, tokens, np.load(path)
        scores = future.result() if future else self.model.score(decode(tokens), before, after)
        with publish_file(path) as draft, draft.open("wb") as handle:
            np.save(handle, scores)
        return gene, tokens, scores


_worker_model: list[BaseModel] = []


def _start_worker(name: str, options: dict[str, Any]) -> None:
    use_threads(1)
    _worker_model[:] = [load_base_model(name, **options)]


def _score_in_worker(sequence: str, before: str, after: str) -> NDArray[np.float32]:
    return _worker_model[0].score(sequence, before, after)


class _Progress:
    """Says every few seconds how far the pass is."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.genes = total, 0, 0
        self.began = self.told = time.monotonic()

    def add(self, positions: int) -> None:
        """One more gene."""
        self.done += positions
        self.genes += 1
        now = time.monotonic()
        if now - self.told >= _TELL_EVERY_S or self.done == self.total:
            self.told = now
            rate = self.done / max(now - self.began, 1e-9)
            logger.info(
                "%d genes, %s of %s nt, %s nt/s", self.genes, f"{self.done:,}", f"{self.total:,}", f"{rate:,.0f}"
            )
