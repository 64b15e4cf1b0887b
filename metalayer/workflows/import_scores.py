"""Per-nucleotide scores that people have already, to a data root: letters from the FASTA, labels from the annotation.

Files are read into `KeptScores` first, in whatever order they come, and written gene by gene then; a run that was
killed goes on where it was. Before anything appears, letters, labels and scores are held against each other, as when
they are read (`data.conventions`): scores that are off are refused, with the shift that would fix them.

Missing is not 0. A gene with at least one score is written with all its bases, empty where there is no score; what
reads it leaves out genes with empty scores. `absent` fills what a file leaves out because it is low. A gene without any
score is not written. The list of genes has them all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

import metalayer
from metalayer import storage
from metalayer.base.agreement import MIN_INTRONS
from metalayer.base.annotation import REASONS, in_words
from metalayer.base.genome_files import write_gene_table
from metalayer.base.installed_tables import annotation_file
from metalayer.base.nucleotides import SCORES_FOLDER, NucleotideFile, file_name, remove_stale
from metalayer.data.convention_counts import ConventionCounts
from metalayer.data.conventions import facts, log_facts, refuse_mistakes, score_moves
from metalayer.errors import ArtifactError, ConfigError, InputError, MetalayerError
from metalayer.files import only_one, publish_file, sha256
from metalayer.formats.pieces import Piece, Places, Reader
from metalayer.formats.sources import inputs, readers
from metalayer.formats.tables import columns_of
from metalayer.genome import LARGEST_32_BIT, Gene, one_based, reverse_complement, unversioned
from metalayer.integrity import content_digest, write_json
from metalayer.provenance import code_hash
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER, PROBABILITY_SUM_TOLERANCE, SITE_CONVENTION
from metalayer.settings.sections import ImportConfig
from metalayer.workflows.annotated_genome import AnnotatedGenome, file_facts
from metalayer.workflows.base_run import has_genes, manifest_name
from metalayer.workflows.kept_scores import MARGIN_BP, KeptScores, stretches
from metalayer.workflows.progress import Progress, Reading

logger = logging.getLogger(__name__)

_FORMAT_VERSION = 1
_SITES = (DONOR, ACCEPTOR)
_ROUNDING = 1e-6
"""By so much a probability may lie outside 0 to 1."""
MIN_AT_LABELS = 0.1
"""Share of peaks at labels below which, in both classes, scores know nothing of the sites: chance is 1 in 21."""
_NOTE_EVERY_S = 5.0
_WORTH_KEEPING_S = 60.0
_NO_SCORE = "no file has a score of its bases"


def import_scores(config: ImportConfig) -> dict[str, Any]:
    """Read files of scores and write a data root.

    Args:
        config: files, genome and output.

    Returns:
        The manifest, as in `base_layer_<base>.json`, JSON-ready, with `genes_not_written` and `genes_incomplete`.

    Raises:
        ConfigError: columns or shifts that are none.
        InputError: files that cannot be used, that are not of one genome build or contradict each other, scores that
            are no probabilities, or that are not at the sites of the annotation; an output that holds other genes.
        MetalayerError: another import writes there, or a full disk; what was read is kept.
    """
    config = config.model_copy(update={"annotation": annotation_file(config.annotation)})
    shift = _Shift.of(config.shift)
    sources = readers(config.files, columns_of(config.columns))
    genome = AnnotatedGenome.read(config.fasta, config.annotation, config.aliases, allow_introns=config.allow_introns)
    lengths = genome.fitting.lengths
    names = {chrom: genome.reference.names[chrom] for chrom in lengths}
    places = Places(
        config.fasta,
        genome.contigs,
        names,
        lengths,
        stretches(genome.genes, lengths),
        _finder(genome.genes),
        {chrom: name for chrom, name in genome.reference.names.items() if chrom not in lengths},
    )
    manifest_path = config.output / manifest_name(config.base)
    has_gene_table = has_genes(config.output / "genes.tsv", genome.genes, manifest_path)
    _refuse_rows(config)
    for source in sources:
        source.check(places)
    read_facts = _facts(config, sources)
    lock = config.output / f".import-{config.base}.lock"
    with (
        _leaving_nothing(config.output),
        _explained(config),
        only_one(lock, "give this import another output"),
        _kept(config, content_digest(read_facts)) as folder,
    ):
        with contextlib.closing(KeptScores(folder / "scores", genome.genes)) as kept:
            reading = _read(sources, kept, places, folder / "read.json", logits=config.logits)
            written = _write(config, shift, sources, kept, genome)
        list_path = config.output / f"import_{config.base}.tsv"
        lines = _all_lines(written, genome)
        _write_list(list_path, lines)
        if not has_gene_table:
            write_gene_table(config.output / "genes.tsv", genome.genes, genome.own_names)
        paths = [config.output / SCORES_FOLDER / name for name in written.files]
        paths += [config.output / "genes.tsv", list_path]
        manifest = {
            "format": "metalayer base layer",
            "format_version": _FORMAT_VERSION,
            "site_convention": SITE_CONVENTION,
            "genome_build": config.build,
            "base_model": config.base,
            **read_facts,
            "options": {
                "columns": list(config.columns),
                "shift": list(config.shift),
                "absent": config.absent,
                "logits": config.logits,
                "any_introns_allowed": config.allow_introns,
                "labels": config.labels,
            },
            "notes": [*_lacking(sources), *reading.notes],
            "genes": written.genes,
            "positions": written.positions,
            "positions_filled": written.filled,
            "sites": written.sites,
            "genes_incomplete": written.incomplete,
            "genes_not_written": dict(sorted(Counter(line["reason"] for line in lines if not line["written"]).items())),
            "scores_outside_genes": reading.outside,
            "conventions": written.conventions,
            "introns": genome.fitting.introns,
            "canonical": genome.fitting.canonical,
            "annotation_handled": genome.handled,
            "principal_by": genome.principal_by(),
            "contigs": genome.own_names,
            "ambiguous_letters": genome.reference.ambiguous,
            "files": {path.relative_to(config.output).as_posix(): sha256(path) for path in sorted(paths)},
        }
        write_json(manifest_path, manifest)
    if reading.outside:
        logger.info("%s scores lie in no gene of %s: not used", f"{reading.outside:,}", config.annotation.name)
    for note in manifest["notes"]:
        logger.info("%s", note)
    for text in (*genome.labels_in_words(config.labels), *in_words(genome.handled)):
        logger.info("%s: %s", config.annotation.name, text)
    return manifest


def _all_lines(written: _Written, genome: AnnotatedGenome) -> list[dict[str, Any]]:
    """A line for every gene of the annotation."""
    found = []
    for one in genome.annotation.genes:
        gene_id = one.gene.gene_id
        reason = genome.fitting.left_out.get(gene_id)
        why = REASONS[reason] if reason else _NO_SCORE
        found.append(written.lines.get(gene_id) or _line(one.gene, (0, 0), why))
    return found


@dataclass(frozen=True)
class _Shift:
    """Bases by which scores are moved: all along the chromosome, each class in transcript direction."""

    along: int = 0
    by_class: Mapping[int, int] = field(default_factory=lambda: dict.fromkeys(_SITES, 0))

    @classmethod
    def of(cls, given: Sequence[str]) -> _Shift:
        """From `1`, or `donor=-1` and `acceptor=1`.

        Raises:
            ConfigError: another form, or too far.
        """
        along, by_class = 0, dict.fromkeys(_SITES, 0)
        for text in given:
            name, equals, number = text.rpartition("=")
            try:
                bases = int(number)
            except ValueError:
                bases = 2 * MARGIN_BP
            if abs(bases) > MARGIN_BP or (equals and name not in (CLASSES[kind] for kind in _SITES)):
                raise ConfigError(
                    f"--shift: given {text!r}; allowed are a number of bases along the chromosome, and donor=N and "
                    f"acceptor=N in transcript direction, each of at most {MARGIN_BP} bases"
                )
            if equals:
                by_class[CLASSES.index(name)] = bases
            else:
                along = bases
        return cls(along, by_class)

    def plus(self, moves: Mapping[tuple[int, str], int]) -> str | None:
        """The option that moves scores as here and by so much more; None where none does.

        Args:
            moves: in transcript direction, by class and strand.
        """
        strands = {strand for _, strand in moves}
        along = {move if strand == "+" else -move for (_, strand), move in moves.items()}
        by_class = {kind: {move for (one, _), move in moves.items() if one == kind} for kind in _SITES}
        if len(strands) == 2 and len(moves) == 4 and len(along) == 1:
            found = _Shift(self.along + along.pop(), self.by_class)
        elif moves and all(len(one) <= 1 for one in by_class.values()):
            found = _Shift(self.along, {kind: self.by_class[kind] + sum(one) for kind, one in by_class.items()})
        else:
            return None
        parts = [f"{found.along:+d}"] * bool(found.along)
        parts += [f"{CLASSES[kind]}={bases:+d}" for kind, bases in found.by_class.items() if bases]
        return f"--shift {' '.join(parts)}" if parts else "no --shift"

    def of_class(self, kind: int, strand: str) -> int:
        """Bases along the chromosome."""
        return self.along + (self.by_class[kind] if strand == "+" else -self.by_class[kind])


@dataclass
class _Written:
    """What was written."""

    files: list[str] = field(default_factory=list)
    genes: int = 0
    positions: int = 0
    filled: int = 0
    incomplete: int = 0
    sites: dict[str, int] = field(default_factory=lambda: {CLASSES[kind]: 0 for kind in _SITES})
    conventions: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)


def _finder(genes: Sequence[Gene]) -> Callable[[str, str], Gene | None]:
    """Finds a gene by its id, or where one alone is meant by its id without version, or by its name."""
    by_id = {gene.gene_id: gene for gene in genes}
    others: dict[str, list[Gene]] = {}
    for gene in genes:
        for name in {unversioned(gene.gene_id), gene.gene_name} - {"", gene.gene_id}:
            others.setdefault(name, []).append(gene)

    def find(gene_id: str, chrom: str) -> Gene | None:
        if gene_id in by_id:
            return by_id[gene_id]
        found = [
            gene
            for gene in others.get(gene_id) or others.get(unversioned(gene_id)) or []
            if chrom in ("", gene.interval.chrom)
        ]
        if not found and unversioned(gene_id) in by_id:
            found = [by_id[unversioned(gene_id)]]
        return found[0] if len(found) == 1 else None

    return find


def _facts(config: ImportConfig, sources: Sequence[Reader]) -> dict[str, Any]:
    """All that decides what is read; an import with other facts starts again."""
    return {
        "metalayer_version": metalayer.__version__,
        "code_hash": code_hash(),
        "sources": [file_facts("scores", path) for path in inputs(sources, config.files)],
        "fasta": file_facts("FASTA", config.fasta),
        "annotation": file_facts("annotation", config.annotation),
        **({"aliases": file_facts("aliases", config.aliases)} if config.aliases else {}),
    }


@contextlib.contextmanager
def _kept(config: ImportConfig, digest: str) -> Iterator[Path]:
    """A folder for what is read, that of an earlier run that broke off; it goes when all is written.

    What a refused import has read stays where reading took long: the next one may be the same with another option. What
    earlier imports of this name with other files have left goes.
    """
    columns = content_digest(sorted(config.columns))
    folder = config.output / f".import-{config.base}-{content_digest([digest, columns])[:16]}"
    for old in config.output.glob(f".import-{config.base}-{'[0-9a-f]' * 16}"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    try:
        yield folder
    except InputError:
        if time.monotonic() - began < _WORTH_KEEPING_S:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _leaving_nothing(output: Path) -> Iterator[None]:
    """Remove folders that are empty where an import was refused."""
    try:
        yield
    except InputError:
        for folder in (output / SCORES_FOLDER, output):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def _explained(config: ImportConfig) -> Iterator[None]:
    """A disk that fails, as an error that says how to go on."""
    try:
        yield
    except OSError as error:
        fault = storage.explained(error) or MetalayerError(str(error))
        raise type(fault)(
            f"{config.output} cannot be written: {fault}. What was read is kept: run the same command again"
        ) from error


def _refuse_rows(config: ImportConfig) -> None:
    """See that no rows of another base are there under this name."""
    for folder in sorted(config.output.glob(f"data/*/*/{config.base}_eval")):
        raise InputError(
            f"{config.output} has artifact rows of a base model {config.base} ({folder}), which would stand beside the "
            "scores of another one; give another --base, or another --output"
        )


@dataclass
class _Reading:
    """How far the reading of files is; by their number.

    Attributes:
        pieces: taken in.
        outside_of: scores of them that lie in no gene.
        notes_of: what is to be said of files that are read to their end.
        lowest: of all scores.
        highest: likewise.
    """

    pieces: dict[str, int] = field(default_factory=dict)
    outside_of: dict[str, int] = field(default_factory=dict)
    notes_of: dict[str, list[str]] = field(default_factory=dict)
    lowest: float = 0.0
    highest: float = 0.0

    @property
    def outside(self) -> int:
        """Scores that lie in no gene."""
        return sum(self.outside_of.values())

    @property
    def notes(self) -> list[str]:
        """What is to be said of all files."""
        return [note for notes in self.notes_of.values() for note in notes]


def _read(sources: Sequence[Reader], kept: KeptScores, places: Places, state: Path, *, logits: bool) -> _Reading:
    """Read all files, from where an earlier run was."""
    done = _Reading()
    with contextlib.suppress(OSError, ValueError, TypeError):
        done = _Reading(**json.loads(state.read_text("utf-8")))

    def note() -> float:
        kept.flush()
        with publish_file(state) as draft:
            draft.write_text(json.dumps(vars(done)), encoding="utf-8")
        return time.monotonic()

    noted = time.monotonic()
    for number, source in enumerate(sources):
        key = str(number)
        if key in done.notes_of:
            logger.info("%s: read by the last run", source.path.name)
            continue
        skip = done.pieces.setdefault(key, 0)
        done.outside_of.setdefault(key, 0)
        if skip:
            logger.info("%s: going on where the last run was", source.path.name)
        progress = Reading(f"{source.path.name} ({number + 1} of {len(sources)})")
        for piece in source.pieces(places, skip):
            _check_range(piece, source.path, done, logits=logits)
            done.outside_of[key] += kept.put(piece, source.path, places)
            done.pieces[key] += 1
            progress.add(len(piece.positions), piece.share)
            if time.monotonic() - noted >= _NOTE_EVERY_S:
                noted = note()
        done.notes_of[key] = source.notes()
        noted = note()
        logger.info("%s: %s scores read", source.path.name, f"{progress.done:,}")
    if logits and done.lowest >= 0 and done.highest <= 1:
        raise InputError(
            f"--logits: all scores lie between {done.lowest:g} and {done.highest:g}, so they are probabilities "
            "already; leave out --logits"
        )
    return done


def _lacking(sources: Sequence[Reader]) -> list[str]:
    """Classes that no file has of a strand whose other class is there."""
    given = frozenset().union(*(source.gives for source in sources))
    return [
        f"no file has {CLASSES[kind]} scores of the strand {strand}: its genes have {CLASSES[1 - kind]} scores alone"
        for strand in ("+", "-")
        for kind in _SITES
        if (kind, strand) not in given and (1 - kind, strand) in given
    ]


def _check_range(piece: Piece, path: Path, done: _Reading, *, logits: bool) -> None:
    for kind, values in piece.values.items():
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        low, high = float(known.min()), float(known.max())
        if not logits and (low < -_ROUNDING or high > 1 + _ROUNDING):
            raise InputError(
                f"{path}: {CLASSES[kind]} scores from {low:g} to {high:g} on {piece.contig}; allowed are "
                "probabilities, from 0 to 1. If these are logits, say so: --logits; scores in percent or as logarithms "
                "are to be converted first"
            )
        if not np.isfinite([low, high]).all():
            raise InputError(f"{path}: {CLASSES[kind]} scores that are infinite on {piece.contig}; convert them first")
        done.lowest, done.highest = min(done.lowest, low), max(done.highest, high)


def _write(
    config: ImportConfig,
    shift: _Shift,
    sources: Sequence[Reader],
    kept: KeptScores,
    genome: AnnotatedGenome,
) -> _Written:
    """Write the score files, which appear together, if letters, labels and scores fit each other."""
    genes, by_chrom = genome.genes, genome.by_chrom
    number_of = {gene.gene_id: number for number, gene in enumerate(genes)}
    given = frozenset().union(*(source.gives for source in sources))
    written, counts = _Written(), ConventionCounts()
    odd_sums: list[str] = []
    progress = Progress(sum(map(len, genes)))
    with contextlib.ExitStack() as drafts:
        for chrom, tokens in genome.reference.chromosomes(by_chrom):
            file: NucleotideFile | None = None
            for annotated in by_chrom[chrom]:
                gene = annotated.gene
                scores, filled, odd = _scores(kept.read(number_of[gene.gene_id]), gene, shift, given, config)
                progress.add(len(gene))
                odd_sums += [odd] * bool(odd)
                there = tuple(int((~np.isnan(scores[:, kind])).sum()) for kind in _SITES)
                if not any(there):
                    continue
                if file is None:
                    name = file_name(config.base, chrom)
                    is_long = any(one.gene.interval.end > LARGEST_32_BIT for one in by_chrom[chrom])
                    file = drafts.enter_context(
                        NucleotideFile.publish(
                            config.output / SCORES_FOLDER / name,
                            config.base,
                            chrom,
                            config.build,
                            is_long=is_long,
                            contigs=genome.own_names,
                            marked=True,
                        )
                    )
                    written.files.append(name)
                letters = tokens[gene.interval.start : gene.interval.end]
                labels = annotated.labels(config.labels)
                turned = gene.strand == "-"
                genomic = labels[::-1] if turned else labels
                counts.add(
                    chrom,
                    gene.strand,
                    _letters(letters),
                    np.nan_to_num(scores, nan=-1.0),
                    pl.Series(genomic),
                )
                file.write(
                    gene,
                    reverse_complement(letters) if turned else letters,
                    scores[::-1] if turned else scores,
                    labels,
                    annotated.marks(),
                )
                lacking = [len(gene) - count for count in there]
                why = " and ".join(
                    f"{n:,} bases without {CLASSES[kind]} score" for kind, n in zip(_SITES, lacking, strict=True) if n
                )
                written.lines[gene.gene_id] = _line(gene, there, why, written=True)
                written.genes += 1
                written.positions += len(gene)
                written.filled += filled
                written.incomplete += any(lacking)
                for kind in _SITES:
                    written.sites[CLASSES[kind]] += int((labels == kind).sum())
            if file is not None:
                file.close()
        if not written.genes:
            raise InputError(
                f"none of the {len(genes)} genes of {config.annotation} has a score: what the files have lies "
                "elsewhere or on the other strand. Are annotation and scores of one genome build and of the same genes?"
            )
        source = f"{len(config.files)} files from {config.files[0]} on" if len(config.files) > 1 else config.files[0]
        written.conventions = _judge(counts, str(source), shift, allow_introns=config.allow_introns)
        if odd_sums:  # which a shift may be the cause of
            raise InputError(
                f"{source}: {odd_sums[0]}; so in {len(odd_sums)} of {written.genes} genes. Scores are probabilities of "
                "the three classes of one base"
            )
    remove_stale(config.output / SCORES_FOLDER, config.base, written.files)
    return written


def _scores(
    raw: NDArray[np.float32], gene: Gene, shift: _Shift, given: frozenset[tuple[int, str]], config: ImportConfig
) -> tuple[NDArray[np.float32], int, str]:
    """Probabilities of a gene, float32 (L, 3), genomic order, NaN where there are none; how many were filled in.

    Args:
        raw: float32 (3, L + 2 `MARGIN_BP`), as the files have them.
        gene: whose.
        shift: by how much they are moved.
        given: classes and strands that the files are of.
        config: whether these are logits, and what absent ones are.

    Returns:
        And what is to be said where scores of one base do not add up to 1; else nothing.
    """
    values = _probabilities(raw) if config.logits else np.clip(raw, 0.0, 1.0)
    length = len(gene)
    columns = {}
    for kind in (*_SITES, NEITHER):
        by = shift.of_class(kind, gene.strand) if kind != NEITHER else shift.along
        columns[kind] = values[kind, MARGIN_BP - by : MARGIN_BP - by + length].copy()
    if any(shift.by_class.values()):
        columns[NEITHER][:] = np.nan
    filled = 0
    has_any = not all(np.isnan(columns[kind]).all() for kind in _SITES)
    if config.absent is not None and has_any:
        for kind in _SITES:
            empty = np.isnan(columns[kind])
            if (kind, gene.strand) in given:
                filled += int(empty.sum())
                columns[kind][empty] = config.absent
    donor, acceptor, neither = (columns[kind].astype(np.float64) for kind in (DONOR, ACCEPTOR, NEITHER))
    rest = 1.0 - donor - acceptor
    is_derived = np.isnan(neither)
    over = np.flatnonzero(np.where(is_derived, -rest, np.abs(rest - neither)) > PROBABILITY_SUM_TOLERANCE)
    odd = ""
    if len(over):
        at = int(over[0])
        place = one_based(gene.interval.start + at, gene.interval.start + at)[0]
        known = "" if is_derived[at] else f", neither {neither[at]:g}"
        odd = (
            f"gene {gene.gene_id}: {len(over):,} bases whose scores do not add up to 1, the first at "
            f"{gene.interval.chrom}:{place} ({gene.strand}) with donor {donor[at]:g}, acceptor {acceptor[at]:g}{known}"
        )
    columns[NEITHER] = np.where(is_derived, np.maximum(rest, 0.0), neither).astype(np.float32)
    return np.stack([columns[kind] for kind in range(len(CLASSES))], axis=1), filled, odd


def _probabilities(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of logits (3, n): by softmax where all three are there, else each by the logistic function."""
    plain = raw.astype(np.float64)
    whole = ~np.isnan(plain).any(axis=0)
    powers = np.exp(plain - np.where(whole, plain.max(axis=0), 0.0)[None, :])
    with np.errstate(over="ignore"):
        alone = 1.0 / (1.0 + np.exp(-plain))
    found: NDArray[np.float32] = np.where(whole, powers / powers.sum(axis=0), alone).astype(np.float32)
    return found


def _judge(counts: ConventionCounts, source: str, shift: _Shift, *, allow_introns: bool) -> dict[str, Any]:
    """Hold letters, labels and scores against each other; gives what was counted.

    Raises:
        ArtifactError: they do not fit, with the option that would fix it where there is one.
    """
    try:
        refuse_mistakes(counts, source, allow_introns=allow_introns)
    except ArtifactError as error:
        option = shift.plus(score_moves(counts))
        fix = f". To have them moved as they are read, give the same command with {option}" if option else ""
        raise ArtifactError(f"{str(error).rstrip('.')}{fix}") from None
    found = facts(counts, allow_introns=allow_introns)
    peaks = [found[CLASSES[kind]] for kind in _SITES]
    if all(
        one["with_peaks"] >= MIN_INTRONS and one["with_peaks_at_label"] < MIN_AT_LABELS * one["with_peaks"]
        for one in peaks
    ):
        at = " and ".join(
            f"{one['with_peaks_at_label']} of {one['with_peaks']} {CLASSES[kind]}"
            for kind, one in zip(_SITES, peaks, strict=True)
        )
        raise ArtifactError(
            f"{source}: the scores have nothing to do with the sites of the annotation: they are highest at {at} "
            f"labels, as chance would have it, and at no shift of up to {MARGIN_BP} bases at more. Are scores and "
            "annotation of one genome build, and the strands right?"
        )
    log_facts(found, source)
    return found


def _letters(tokens: NDArray[np.uint8]) -> pl.Series:
    """As text, plus strand."""
    letters = pl.from_arrow(pa.DictionaryArray.from_arrays(pa.array(tokens.astype(np.int32)), list("ACGTN")))
    assert isinstance(letters, pl.Series)
    return letters


def _line(gene: Gene, there: Sequence[int], reason: str, *, written: bool = False) -> dict[str, Any]:
    span = gene.interval
    start, end = one_based(span.start, span.end)
    return {
        "gene_id": f"gene-{gene.gene_id}",
        "gene_name": gene.gene_name,
        "chrom": f"chr{span.chrom}",
        "strand": gene.strand,
        "start": start,
        "end": end,
        "donor_scores": there[0],
        "acceptor_scores": there[1],
        "written": written,
        "reason": reason,
    }


def _write_list(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """All genes of the annotation, and why one was not written or is not complete."""
    with publish_file(path) as draft:
        pl.DataFrame(lines, infer_schema_length=None).write_csv(draft, separator="\t")
