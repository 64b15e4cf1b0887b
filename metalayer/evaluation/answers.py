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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.errors import ModelError
from metalayer.evaluation.metrics import TARGETS, GeneScores, ap_name, ranking
from metalayer.evaluation.sample import Sample
from metalayer.evaluation.scored_genes import MadeOf
from metalayer.files import publish_file, sha256
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

    genes: Collection[GeneScores]
    bound: dict[str, float]


def gene_key(gene: GeneScores) -> str:
    """What a gene is and what was asked of it, so that answers on anything else are never taken for it: in hex.

    Id, place, letters, labels and the scores of the base count: with other base scores a model answers otherwise.
    """
    facts = [*_identity(gene), gene.letters, content_hash(gene.scores["base"])]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def test_set_digest(genes: Iterable[GeneScores]) -> str:
    """What a set of test genes is, in any order and whatever scored them: of ids, places, labels, ignored; in hex."""
    facts = [_identity(gene) + [content_hash(gene.ignored)] * bool(len(gene.ignored)) for gene in genes]
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()


def _identity(gene: GeneScores) -> list[str]:
    place = ""
    if gene.gene:
        interval = gene.gene.interval
        place = f"{interval.start}-{interval.end}{gene.gene.strand}"
    return [gene.gene_id, gene.chrom, place, normalise_build(gene.genome_build or ""), content_hash(gene.labels)]


def write_answers(genes: Collection[GeneScores], path: Path, system: str = "meta") -> float:
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
    if sha256(path) != expected:
        raise ModelError(
            f"{path.name}: the kept answers are not those that were registered; restore the artifact store"
        )
    table = pq.ParquetFile(path)
    facts = table.schema_arrow.metadata or {}
    if facts.get(b"format") != _FORMAT.encode():
        raise ModelError(f"{path.name}: kept answers of format {facts.get(b'format')!r}, this version reads {_FORMAT}")
    index = table.read(["key", "length"]).to_pydict()
    return Answers(
        float(facts[b"floor"]), _KeptGenes(table, index["key"]), dict(zip(index["key"], index["length"], strict=True))
    )


class _KeptGenes(Mapping[str, tuple[NDArray[np.int32], Probabilities]]):
    """`Answers.genes`, read from the file a gene at a time."""

    def __init__(self, table: pq.ParquetFile, keys: Sequence[str]) -> None:
        self._table, self._group = table, {key: group for group, key in enumerate(keys)}

    def __getitem__(self, key: str) -> tuple[NDArray[np.int32], Probabilities]:
        row = self._table.read_row_group(self._group[key], ["position", "donor", "acceptor"])
        position, donor, acceptor = (column.combine_chunks().flatten().to_numpy() for column in row.columns)
        return position, np.stack([donor, acceptor], axis=1)

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __len__(self) -> int:
        return len(self._group)


def clipped(genes: Collection[GeneScores], systems: Sequence[str], floor: float) -> Clipped:
    """Bring the scores of systems to one floor, so that they can be compared with kept answers."""

    def bring(_number: int, gene: GeneScores) -> dict[str, Callable[[], Probabilities]]:
        return {name: partial(_floored, gene, name, floor) for name in systems}

    brought = MadeOf(genes, bring)
    sample = Sample.of(brought, systems)
    low, above = (dict.fromkeys(((name, target) for name in systems for target in TARGETS), 0) for _ in range(2))
    for part in sample.parts(brought, systems):
        for name, target in low:
            positive, score = ranking(part.labels, part.scores[name], target)
            reaching = score >= 2 * floor
            low[name, target] += int(np.count_nonzero(positive & ~reaching))
            above[name, target] += int(np.count_nonzero(reaching))
    donors, acceptors = (int(n) for n in sample.sites.sum(axis=0))
    positives = {"splice": donors + acceptors, "donor": donors, "acceptor": acceptors}
    bound = {
        ap_name(target): sum(low[name, target] / n * min(1.0, n / max(1, above[name, target])) for name in systems)
        for target, n in positives.items()
    }
    return Clipped(brought, bound)


def _reaches(scores: Probabilities, floor: float) -> NDArray[np.bool_]:
    """Positions (n,) whose donor or acceptor reaches the floor."""
    reached: NDArray[np.bool_] = np.maximum(scores[:, DONOR], scores[:, ACCEPTOR]) >= floor
    return reached


def _floored(gene: GeneScores, system: str, floor: float) -> Probabilities:
    scores = gene.scores[system]
    kept = np.flatnonzero(_reaches(scores, floor))
    return _filled(len(gene.labels), kept, scores[kept][:, [DONOR, ACCEPTOR]])


def _filled(length: int, position: NDArray[np.integer], kept: Probabilities) -> Probabilities:
    out = np.zeros((length, len(CLASSES)), dtype=np.float32)
    out[:, NEITHER] = 1.0
    out[position[:, None], [DONOR, ACCEPTOR]] = kept
    out[position, NEITHER] = np.clip(1.0 - kept.sum(axis=1), 0.0, 1.0)
    return out


def _floor(genes: Collection[GeneScores], system: str) -> float:
    floors = [FLOOR]
    while floors[-1] <= 1.0:
        floors.append(10 * floors[-1])
    positions, reaching = 0, [0] * len(floors)
    for gene in genes:
        scores = gene.scores[system]
        positions += len(scores)
        reaching = [n + int(_reaches(scores, floor).sum()) for n, floor in zip(reaching, floors, strict=True)]
    most = max(ALWAYS_KEPT, KEPT_SHARE * positions)
    return next(floor for n, floor in zip(reaching, floors, strict=True) if n <= most)


def _facts(floor: float) -> dict[str, str]:
    return {"format": _FORMAT, "floor": repr(floor)}
