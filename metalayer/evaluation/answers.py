"""A version's own answers on its evaluation genes, kept with it, so that it can be compared without being loaded.

A champion of another model format or feature schema cannot be asked any more; what it said can be looked up. One row
and one row group a gene: where an answer reaches the floor, its position, donor and acceptor in float32, as given.

The rest is not kept, and counts as 0 on both sides of a comparison. This touches only what ranks below twice the floor:
positions above it are ranked as ever, so a site above it has its exact precision, and a site below it a precision of
at most the sites over the positions that rank above twice the floor. `Clipped.bound` is what average precision may
differ by at most. `FLOOR` is kept where a tenth of the positions reach it or fewer; a model that is less sure gets a
floor ten times as high, or more, so that a million positions take at most 1.2 MB (and 100,000 are always kept).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.errors import ModelError
from metalayer.evaluation.metrics import TARGETS, GeneScores, Pooled, ap_name
from metalayer.files import publish_file
from metalayer.genome import normalise_build
from metalayer.integrity import content_hash
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

FLOOR = 1e-5
"""Answers below are not kept."""
KEPT_SHARE = 0.1
"""Of the positions, at most; the floor rises until it holds."""
ALWAYS_KEPT = 100_000
"""Positions that are kept whatever their share is."""
_FORMAT = "1"
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("gene_id", pa.string()),
        ("length", pa.int32()),
        ("position", pa.list_(pa.int32())),
        ("donor", pa.list_(pa.float32())),
        ("acceptor", pa.list_(pa.float32())),
    ]
)

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """Kept answers.

    Attributes:
        floor: below which none is kept.
        genes: of each, by key, the positions kept (k,), and their donor and acceptor (k, 2).
        lengths: positions of each, by key.
    """

    floor: float
    genes: Mapping[str, tuple[NDArray[np.int32], Probabilities]]
    lengths: Mapping[str, int]

    def of(self, key: str) -> Probabilities:
        """Answers at all positions of a gene, float32 (n, 3), those that were not kept as (0, 0, 1).

        Raises:
            KeyError: no such gene.
        """
        position, kept = self.genes[key]
        return _filled(self.lengths[key], position, kept)


@dataclass(frozen=True)
class Clipped:
    """Scores of systems on the same genes, all to the same floor.

    Attributes:
        genes: with the scores.
        bound: what a paired difference may differ by from that of the full scores, at most, by average precision.
    """

    genes: list[GeneScores]
    bound: dict[str, float]


def gene_key(gene: GeneScores) -> str:
    """What a gene is and what was asked of it, so that answers on anything else are never taken for it: in hex.

    Id, place, letters, labels and the scores of the base count: with other base scores a model answers otherwise.
    """
    facts = [*_identity(gene), gene.letters, content_hash(gene.scores["base"])]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def test_set_digest(genes: Iterable[GeneScores]) -> str:
    """What a set of test genes is, in any order and whatever scored them: of their ids, places and labels, in hex."""
    return hashlib.sha256(json.dumps(sorted(_identity(gene) for gene in genes)).encode()).hexdigest()


def _identity(gene: GeneScores) -> list[str]:
    place = ""
    if gene.gene:
        interval = gene.gene.interval
        place = f"{interval.start}-{interval.end}{gene.gene.strand}"
    return [gene.gene_id, gene.chrom, place, normalise_build(gene.genome_build or ""), content_hash(gene.labels)]


def write_answers(genes: Sequence[GeneScores], path: Path, system: str = "meta") -> float:
    """Keep the answers of a system on genes; returns the floor."""
    floor = _floor(genes, system)
    with publish_file(path) as draft, pq.ParquetWriter(draft, _SCHEMA.with_metadata(_facts(floor))) as writer:
        for gene in genes:
            scores = gene.scores[system]
            position = np.flatnonzero(_reaches(scores, floor)).astype(np.int32)
            columns = [[gene_key(gene)], [gene.gene_id], [len(scores)], [position]]
            columns += [[scores[position, site_class]] for site_class in (DONOR, ACCEPTOR)]
            writer.write_table(pa.table(columns, schema=_SCHEMA))
    return floor


def read_answers(path: Path, expected: str) -> Answers:
    """Read kept answers.

    Args:
        path: of the file.
        expected: SHA-256 of it, in hex.

    Raises:
        ModelError: not the file that was written, or of a later format.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise ModelError(
            f"{path.name}: the kept answers are not those that were registered; restore the artifact store"
        )
    table = pq.ParquetFile(pa.BufferReader(content))
    facts = table.schema_arrow.metadata or {}
    if facts.get(b"format") != _FORMAT.encode():
        raise ModelError(f"{path.name}: kept answers of format {facts.get(b'format')!r}, this version reads {_FORMAT}")
    genes, lengths = {}, {}
    for row in table.read().to_batches(1):
        key = row["key"][0].as_py()
        position, donor, acceptor = (row[name].flatten().to_numpy() for name in ("position", "donor", "acceptor"))
        genes[key] = position, np.stack([donor, acceptor], axis=1)
        lengths[key] = row["length"][0].as_py()
    return Answers(float(facts[b"floor"]), genes, lengths)


def clipped(genes: Sequence[GeneScores], systems: Sequence[str], floor: float) -> Clipped:
    """Bring the scores of systems to one floor, so that they can be compared with kept answers."""
    out = []
    for gene in genes:
        scores = {}
        for name in systems:
            kept = np.flatnonzero(_reaches(gene.scores[name], floor))
            scores[name] = _filled(len(gene.labels), kept, gene.scores[name][kept][:, [DONOR, ACCEPTOR]])
        out.append(replace(gene, scores=scores))
    pooled, bound = Pooled.of(genes, systems), {}
    for target in TARGETS:
        bound[ap_name(target)] = 0.0
        for name in systems:
            positive, score = pooled.ranking(name, target)
            low = float((score[positive] < 2 * floor).mean())
            above = max(1, int((score >= 2 * floor).sum()))
            bound[ap_name(target)] += low * min(1.0, int(positive.sum()) / above)
    return Clipped(out, bound)


def _reaches(scores: Probabilities, floor: float) -> NDArray[np.bool_]:
    """Positions (n,) whose donor or acceptor reaches the floor."""
    reached: NDArray[np.bool_] = np.maximum(scores[:, DONOR], scores[:, ACCEPTOR]) >= floor
    return reached


def _filled(length: int, position: NDArray[np.integer], kept: Probabilities) -> Probabilities:
    out = np.zeros((length, len(CLASSES)), dtype=np.float32)
    out[:, NEITHER] = 1.0
    out[position[:, None], [DONOR, ACCEPTOR]] = kept
    out[position, NEITHER] = np.clip(1.0 - kept.sum(axis=1), 0.0, 1.0)
    return out


def _floor(genes: Sequence[GeneScores], system: str) -> float:
    floor, positions = FLOOR, sum(len(gene.labels) for gene in genes)
    while sum(int(_reaches(gene.scores[system], floor).sum()) for gene in genes) > max(
        ALWAYS_KEPT, KEPT_SHARE * positions
    ):
        floor *= 10
    return floor


def _facts(floor: float) -> dict[str, str]:
    return {"format": _FORMAT, "floor": repr(floor)}
