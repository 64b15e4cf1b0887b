"""Scores that `metalayer variants` has written, read again: of VCF, BCF and Parquet, which say what decided them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.file_kinds import BCF, PARQUET, VCF, head_of, kind_of
from metalayer.genome import Variant
from metalayer.integrity import PARQUET_ERRORS
from metalayer.variants.answers import DETAIL_TAG, FACTS_KEY, FACTS_LINE, SKIPPED_TAG, tags_of
from metalayer.variants.definition import KINDS, SHORT
from metalayer.variants.scoring import META, SPLICEAI
from metalayer.variants.vcf import Record, VariantFile

_NEEDED = "VCF, BCF or Parquet that `metalayer variants` wrote"
_ROUNDED = 0.0051
"""How far a number of two decimals may lie from what it was."""
_FORMAT = re.compile(rb'Format: ([^"]+)"')
Key = tuple[str, int, str, str]
"""Contig by our name, 0-based POS, REF and ALT in capital letters."""


@dataclass
class Answer:
    """What was written of one variant.

    Attributes:
        genes: largest of the four changes, by gene id and name of the scores.
        symbols: of the genes, by id.
        reason: of `REASONS`, where there is no score.
    """

    genes: dict[str, dict[str, float]] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)
    reason: str | None = None

    def add(self, gene_id: str, symbol: str, name: str, change: float) -> None:
        """One more number."""
        self.genes.setdefault(gene_id, {})[name] = change
        self.symbols[gene_id] = symbol


@dataclass(frozen=True)
class Answers:
    """What was written of the variants that were asked for.

    Attributes:
        facts: what decided the scores, as `Opened.facts` has it.
        names: of the scores, those of base models first.
        found: by variant, as it is written there.
    """

    facts: Mapping[str, Any]
    names: list[str]
    found: Mapping[Key, Answer]


def key_of(variant: Variant, contigs: Contigs) -> Key:
    """What a variant is found by."""
    return contigs.key(variant.chrom), variant.position, variant.ref.upper(), variant.alt.upper()


def read_answers(path: Path, wanted: Collection[Key], contigs: Contigs) -> Answers:
    """Read what was written of some variants.

    Args:
        path: VCF, BCF or Parquet.
        wanted: these variants.
        contigs: which names are of one contig.

    Raises:
        InputError: a file that `metalayer variants` did not write, or that cannot be read.
    """
    kind = kind_of(head_of(path, "answers"), by_columns=False)
    if kind in (VCF, BCF):
        file = VariantFile.of(path)
        stated = (line.decode()[len(FACTS_LINE) :] for line in file.header if line.startswith(FACTS_LINE.encode()))
        facts = _facts(path, next(stated, None))
        names = _names(facts)
        parts = _of_vcf(file, names, path, facts)
    elif kind == PARQUET:
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_schema(path).metadata or {}
        except PARQUET_ERRORS as error:
            raise InputError(f"answers {path}: damaged ({error}); write it again") from None
        facts = _facts(path, metadata.get(FACTS_KEY.encode(), b"").decode())
        names = _names(facts)
        parts = _of_parquet(path)
    else:
        raise InputError(f"answers {path}: this is {kind or 'another file'}; needed is {_NEEDED}")
    found: dict[Key, Answer] = {}
    for variant, reason, scores in parts:
        key = key_of(variant, contigs)
        if key in wanted:
            answer = found.setdefault(key, Answer())
            answer.reason = reason
            for gene_id, symbol, name, change in scores:
                answer.add(gene_id, symbol, name, change)
    return Answers(facts, names, found)


def _facts(path: Path, text: str | None) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(text or "")
        _names(facts), facts["options"]["way"], facts["fasta"]["sha256"], facts["annotation"]["sha256"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"answers {path}: does not say what decided the scores; needed is {_NEEDED}") from None
    return facts


def _names(facts: Mapping[str, Any]) -> list[str]:
    return [*facts["bases"], *([META] if facts["model_digest"] else [])]


_Part = tuple[Variant, str | None, list[tuple[str, str, str, float]]]
"""A variant, why it has no score, and of each gene id, symbol, name of the scores and largest change."""


def _of_parquet(path: Path) -> Iterator[_Part]:
    import pyarrow.parquet as pq

    numbers = [f"{kind}_score" for kind in KINDS]
    columns = ["chrom", "pos", "ref", "alt", "skipped", "gene_id", "gene_name", "model", *numbers]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    variant = Variant(row["chrom"], row["pos"] - 1, row["ref"], row["alt"])
                    scores = [row[name] for name in numbers]
                    known = row["skipped"] is None and None not in scores
                    gene = (row["gene_id"], row["gene_name"], row["model"])
                    reason = row["skipped"] or (None if known else "as_spliceai")
                    yield variant, reason, [(*gene, max(scores))] if known else []
    except PARQUET_ERRORS as error:
        raise InputError(f"answers {path}: damaged ({error}); write it again") from None


def _of_vcf(file: VariantFile, names: list[str], path: Path, facts: Mapping[str, Any]) -> Iterator[_Part]:
    if facts["options"]["way"] == SPLICEAI:
        raise InputError(f"answers {path}: `--as spliceai` writes no {DETAIL_TAG}; write Parquet and give that")
    tags = tags_of(names)
    declared = next((line for line in file.header if line.startswith(f"##INFO=<ID={DETAIL_TAG},".encode())), b"")
    form = _FORMAT.search(declared)
    if not form:
        raise InputError(f"answers {path}: its header does not declare {DETAIL_TAG}; needed is {_NEEDED}")
    at = {name: number for number, name in enumerate(form[1].decode().strip().split("|"))}
    for line in file.lines():
        record = Record.of(line)
        if record is None:
            continue
        info = line.split(b"\t", 8)[7].decode("utf-8", "surrogateescape").split(";")
        values = {name: value for name, _, value in (part.partition("=") for part in info)}
        reasons = dict(part.split("|", 1) for part in values.get(SKIPPED_TAG, "").split(",") if "|" in part)
        of_all = values.get(SKIPPED_TAG) if not reasons else None
        entries = {name: iter(values[tag].split(",")) for name, tag in tags.items() if tag in values}
        scores: dict[str, list[tuple[str, str, str, float]]] = {}
        for text in values[DETAIL_TAG].split(",") if DETAIL_TAG in values else ():
            fields = text.split("|")
            name = fields[at["MODEL"]]
            changes = next(entries[name]).split("|")[2 : 2 + len(SHORT)]
            largest = max(
                _exact(float(change), float(fields[at[f"REF_{kind}"]]), float(fields[at[f"ALT_{kind}"]]), kind)
                for kind, change in zip(SHORT, changes, strict=True)
            )
            gene = (unquote(fields[at["GENE_ID"]]), unquote(fields[at["SYMBOL"]]), name)
            scores.setdefault(fields[at["ALLELE"]], []).append((*gene, largest))
        for alt in record.alts:
            variant = Variant(record.contig, record.position, record.ref, alt)
            yield variant, reasons.get(alt, of_all), scores.get(alt, [])


def _exact(change: float, reference: float, alternative: float, kind: str) -> float:
    """A change with the decimals of its probabilities, where no mask has hidden it."""
    finer = alternative - reference if kind.endswith("G") else reference - alternative
    return max(finer, 0.0) if abs(finer - change) <= _ROUNDED else change
