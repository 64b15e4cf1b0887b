"""Variants of a file, or all SNVs of a region, scored: VCF in, VCF or a table out.

What was computed of each record is kept beside the output until that is published, so a run that was killed goes on
where it was. Memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import metalayer
from metalayer.errors import InputError
from metalayer.files import only_one, publish_file, sha256
from metalayer.integrity import PAGE_CHECKSUMS, content_digest
from metalayer.provenance import code_hash
from metalayer.variants import vcf
from metalayer.variants.answers import (
    CALIBRATED_COLUMNS,
    COLUMNS,
    DETAIL_FORMAT,
    DETAIL_TAG,
    FACTS_KEY,
    FACTS_LINE,
    FORMAT,
    PROBABILITY_FORMAT,
    PROBABILITY_TAG,
    SKIPPED_TAG,
    arrow_schema,
    from_json,
    info_of,
    rows_of,
    tags_of,
    to_json,
)
from metalayer.variants.calibration import Calibrated
from metalayer.variants.calls import Opened, Sources, opened
from metalayer.variants.notation import region_of
from metalayer.variants.pictures import draw, refuse_picture
from metalayer.variants.reasons import FAULTS, REASONS
from metalayer.variants.saturation import DeltaMap, Saturation
from metalayer.variants.scoring import META, SPLICEAI, Allele, Asked, Options, Plan
from metalayer.variants.together import neighbours
from metalayer.words import count_of
from metalayer.workflows.progress import Records

logger = logging.getLogger(__name__)

VCF, TSV, PARQUET = "vcf", "tsv", "parquet"
FORMS = (VCF, TSV, PARQUET)
MAX_FAULTS = 0.1
"""Share of records that do not fit FASTA and annotation above which a run ends with an error."""
_ROWS_AT_A_TIME = 10_000


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        records: of the file.
        scored: those with a score for an allele at least.
        reasons: of alleles without, and how many there are; keys of `REASONS`.
        faulty: records that do not fit FASTA or VCF.
        replaced: records that had fields of ours.
    """

    records: int = 0
    scored: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faulty: int = 0
    replaced: int = 0

    def count(self, alleles: Sequence[Allele]) -> None:
        """One more record."""
        self.records += 1
        self.scored += any(allele.genes for allele in alleles)
        reasons = [allele.reason for allele in alleles if allele.reason]
        self.reasons.update(reasons)
        self.faulty += any(reason in FAULTS for reason in reasons)

    def lines(self) -> list[str]:
        """In words."""
        counts = [
            f"{count_of(count, 'allele')} without a score: {reason}, {REASONS[reason]}"
            for reason, count in self.reasons.most_common()
        ]
        return [f"{self.scored:,} of {self.records:,} records have a score", *counts]


def score_file(
    path: Path,
    output: Path,
    sources: Sources,
    options: Options,
    *,
    form: str = VCF,
    split: bool = False,
    calibration: Path | None = None,
) -> Outcome:
    """Score the records of a file.

    Args:
        path: VCF, plain or packed, or BCF.
        output: `.vcf`, `.vcf.gz` or `.bcf`; `.tsv` or `.parquet` with the form of that name; `-`: standard output.
        sources: reference, annotation and models.
        options: how variants are scored.
        form: of `FORMS`.
        split: one record an allele.
        calibration: table of probabilities for these scores; None: without.

    Returns:
        What was done; above `MAX_FAULTS` of faulty records the caller should end with an error.

    Raises:
        ConfigError: unknown or unfit base models.
        InputError: files that cannot be used, or that were cut short.
        ModelError: damaged weights, or a damaged model directory.
    """
    refuse_forms(output, form)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(vcf.records_of(path, split=split))
        loaded = stack.enter_context(opened(sources, options))
        logger.info("%s: %s records", path, f"{file.records:,}")
        return write_scored(
            file, {"variants": sha256(path), "split": split}, output, form, loaded, calibration=calibration
        )


def score_region(
    region: str,
    output: Path,
    sources: Sources,
    options: Options,
    *,
    form: str = VCF,
    plot: Path | None = None,
    calibration: Path | None = None,
) -> Outcome:
    """Score every SNV of a region: three records a base.

    Args:
        region: as in `metalayer.variants.notation`: chr3:42600000-42610000.
        output: as of `score_file`.
        sources: reference, annotation and models.
        options: how variants are scored.
        form: of `FORMS`.
        plot: picture of what each SNV does, `.png` or `.svg`; None for none.
        calibration: as of `score_file`.

    Returns:
        What was done.

    Raises:
        ConfigError: unknown or unfit base models.
        InputError: files that cannot be used, a region that is none, or one too long for a picture.
        ModelError: damaged weights, or a damaged model directory.
    """
    refuse_forms(output, form)
    with opened(sources, options) as loaded:
        every = Saturation(loaded.letters, region_of(region, loaded.letters))
        logger.info("%s: %s SNVs", region, f"{every.records:,}")
        shown = None
        if plot:
            refuse_picture(plot, len(every.place))
            shown = DeltaMap(every, loaded.genes, loaded.scorer.names)
        done = write_scored(every, {"region": region}, output, form, loaded, shown, calibration=calibration)
    if plot and shown:
        draw(plot, shown)
    return done


def form_of(output: Path) -> str:
    """The form of an output by its name."""
    return {".tsv": TSV, ".parquet": PARQUET}.get(output.suffix, VCF)


def refuse_forms(output: Path, form: str) -> None:
    """See that an output can be of a form.

    Raises:
        InputError: it cannot.
    """
    if form not in FORMS:
        raise InputError(f"--format: given {form}; allowed are {', '.join(FORMS)}")
    if form == VCF:
        vcf.refuse_other_names(output)
    elif output == vcf.STDOUT and form == PARQUET:
        raise InputError("--output -: Parquet needs a file")


class Lines(Protocol):
    """Records to be scored, as lines of a VCF."""

    @property
    def header(self) -> Sequence[bytes]:
        """Lines without their ends, that of the columns last."""

    @property
    def records(self) -> int:
        """How many lines follow."""

    def lines(self) -> Iterator[bytes]:
        """Lines of records in order, without their ends."""


def write_scored(
    file: Lines,
    about: dict[str, Any],
    output: Path,
    form: str,
    loaded: Opened,
    shown: DeltaMap | None = None,
    known: Known | None = None,
    calibration: Path | None = None,
) -> Outcome:
    """Score records and write them.

    Args:
        file: the records.
        about: says which these are.
        output: as of `score_file`.
        form: of `FORMS`.
        loaded: what scores.
        shown: sees each answer.
        known: what was computed elsewhere; None: what an earlier run has kept beside the output.
        calibration: of `metalayer variants calibrate`; None for no probabilities.
    """
    facts = loaded.facts()
    outcome = Outcome()
    table = loaded.calibrated(calibration) if calibration else None
    with contextlib.ExitStack() as stack:
        kept = known
        if kept is None and output != vcf.STDOUT:
            stack.enter_context(only_one(output.with_name(f".{output.name}.lock"), "give this run another output"))
            digest = content_digest({**facts, "code_hash": code_hash(), **about})
            kept = stack.enter_context(_kept(output, digest))
        answered = answers(file, loaded, kept)
        if shown:
            answered = _seen(answered, shown)
        if calibration:
            facts |= {"calibration": {"name": calibration.name, "sha256": sha256(calibration)}}
        if form == VCF:
            _write_vcf(output, file, answered, loaded, facts, outcome, table)
        else:
            _write_table(output, answered, form, outcome, facts, table)
        if kept:
            kept.remove()
    return outcome


Answered = Iterator[tuple[vcf.Record | bytes, list[Allele]]]


class _Line(NamedTuple):
    """A line of the file, with its number: the record, or a line that is none, and what has to be asked."""

    number: int
    record: vcf.Record | bytes
    plan: Plan

    @property
    def bytes(self) -> int:
        return len(self.record if isinstance(self.record, bytes) else self.record.line)


def _seen(answers: Answered, shown: DeltaMap) -> Answered:
    for record, alleles in answers:
        if not isinstance(record, bytes):
            shown.add(record.position, alleles)
        yield record, alleles


def answers(file: Lines, loaded: Opened, kept: Known | None = None, first: int = 0) -> Answered:
    """Each record, or a line that is none, with what is known of its alleles; `first` is the number of the first."""
    progress, scorer = Records(file.records), loaded.scorer

    def lines() -> Iterator[_Line]:
        for number, line in enumerate(file.lines(), first):
            record = vcf.Record.of(line)
            if record is None:
                yield _Line(number, line, Plan.without("damaged_line"))
            else:
                asked = Asked(record.contig, record.position, record.ref, record.alts)
                yield _Line(number, record, scorer.plan(asked))

    for group in neighbours(lines(), lambda line: line.plan, lambda line: line.bytes):
        known = [kept.known(line.number) if kept else None for line in group]
        is_new = [one is None for one in known]
        # All of a group are asked again where one is unknown: digits behind the last that counts depend on the group.
        if any(new and line.plan.span for new, line in zip(is_new, group, strict=True)):
            found = scorer.answer([line.plan for line in group])
        else:
            found = [one or scorer.answer([line.plan])[0] for one, line in zip(known, group, strict=True)]
        scored = [any(allele.genes for allele in alleles) for alleles in found]
        for line, alleles, new, is_scored in zip(group, found, is_new, scored, strict=True):
            if kept and new and is_scored:
                kept.keep(line.number, alleles)
        progress.add(len(group), sum(new and one for new, one in zip(is_new, scored, strict=True)))
        for line, one, alleles in zip(group, known, found, strict=True):
            yield line.record, one or alleles


def _write_vcf(
    output: Path,
    file: Lines,
    answers: Answered,
    loaded: Opened,
    facts: dict[str, Any],
    outcome: Outcome,
    table: Calibrated | None,
) -> None:
    scorer = loaded.scorer
    tags = tags_of(scorer.names)
    ours = [tag.encode() for tag in (*tags.values(), DETAIL_TAG, PROBABILITY_TAG, SKIPPED_TAG)]
    way = scorer.options.way
    header = vcf.header_with(file.header, _header_lines(tags, way, facts, table), ours)
    with vcf.written(output) as write:
        write(b"\n".join(header) + b"\n")
        for record, alleles in answers:
            outcome.count(alleles)
            if isinstance(record, bytes):
                write(record + b"\n")
                continue
            added = info_of(alleles, tags, record.position, way)
            if table:
                added |= table.info(record.contig, record.position, record.ref, alleles)
            line, had_some = record.with_info(added, ours)
            outcome.replaced += had_some
            write(line + b"\n")
    if outcome.replaced:
        logger.info("%s records had INFO fields of these names, which are replaced", f"{outcome.replaced:,}")


def _header_lines(tags: dict[str, str], way: str, facts: dict[str, Any], table: Calibrated | None) -> list[str]:
    source = f'Source="metalayer",Version="{metalayer.__version__}"'
    compared = "as SpliceAI 1.3.1 compares haplotypes" if way == SPLICEAI else "haplotypes aligned base by base"
    lines = []
    for name, tag in tags.items():
        is_ours = name == META
        what = "corrected by a meta model" if is_ours else f"of base model {name}"
        sense = "downstream in transcript sense" if is_ours else "up the chromosome on both strands"
        text = (
            f"Scores {what}, {compared}. Delta scores (DS) and positions (DP, from POS, positive {sense}) of acceptor "
            f"gain (AG), acceptor loss (AL), donor gain (DG) and donor loss (DL). Format: {FORMAT}"
        )
        lines.append(f'##INFO=<ID={tag},Number=.,Type=String,Description="{text}",{source}>')
    if way != SPLICEAI:
        text = (
            "Research prediction of what happens to the exons of a transcript, nt that it gains, and its reading "
            "frame; where each change is (POS, 1-based; x^n: inserted letter n behind x), probabilities of the site on "
            f"REF and ALT, and whether it is annotated. Format: {DETAIL_FORMAT}"
        )
        lines.append(f'##INFO=<ID={DETAIL_TAG},Number=.,Type=String,Description="{text}",{source}>')
    if table:
        text = (
            f"Probability that splicing is altered, among variants like those of {facts['calibration']['name']}, by "
            f"{table.name} and the kind of variant. Format: {PROBABILITY_FORMAT}"
        )
        lines.append(f'##INFO=<ID={PROBABILITY_TAG},Number=.,Type=String,Description="{text}",{source}>')
    text = "Why the record, or ALLELE|reason, has no score"
    lines.append(f'##INFO=<ID={SKIPPED_TAG},Number=.,Type=String,Description="{text}",{source}>')
    return [*lines, f"{FACTS_LINE}{json.dumps(facts, sort_keys=True)}"]


def _write_table(
    output: Path,
    answers: Answered,
    form: str,
    outcome: Outcome,
    facts: dict[str, Any],
    table: Calibrated | None,
) -> None:
    columns = COLUMNS | (CALIBRATED_COLUMNS if table else {})

    def rows() -> Iterator[dict[str, Any]]:
        for record, alleles in answers:
            outcome.count(alleles)
            if not isinstance(record, bytes):
                place = record.contig, record.position
                found = list(rows_of(*place, record.name, record.ref, alleles))
                yield from table.fill(found, *place, record.ref, alleles) if table else found

    if output == vcf.STDOUT:
        with vcf.written(output) as write:
            _write_tsv(write, columns, rows())
        return
    with publish_file(output) as draft:
        if form == TSV:
            with draft.open("wb") as handle:
                _write_tsv(handle.write, columns, rows())
        else:
            _write_parquet(draft, columns, rows(), facts)


def _write_tsv(write: Callable[[bytes], object], columns: Mapping[str, type], rows: Iterator[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), delimiter="\t", lineterminator="\n")

    def flush() -> None:
        write(text.getvalue().encode("utf-8", "surrogateescape"))
        text.seek(0)
        text.truncate()

    writer.writeheader()
    for row in rows:
        flush()
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    flush()


def _write_parquet(
    draft: Path, columns: Mapping[str, type], rows: Iterator[dict[str, Any]], facts: dict[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(columns, {FACTS_KEY: json.dumps(facts, sort_keys=True)})
    with pq.ParquetWriter(draft, schema, compression="zstd", **PAGE_CHECKSUMS) as out:
        waiting: list[dict[str, Any]] = []

        def flush() -> None:
            out.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        for row in rows:
            waiting.append(row)
            if len(waiting) >= _ROWS_AT_A_TIME:
                flush()
        flush()


class Known(Protocol):
    """Answers that are there already, of records by their numbers."""

    def known(self, number: int) -> list[Allele] | None:
        """Those of a record; to be asked for each in order."""

    def keep(self, number: int, alleles: Sequence[Allele]) -> None:
        """Those of a record behind all that are known."""

    def remove(self) -> None:
        """All is published."""


class _Kept:
    """What was computed, a line a record, in the order of the records."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self._path, self._handle = path, handle
        self._lines = self._there()
        self._next = next(self._lines, None)

    def _there(self) -> Iterator[tuple[int, str]]:
        """Whole lines that an earlier run left; what it had not finished goes."""
        end = 0
        while (line := self._handle.readline()).endswith(b"\n"):
            end += len(line)
            number, _, text = line.decode().partition("\t")
            yield int(number), text
            self._handle.seek(end)
        self._handle.seek(end)
        self._handle.truncate()

    def known(self, number: int) -> list[Allele] | None:
        """What is known of a record; to be asked for each in order."""
        if self._next is None or self._next[0] != number:
            return None
        alleles = from_json(self._next[1])
        self._next = next(self._lines, None)
        return alleles

    def keep(self, number: int, alleles: Sequence[Allele]) -> None:
        """Of a record behind all that are known."""
        self._handle.write(f"{number}\t{to_json(alleles)}\n".encode())
        self._handle.flush()

    def remove(self) -> None:
        """All is published."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _kept(output: Path, digest: str) -> Iterator[_Kept]:
    """What an earlier run of the same facts has kept beside its output; that of others goes."""
    path = output.with_name(f".{output.name}.kept-{digest[:16]}")
    for old in output.parent.glob(f".{output.name}.kept-{'[0-9a-f]' * 16}"):
        if old != path:
            old.unlink()
    path.touch()
    if path.stat().st_size:
        logger.info("an earlier run was cut off: it goes on where it was")
    with path.open("r+b") as handle:
        yield _Kept(path, handle)
