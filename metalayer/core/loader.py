"""ArtifactLoader: a base model's files in, typed tables out.

Rows whose per-nucleotide scores are at hand are rebuilt by the one label-free rule of `features.py`
(artifact rows carry the scores of the base layer's donor or acceptor pass, which nothing that serves
has); other rows are used as they stand, and the report says how many of each there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.base.artifacts import SAMPLE_SEED, artifact_rows
from metalayer.contigs import Contigs
from metalayer.data.artifacts import (
    TYPED_ROW,
    ReadReport,
    count_rows,
    read_artifacts,
    read_header,
    read_sites,
    with_features,
)
from metalayer.data.class_label import with_label
from metalayer.data.convention_counts import ConventionCounts
from metalayer.data.conventions import facts, refuse_mistakes
from metalayer.data.discovery import BaseLayerFiles, check_written, find_files
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import contigs_of, genes_from_frame, read_gene_table
from metalayer.data.ignored_rows import contradicted_rows, rows_of_ignored
from metalayer.data.nucleotide_scores import TrackReport, genome_build_of, write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.features import gene_row_scores
from metalayer.files import publish_file, sha256
from metalayer.formats.evidence import Evidence
from metalayer.genome import Gene, decode, exon_base, one_based, same_build, same_chrom
from metalayer.integrity import PAGE_CHECKSUMS
from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR, NEITHER, ROW_SCORES, bases_of
from metalayer.settings.sections import DataConfig

logger = logging.getLogger(__name__)

_PROGRESS_FILES = 10
ROWS, TRACKS, GENES = "rows.parquet", "tracks.parquet", "genes.parquet"
_GENES_TOGETHER = 100
LISTED = 100
"""Rows that overlapping genes label differently are listed up to this number."""
_SCORES_APART_SHARE = 0.05
"""Negative rows whose scores differ from the per-nucleotide file's: above this share it is another model's."""
_LETTERS_APART_SHARE = 0.01
"""Rows whose letter differs from the per-nucleotide file's: above this share they are of two builds."""


class ArtifactLoader:
    """Finds, checks and types the files of one base model."""

    def __init__(self, config: DataConfig, files: BaseLayerFiles | None = None) -> None:
        """Nothing is read before it is asked for.

        Args:
            config: which base model, and what its files may be like.
            files: its files; None finds them by name.
        """
        self.config, self._files = config, files

    def files(self) -> BaseLayerFiles:
        """The files, as given or found by name; see `find_files`."""
        return self._files or find_files(self.config)

    def genome_build(self) -> str | None:
        """The genome build by the folder of the files, else by the first of the per-nucleotide scores, if any has one.

        Raises:
            ArtifactError: files that are absent or cannot be read.
        """
        files = self.files()
        return files.genome_build or next(filter(None, map(genome_build_of, files.nucleotide_scores)), None)

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all input files, in hex: the data hash.

        Raises:
            ArtifactError: files that are absent, or that were changed since their base layer was written.
        """
        total, files = hashlib.sha256(), self.files()
        check_written(files.all_paths())
        for path in sorted(set(files.all_paths()) - set(files.evidence)):
            total.update(f"{path.name}\0{sha256(path)}\n".encode())
        for number, path in enumerate(files.evidence):  # wherever it lies, and whatever it is called
            total.update(f"evidence {number}\0{sha256(path)}\n".encode())
        return total.hexdigest()

    def get_statistics(self) -> dict[str, Any]:
        """What the artifact files hold, all rows of them; without any, the rows drawn from the per-nucleotide scores.

        Returns:
            total_positions, files, classes, chromosomes, genes (rows by name each), missing (rows without
            a value, or with NaN, by column).

        Raises:
            ArtifactError: files that are absent or cannot be parsed.
        """
        files = self.files()
        check_written([file.path for file in files.artifacts])
        found = [count_rows(file) for file in files.artifacts] or [self._drawn()]
        totals: dict[str, dict[str, int]] = {}
        for kind in ("classes", "chromosomes", "genes", "missing"):
            totals[kind] = {}
            for counts in found:
                for name, count in counts[kind].items():
                    totals[kind][name] = totals[kind].get(name, 0) + count
        classes = {name: totals["classes"].pop(name, 0) for name in CLASSES} | totals["classes"]
        return {"total_positions": sum(classes.values()), "files": len(files.artifacts), **totals, "classes": classes}

    def load(self, output_dir: Path, *, labelled: bool = False) -> dict[str, Any]:
        """Write `rows.parquet`, and `tracks.parquet` and `genes.parquet` where there is something to write.

        Where there are per-nucleotide scores with letters and labels alone, rows are drawn from these as a base-layer
        pass draws them.

        They are published after all of them are written, or none of them is. Rows: gene_id, chrom,
        strand, position, index, sequence, splice_type and the 50 features.

        Args:
            output_dir: folder to write.
            labelled: add `label` and a `sample_weight` of 1, as `label_rows` does where there are no variants.

        Returns:
            What was read, dropped, mismatched and rebuilt: JSON-ready.

        Raises:
            ArtifactError: files that cannot be used; see `data.artifacts`, `data.nucleotide_scores`, `data.gene_names`.
            InputError: aliases that cannot be used.
        """
        files = self.files()
        for file in files.artifacts:
            read_header(file)  # every damaged file is found before the first row is read
        reading = ReadReport()
        tracks_report: TrackReport | None = None
        store: TrackStore | None = None
        contigs, own_names = Contigs.of(files.aliases), dict[str, str]()
        table: dict[str, Gene] = {}
        with contextlib.ExitStack() as published, ThreadPoolExecutor(max_workers=1) as beside:
            whole = beside.submit(check_written, files.all_paths())
            draft = {name: published.enter_context(publish_file(output_dir / name)) for name in _outputs(files)}
            if files.gene_table:
                frame = read_gene_table(files.gene_table, contigs)
                table, own_names = genes_from_frame(frame), contigs_of(frame)
            names = GeneNames(table)
            if files.nucleotide_scores:
                tracks_report = write_tracks(
                    files.nucleotide_scores,
                    draft[TRACKS],
                    names,
                    lambda: self._sites(files),
                    contigs=contigs,
                    base_models=bases_of(self.config.base_model),
                    allow_introns=self.config.allow_introns,
                    evidence=Evidence(self.config.evidence, contigs) if self.config.evidence else None,
                )
                store = TrackStore(draft[TRACKS])
                own_names = store.contigs | own_names
                self._check_alone(files, store)
            rows = _RowWriter(names, store, labelled=labelled)
            with _writer(draft[ROWS], rows.schema) as write:
                for number, file in enumerate(files.artifacts, start=1):
                    for batch in read_artifacts(file, reading, contigs=contigs):
                        write(rows.add(batch, str(file.path)))
                    if number % _PROGRESS_FILES == 0 or number == len(files.artifacts):
                        logger.info("read %d of %d files, %d rows", number, len(files.artifacts), reading.rows_read)
                if store is not None and not files.artifacts:
                    for batch in _rows_of_scores(store):
                        reading.rows_read += len(batch)
                        reading.rows_kept += len(batch)
                        write(rows.add(batch, str(files.directory)))
                    logger.info("no artifact rows: drew %d rows from the per-nucleotide scores", reading.rows_read)
            names.check(f"base model {self.config.base_model}", f"gene table {files.gene_table}")
            # A gene that the table lacks lies where its scores are.
            genes = (store.genes() if store else {}) | dict(names)
            if GENES in draft:
                lines = [_gene_row(gene, own_names) for gene in genes.values()]
                pl.DataFrame(lines, schema=_GENE_SCHEMA).write_parquet(draft[GENES])
            self._check_shares(reading, tracks_report, files)
            rows.check_pass()
            allowed = self.config.allow_introns
            refuse_mistakes(rows.conventions, str(files.directory), allow_introns=allowed)
            _refuse_duplicates(rows, reading)
            if reading.acceptor_rows_lost:
                _keep_donors(draft[ROWS])
            ignored, contradictions = rows.ignored(genes)
            if len(ignored):
                _leave_out(draft[ROWS], ignored)
                reading.rows_kept -= len(ignored)
            whole.result()
        for name in {TRACKS, GENES} - draft.keys():
            (output_dir / name).unlink(missing_ok=True)  # of an earlier load
        _log(reading, rows, len(ignored), len(contradictions))
        return {
            "base_model": self.config.base_model,
            "directory": str(files.directory),
            "annotation_source": files.annotation_source,
            "genome_build": files.genome_build or (store.genome_build if store else None),
            "artifacts": asdict(reading),
            "rows_from": "artifact files" if files.artifacts else "per-nucleotide scores",
            "nucleotide_scores": asdict(tracks_report) if tracks_report else None,
            "conventions_of_rows": facts(rows.conventions, allow_introns=allowed),
            "rows_rebuilt_from_tracks": rows.rebuilt,
            "rows_as_they_stand": rows.as_they_stand,
            "rows_with_scores_of_no_pass": rows.scores_of_no_pass,
            "rows_ignored": len(ignored),
            "rows_contradicted": {"rows": len(contradictions), "list": contradictions.head(LISTED).to_dicts()},
            "acceptors_sharing_a_donors_row": max(sum(rows.bases_of_two_sites.values()), reading.acceptor_rows_lost),
            "genes_in_table": len(table),
            "genes_placed_by_scores": len(genes.keys() - names.keys()),
        }

    def _drawn(self) -> dict[str, dict[str, int]]:
        """As `count_rows`, of the rows that `load` draws."""
        with tempfile.TemporaryDirectory() as folder:
            self.load(Path(folder))
            rows = pl.scan_parquet(Path(folder) / ROWS)
            tables = pl.collect_all(
                [rows.group_by(name).len().sort(name) for name in ("splice_type", "chrom", "gene_id")]
            )
        classes, chromosomes, genes = (dict(table.iter_rows()) for table in tables)
        return {"classes": classes, "chromosomes": chromosomes, "genes": genes, "missing": {}}

    def _check_alone(self, files: BaseLayerFiles, store: TrackStore) -> None:
        """Refuse per-nucleotide scores that cannot stand without rows, or are of another build than is asked for."""
        if files.artifacts:
            return
        if not store.has_letters:
            raise ArtifactError(
                f"{files.directory}: no artifact rows, and per-nucleotide scores without letters, of which none can be "
                "made; give Parquet with a column base"
            )
        asked = self.config.genome_build
        if asked and store.genome_build and not same_build(asked, store.genome_build):
            raise ArtifactError(
                f"data.genome_build: given {asked}, but the per-nucleotide scores of {files.directory} are of "
                f"{store.genome_build}"
            )

    def _sites(self, files: BaseLayerFiles) -> pl.DataFrame:
        """gene_id, position, splice_type of all sites in the files."""
        if not files.artifacts:
            raise ArtifactError(
                f"{files.directory}: no artifact rows, and per-nucleotide scores without a column label: nothing says "
                "where sites are. Write them with `metalayer base run`, or add donor, acceptor, neither at exon bases"
            )
        return pl.concat([read_sites(file) for file in files.artifacts])

    def _check_shares(self, reading: ReadReport, tracks: TrackReport | None, files: BaseLayerFiles) -> None:
        limit = self.config.max_bad_share
        if not reading.rows_read:
            raise ArtifactError(f"no rows in the {len(files.artifacts)} files of {files.directory}")
        bad = sum(reading.dropped.values())
        if bad > limit * reading.rows_read:
            causes = ", ".join(f"{count} with {cause}" for cause, count in reading.dropped.items())
            raise ArtifactError(
                f"{bad} of {reading.rows_read} rows in {files.directory} cannot be used ({causes}); more than "
                f"data.max_bad_share = {limit:g}. Fix the files, or raise the share if that is what you expect"
            )
        if tracks and len(tracks.genes_dropped) > limit * (tracks.genes + len(tracks.genes_dropped)):
            raise ArtifactError(
                f"{len(tracks.genes_dropped)} genes have null or NaN per-nucleotide scores "
                f"({', '.join(list(tracks.genes_dropped)[:5])} ...); more than data.max_bad_share = {limit:g}"
            )


def _rows_of_scores(store: TrackStore) -> Iterator[pl.DataFrame]:
    """Typed rows of the positions that a base-layer pass samples (`base.artifacts`), some genes at a time."""
    drawn = []
    for number, gene_id in enumerate(store.genes(), start=1):
        track = store.read(gene_id)
        rows = artifact_rows(track, SAMPLE_SEED).with_columns(
            pl.lit(gene_id).alias("gene_id"),
            pl.col("splice_type").fill_null(CLASSES[NEITHER]),
            (pl.col("position") - pl.col("window_start")).alias("index"),
        )
        drawn.append(rows.select(*(pl.col(name).cast(kind) for name, kind in TYPED_ROW.items()), *ROW_SCORES))
        if number % _GENES_TOGETHER == 0 or number == len(store.genes()):
            yield pl.concat(drawn)
            drawn = []


def _log(reading: ReadReport, rows: _RowWriter, ignored: int, contradicted: int) -> None:
    """Say what a user should know of these files."""
    if ignored:
        logger.warning(
            "%d rows are ignored in training and evaluation: overlapping genes of one strand label the base of %d "
            "differently, the others are marked as ignored in the per-nucleotide scores",
            *(ignored, contradicted),
        )
    for cause, count in reading.dropped.items():
        logger.warning("dropped %d of %d rows: %s", count, reading.rows_read, cause)
    if reading.mismatched_features:
        worst = max(reading.mismatched_features.items(), key=lambda item: item[1])
        logger.warning(
            "%d derived columns of the files disagree with their formula (%s in %d rows); all are computed again",
            *(len(reading.mismatched_features), *worst),
        )
    if rows.scores_of_no_pass:
        logger.warning(
            "%d rows carry scores that neither pass gives at their position (the maximum over +-2 nt of true sites?); "
            "they are rebuilt from the per-nucleotide scores",
            rows.scores_of_no_pass,
        )
    if rows.as_they_stand:
        logger.warning(
            "%d rows have no per-nucleotide scores and stand as they are; metrics on them are not metrics on genes",
            rows.as_they_stand,
        )


def _outputs(files: BaseLayerFiles) -> list[str]:
    """What these files give."""
    names = [ROWS]
    if files.nucleotide_scores:
        names.append(TRACKS)
    if files.gene_table or files.nucleotide_scores:
        names.append(GENES)
    return names


_GENE_SCHEMA = {
    "gene_id": pl.String,
    "gene_name": pl.String,
    "chrom": pl.String,
    "strand": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "paralog_group": pl.String,
    "contig": pl.String,
}


def _gene_row(gene: Gene, own_names: Mapping[str, str]) -> dict[str, Any]:
    start, end = one_based(gene.interval.start, gene.interval.end)
    return {
        "gene_id": gene.gene_id,
        "gene_name": gene.gene_name,
        "chrom": gene.interval.chrom,
        "strand": gene.strand,
        "start": start,
        "end": end,
        "paralog_group": gene.paralog_group,
        "contig": own_names.get(gene.interval.chrom),
    }


@contextlib.contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Writes tables while the next one is made."""
    repeated = [
        "gene_id",
        "chrom",
        "strand",
        "splice_type",
        *(["label", "sample_weight"] if "label" in schema.names else []),
    ]
    with (
        pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated, **PAGE_CHECKSUMS) as out,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        pending: list[Future[None]] = []

        def write(table: pa.Table) -> None:
            for earlier in pending:
                earlier.result()
            pending[:] = [thread.submit(out.write_table, table)]

        yield write
        for last in pending:
            last.result()


class _RowWriter:
    """Rebuilds rows where it can, adds features, keeps what is needed to find duplicates."""

    def __init__(self, names: GeneNames, store: TrackStore | None, *, labelled: bool) -> None:
        self.names = names
        self.placed = store.genes() if store else {}
        self.store = store
        self.labelled = labelled
        self.rebuilt = 0
        self.as_they_stand = 0
        self.scores_of_no_pass = 0
        self.negatives = 0
        self.negatives_of_no_pass = 0
        self.bases_of_two_sites: dict[str, int] = {}
        self.place: dict[str, tuple[str, str]] = {}
        self.keys: list[pl.DataFrame] = []
        self.conventions = ConventionCounts(of_rows=True)
        self.marked: list[pl.DataFrame] = []
        empty = with_features(pl.DataFrame(schema=TYPED_ROW), np.empty((0, len(ROW_SCORES)), np.float32))
        empty = with_label(empty) if labelled else empty
        self.schema: pa.Schema = empty.to_arrow().schema

    def add(self, batch: pl.DataFrame, source: str) -> pa.Table:
        """Typed rows of one batch, with features."""
        row_scores = batch.select(ROW_SCORES).to_numpy().astype(np.float32)
        tracked = list(self.store.genes()) if self.store else []
        genes = batch.with_row_index("at").group_by("gene_id", maintain_order=True)
        for gene_id, chroms, strands, last, n, at in genes.agg(
            pl.col("chrom").unique(maintain_order=True),
            pl.col("strand").unique(maintain_order=True),
            pl.col("position").max(),
            pl.len(),
            pl.when(pl.col("gene_id").is_in(tracked)).then("at").drop_nulls().alias("at"),
        ).iter_rows():
            self._check_place(gene_id, chroms, strands, last, source)
            if at:
                row_scores[at] = self._rebuild(gene_id, batch[at], row_scores[at], source)
                self.rebuilt += n
            else:
                self.as_they_stand += n
        self.keys.append(batch.select("gene_id", "position", "splice_type"))
        rows = with_features(batch, row_scores, source)
        self.conventions.add_rows(batch, batch.select(BASE_SCORES).to_numpy())
        return (with_label(rows) if self.labelled else rows).to_arrow().cast(self.schema)

    def ignored(self, genes: Mapping[str, Gene]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows to ignore, gene_id and position; and those of them that overlapping genes label differently, with class.

        Args:
            genes: where the genes of the rows lie.
        """
        keys = pl.concat(self.keys)
        odd = contradicted_rows(keys, {gene_id: genes[gene_id] for gene_id in self.place if gene_id in genes})
        return pl.concat([odd.select("gene_id", "position"), *self.marked]).unique(), odd

    def check_pass(self) -> None:
        """Refuse per-nucleotide scores that are not those of the rows.

        Negative rows always carry the score at their position (true sites may carry a maximum around it).

        Raises:
            ArtifactError: more than a stated share of negative rows have scores that neither pass gives.
        """
        if self.negatives_of_no_pass > _SCORES_APART_SHARE * self.negatives:
            raise ArtifactError(
                f"{self.negatives_of_no_pass} of {self.negatives} negative rows have other scores than the "
                "per-nucleotide files at their position. Are both of one base model and genome build? Name the right "
                "folder with data.nucleotide_scores"
            )

    def _check_place(self, gene_id: str, chroms: Sequence[str], strands: Sequence[str], last: int, source: str) -> None:
        """Refuse a gene whose rows are on several chromosomes or strands, or outside the gene."""
        known = self.place.setdefault(gene_id, (chroms[0], strands[0]))
        if (chroms[-1], strands[-1]) != known or len(chroms) > 1 or len(strands) > 1:
            raise ArtifactError(
                f"{source}: gene {gene_id} has rows on {chroms[-1]} ({strands[-1]}) and on {known[0]} ({known[1]}). "
                "One gene lies in one place: give copies (of a pseudoautosomal region, say) a gene_id each"
            )
        gene = self.names.find(gene_id, known[0]) or self.placed.get(gene_id)
        if gene is None:
            return
        if last >= len(gene) or known[1] != gene.strand or not same_chrom(known[0], gene.interval.chrom):
            raise ArtifactError(
                f"{source}: gene {gene_id} has rows on {known[0]} ({known[1]}) up to position {last}, but it lies on "
                f"{gene.interval.chrom} ({gene.strand}), {len(gene)} bp. Are both of one genome build? Where only "
                "names of chromosomes differ, give data.aliases"
            )

    def _rebuild(
        self, gene_id: str, part: pl.DataFrame, given: NDArray[np.float32], source: str
    ) -> NDArray[np.float32]:
        assert self.store is not None
        track = self.store.read(gene_id)
        position = part["position"].to_numpy()
        if position.max() >= len(track):
            raise ArtifactError(
                f"{source}: gene {gene_id} has a row at position {position.max()}, but its per-nucleotide scores are "
                f"{len(track)} long. Are they of one genome build?"
            )
        letters = np.array(
            [sequence[i].upper() for sequence, i in zip(part["sequence"], part["index"], strict=True)], dtype="U1"
        )
        there = np.array(list(decode(track.tokens[position])), dtype="U1")
        apart = int((letters != there).sum()) if self.store.has_letters else 0
        if apart > max(1, _LETTERS_APART_SHARE * len(position)):
            raise ArtifactError(
                f"{source}: gene {gene_id}: {apart} of {len(position)} rows have another letter than their "
                "per-nucleotide scores. Are they of one genome build?"
            )
        rebuilt: NDArray[np.float32] = gene_row_scores(track.scores)[position]
        marked = rows_of_ignored(track)
        if len(marked):
            ids = pl.lit(gene_id).alias("gene_id")
            self.marked.append(part.filter(pl.col("position").is_in(marked)).select(ids, "position"))
        donor_here, acceptor_here = track.labels[:-2] == DONOR, track.labels[2:] == ACCEPTOR
        self.bases_of_two_sites[gene_id] = int((donor_here & acceptor_here).sum())
        passes = self._pass_scores(track.scores, position)
        close = np.abs(passes - given[None, :, : len(BASE_SCORES)]).max(axis=2).min(axis=0) < 1e-3
        negative = part["splice_type"].to_numpy() == CLASSES[NEITHER]
        self.scores_of_no_pass += int((~close).sum())
        self.negatives += int(negative.sum())
        self.negatives_of_no_pass += int((~close & negative).sum())
        return rebuilt

    @staticmethod
    def _pass_scores(scores: NDArray[np.float32], position: NDArray[np.integer]) -> NDArray[np.float32]:
        """Base scores of rows as the donor pass (p - 1) and the acceptor pass (p + 1) read them: (2, n, 3)."""
        last = len(scores) - 1
        read_at = np.clip(np.stack([exon_base(position, kind) for kind in (DONOR, ACCEPTOR)]), 0, last)
        both: NDArray[np.float32] = scores[read_at]
        return both


def _refuse_duplicates(rows: _RowWriter, reading: ReadReport) -> None:
    """Two rows of one (gene_id, position) are an error, but for a 1-nt intron: donor and acceptor in one."""
    keys = pl.concat(rows.keys)
    twice = keys.filter(pl.struct("gene_id", "position").is_duplicated())
    if not len(twice):
        return
    groups = twice.group_by("gene_id", "position").agg(pl.col("splice_type").sort().str.join(","), pl.len())
    wrong = groups.filter(pl.col("splice_type") != "acceptor,donor").sort("gene_id", "position")
    if len(wrong):
        gene_id, position, kinds, count = wrong.row(0)
        raise ArtifactError(
            f"{len(wrong)} keys (gene_id, position) stand there more than once, the first {gene_id}, {position} "
            f"({count} times: {kinds}). Is a chunk there twice? Remove the copies"
        )
    reading.acceptor_rows_lost = len(groups)
    reading.rows_kept -= len(groups)


def _keep_donors(path: Path) -> None:
    """Of a donor and an acceptor row on one base of a draft, keep the donor."""
    lost = pl.struct("gene_id", "position").is_duplicated() & (pl.col("splice_type") == "acceptor")
    _rewrite(path, pl.read_parquet(path).filter(~lost))


def _leave_out(path: Path, keys: pl.DataFrame) -> None:
    """Leave rows out of a draft, by gene_id and position."""
    _rewrite(path, pl.read_parquet(path).join(keys, on=["gene_id", "position"], how="anti", maintain_order="left"))


def _rewrite(path: Path, rows: pl.DataFrame) -> None:
    kept = path.with_name(path.name + "-kept")  # goes with the draft, should this process be killed
    rows.write_parquet(kept)
    kept.replace(path)
