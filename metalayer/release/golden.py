"""Golden requests: rows, or sequences, with the answers that every server of a model must give.

A Parquet that says what made it. A model with a stack has sequences, a line each with its letters, scores and answers
as lists; any other has rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.errors import ModelError
from metalayer.files import publish_file
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN, decode
from metalayer.inference import Predictor
from metalayer.release.contract import (
    FIELDS,
    INDEX,
    REQUIRED,
    SEQUENCE,
    RequestError,
    Rows,
    SequenceInput,
    evidence_fields,
    score_fields,
    validate_columns,
    validate_sequence,
)
from metalayer.release.folder import MADE_WITH, made_with
from metalayer.schema import BASE_SCORES, CLASSES, NEITHER, ROW_SCORES, evidence_column

GOLDEN_ROWS = 64
GOLDEN_SEQUENCES = 6
SEQUENCE_BP = 400
"""Letters of a golden sequence."""


@dataclass(frozen=True)
class Golden:
    """Requests and the answers expected of them.

    Attributes:
        rows: to be asked as rows; None where there are sequences.
        sequences: to be asked one by one.
        answers: donor, acceptor and neither, float64 (n, 3), of the rows, or of the positions of one sequence after the
            other.
    """

    rows: Rows | None
    sequences: tuple[SequenceInput, ...]
    answers: NDArray[np.float64]


def read_golden(path: Path) -> Golden:
    """Golden requests.

    Raises:
        ModelError: a file that cannot be read or holds no valid requests.
    """
    try:
        table = pl.read_parquet(path)
        if isinstance(table.schema.get(CLASSES[0]), pl.List):
            return _read_sequences(table)
        inputs = [name for name in FIELDS if name in table.columns or name in REQUIRED]
        rows = validate_columns({name: table[name].to_list() for name in inputs})
        return Golden(rows, (), table.select(pl.col(CLASSES).cast(pl.Float64)).to_numpy())
    except (OSError, pl.exceptions.PolarsError, RequestError) as error:
        raise ModelError(f"golden rows {path} cannot be read: {error}") from None


def _read_sequences(table: pl.DataFrame) -> Golden:
    inputs = sequence_fields(table.columns)
    sequences = tuple(validate_sequence(line) for line in table.select(inputs).to_dicts())
    answers = table.select(pl.col(CLASSES).cast(pl.List(pl.Float64))).explode(CLASSES)
    return Golden(None, sequences, answers.to_numpy())


def sequence_fields(columns: Sequence[str]) -> list[str]:
    """Of the columns of golden sequences those of the request."""
    evidence = evidence_column("")
    return [
        name
        for name in columns
        if name == SEQUENCE or name.partition(".")[0].endswith("_score") or name.startswith(evidence)
    ]


def write_golden(rows: pl.DataFrame, row_scores: NDArray[np.float32], answers: NDArray[np.float32], path: Path) -> None:
    """Publish golden rows.

    Args:
        rows: n rows with `sequence` and `index`, and what else names them.
        row_scores: float32 (n, 7), columns `ROW_SCORES`.
        answers: float32 (n, 3), of the model on a CPU, as a server's are: a GPU rounds otherwise.
        path: Parquet to write.
    """
    _publish(
        rows.hstack(
            [pl.Series(name, row_scores[:, i].astype(np.float64)) for i, name in enumerate(ROW_SCORES)]
            + [pl.Series(name, answers[:, i].astype(np.float64)) for i, name in enumerate(CLASSES)]
        ),
        path,
    )


def write_golden_sequences(names: Sequence[str], sequences: Sequence[SequenceInput], bundle: Path, path: Path) -> None:
    """Publish golden sequences with the answers that a model gives on a CPU.

    Args:
        names: what each is of.
        sequences: letters (L), scores of every base model by name, and evidence.
        bundle: model directory.
        path: Parquet to write.

    Raises:
        ModelError, SchemaError: as in `Predictor.load`.
    """
    predictor = Predictor.load(bundle)
    lines = []
    for name, one in zip(names, sequences, strict=True):
        answers = predictor.predict_tracks(one.sequence, one.bases, one.evidence)
        fields = {**score_fields(one.bases), **dict(zip(CLASSES, answers.T, strict=True))}
        values = {field: column.astype(np.float64).tolist() for field, column in fields.items()}
        lines.append({"name": name, SEQUENCE: one.sequence, **values, **evidence_fields(one.evidence)})
    _publish(pl.DataFrame(lines), path)


def golden_stretches(tracks: Sequence[GeneTrack]) -> tuple[list[str], list[SequenceInput]]:
    """Stretches of genes, each around a donor or an acceptor, for `write_golden_sequences`.

    Args:
        tracks: genes with scores of one or several base models by name.

    Returns:
        What each is of, and letters with scores and evidence.
    """
    names, stretches = [], []
    for number, track in enumerate(tracks):
        sites = np.flatnonzero(track.labels != NEITHER)
        middle = int(sites[number % len(sites)]) if len(sites) else len(track) // 2
        start = max(0, min(middle - SEQUENCE_BP // 2, len(track) - SEQUENCE_BP))
        part = slice(start, start + SEQUENCE_BP)
        names.append(f"{track.gene.gene_id}, {start} to {min(start + SEQUENCE_BP, len(track)) - 1}")
        bases, evidence = ({name: of[part] for name, of in given.items()} for given in (track.bases, track.evidence))
        stretches.append(SequenceInput(decode(track.tokens[part]), bases, evidence))
    return names, stretches


def made_up_golden(bundle: Path, path: Path) -> Path:
    """Golden requests of a model that comes without test genes: letters and scores at random, the same each time.

    Args:
        bundle: model directory.
        path: Parquet to write.

    Returns:
        `path`.

    Raises:
        ModelError, SchemaError: as in `Predictor.load`.
    """
    predictor = Predictor.load(bundle)
    rng, width = np.random.default_rng(0), predictor.schema.window_bp
    if predictor.stack:
        made = []
        for letters in rng.integers(0, N_TOKEN, (GOLDEN_SEQUENCES, SEQUENCE_BP), dtype=np.uint8):
            made.append(made_up_sequence(predictor, decode(letters), rng))
        write_golden_sequences([f"made up, {number}" for number in range(len(made))], made, bundle, path)
        return path
    windows = rng.integers(0, N_TOKEN, (GOLDEN_ROWS, width), dtype=np.uint8)
    base = rng.dirichlet(np.full(len(BASE_SCORES), 0.2), GOLDEN_ROWS)
    context = rng.random((GOLDEN_ROWS, len(ROW_SCORES) - len(BASE_SCORES)))
    row_scores = np.concatenate([base, context], axis=1).astype(np.float32)
    rows = pl.DataFrame({SEQUENCE: [decode(one) for one in windows], INDEX: [width // 2] * GOLDEN_ROWS})
    write_golden(rows, row_scores, predictor.predict_rows(row_scores, windows), path)
    return path


def made_up_sequence(predictor: Predictor, letters: str, rng: np.random.Generator) -> SequenceInput:
    """A sequence with all that a model reads at random: scores of every base model, and evidence."""
    found, length = {}, len(letters)
    for name, columns in predictor.reads.items():
        scores = rng.dirichlet(np.full(len(BASE_SCORES), 0.2), length).astype(np.float32)
        found[name] = scores if len(columns) > 1 else scores[:, :1]
    evidence = {name: rng.standard_normal(length, dtype=np.float32) for name in predictor.evidence}
    return SequenceInput(letters, found, evidence)


def _publish(golden: pl.DataFrame, path: Path) -> None:
    with publish_file(path) as draft:
        made = golden.to_arrow(compat_level=pl.CompatLevel.oldest())
        facts = {MADE_WITH: json.dumps(made_with())}
        pq.write_table(made.replace_schema_metadata(facts), draft, compression="zstd")
