"""Per-nucleotide scores of several base models on the same genes, side by side in one file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from metalayer.contigs import Contigs
from metalayer.data.discovery import base_models_of
from metalayer.data.nucleotide_scores import base_models_in
from metalayer.data.score_files import ScoreFile
from metalayer.errors import ArtifactError, InputError
from metalayer.files import publish_file, scratch_directory
from metalayer.genome import same_build
from metalayer.integrity import PAGE_CHECKSUMS, seal_metadata
from metalayer.schema import (
    BASE_SCORES,
    CLASSES,
    CONTIGS_KEY,
    GENOME_BUILD_KEY,
    SITE_KINDS,
    SPLICED_SCORE,
    score_columns,
)

logger = logging.getLogger(__name__)

_NAMED = "name it: NAME=FILE"


def merge_scores(
    files: Sequence[tuple[str | None, Path]], output: Path, aliases: Path | None = None, *, allow_introns: bool = False
) -> dict[str, int]:
    """Put the scores of several base models side by side, by (gene_id, position).

    Every gene must be in the files of every base model, at the same place and with the same letters and labels.
    A position that any of them marks as ignored is ignored.

    Args:
        files: labelled per-nucleotide Parquet with letters, and the name of its base model; None where the file, or its
            name (`<base>_<chrom>.parquet`), says it. Files of one name are of one base model.
        output: Parquet to publish.
        aliases: names of contigs, where the files have different ones; see `contigs`.
        allow_introns: introns may begin and end with anything, not GT or GC and AG alone.

    Returns:
        base_models, genes, positions: how many.

    Raises:
        InputError: a base model without a name, or no two of them.
        ArtifactError: files that cannot be used, or that are not of the same genes, build, letters or labels.
    """
    by_base: dict[str, list[Path]] = {}
    for given, path in files:
        for name in _names(given, path):
            by_base.setdefault(name, []).append(path)
    if len(by_base) < 2:
        raise InputError(
            f"merge puts at least two base models side by side; given {', '.join(by_base)} alone. Of two files without "
            f"names of their own, {_NAMED}"
        )
    contigs = Contigs.of(aliases)
    with scratch_directory(output) as folder:
        read = {
            name: ScoreFile.read(
                paths,
                folder / f"{number}.parquet",
                {},
                contigs,
                base_model=name if any(len(base_models_in(path)) > 1 for path in paths) else None,
                allow_introns=allow_introns,
                spliced_alone=True,
            )
            for number, (name, paths) in enumerate(by_base.items())
        }
        _refuse_others(read)
        return _write(read, output)


def _names(given: str | None, path: Path) -> tuple[str, ...]:
    """The base models of a file."""
    if not path.is_file():
        raise ArtifactError(f"merge: given {path}, which is no file")
    there = base_models_in(path)
    if given is None:
        found = base_models_of(path)
        if found == ("",):
            raise InputError(f"{path} does not say of which base model it is; {_NAMED}")
        if found != there:
            logger.info("%s: of base model %s, by its name", path, found[0])
        return found
    if len(there) > 1:
        raise InputError(f"{given}={path}: the file has several base models ({', '.join(there)}); give it without name")
    return (given,)


def _refuse_others(read: Mapping[str, ScoreFile]) -> None:
    """Refuse base models that are not of the same genes, build, letters and labels."""
    (first, reference), *rest = read.items()
    genes = reference.store.genes()
    for name, file in rest:
        builds = reference.store.genome_build, file.store.genome_build
        if all(builds) and not same_build(*builds):
            raise ArtifactError(f"{first} is of genome build {builds[0]} and {name} of {builds[1]}; merge one build")
        theirs = file.store.genes()
        for one, missing in ((name, genes.keys() - theirs.keys()), (first, theirs.keys() - genes.keys())):
            if missing:
                gene_id = min(missing)
                cause = read[one].found.genes_dropped.get(gene_id, "absent")
                raise ArtifactError(
                    f"{len(missing)} genes have no scores of {one} (the first {gene_id}: {cause}); give every base "
                    "model the same genes"
                )
        for gene_id, gene in genes.items():
            same = {
                "place": theirs[gene_id] == gene,
                "letters": file.store.letters_of(gene_id) == reference.store.letters_of(gene_id),
            }
            if all(same.values()):
                labels, theirs_too = (one.store.rows(gene_id, ["label"]) for one in (reference, file))
                same["labels"] = labels.equals(theirs_too)
            if not all(same.values()):
                what = " and ".join(key for key, alike in same.items() if not alike)
                raise ArtifactError(
                    f"gene {gene_id} has another {what} in {file.names} ({name}) than in {reference.names} ({first}); "
                    "make both from one FASTA and one annotation"
                )


def _write(read: Mapping[str, ScoreFile], output: Path) -> dict[str, int]:
    reference = next(iter(read.values()))
    store = reference.store
    text = pa.dictionary(pa.int32(), pa.string())
    columns = {
        name: score_columns(name, BASE_SCORES if len(file.store.score_columns()) > 1 else (SPLICED_SCORE,))
        for name, file in read.items()
    }
    schema = pa.schema(
        [
            *((name, text) for name in ("gene_id", "chrom", "strand")),
            ("position", pa.int64()),
            ("base", text),
            *((column, pa.float32()) for theirs in columns.values() for column in theirs),
            ("label", text),
            ("paralog", pa.int8()),
            ("ignored", pa.bool_()),
            *(zip(store.mark_columns, (text, pa.int32()), strict=False)),
        ]
    )
    metadata: dict[str, str] = {}
    if build := next((file.store.genome_build for file in read.values() if file.store.genome_build), None):
        metadata[GENOME_BUILD_KEY] = build
    if store.contigs:
        metadata[CONTIGS_KEY] = json.dumps(store.contigs)
    schema = schema.with_metadata(seal_metadata(metadata))
    with (
        publish_file(output) as draft,
        pq.ParquetWriter(draft, schema, compression="zstd", **PAGE_CHECKSUMS) as writer,
    ):
        for gene_id in store.genes():
            frame = store.rows(gene_id)
            marked = frame["ignored"]
            for name, file in read.items():
                rows = file.store.rows(gene_id)
                scores = rows.select(file.store.score_columns()).rename(
                    dict(zip(file.store.score_columns(), columns[name], strict=True))
                )
                marked |= rows["ignored"]
                frame = frame.with_columns(scores)
            frame = frame.with_columns(
                pl.col("label").replace_strict(dict(enumerate(CLASSES)), return_dtype=pl.String),
                ignored=marked,
                paralog=pl.lit(store.paralog(gene_id), dtype=pl.Int8),
            )
            if store.mark_columns:
                kinds = pl.col(store.mark_columns[0])
                frame = frame.with_columns(kinds.replace_strict(dict(enumerate(SITE_KINDS)), return_dtype=pl.String))
            table = frame.select(schema.names).to_arrow().cast(schema)
            writer.write_table(table, row_group_size=len(frame))
    return {"base_models": len(read), "genes": reference.found.genes, "positions": reference.found.positions}
