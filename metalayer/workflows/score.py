"""Scoring rows of a file with a model directory, without a server; one contract with the server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError, InputError
from metalayer.files import publish_file
from metalayer.inference import Predictor
from metalayer.schema import CLASSES, ROW_SCORES
from metalayer.serving.schemas import INDEX, SEQUENCE, Limits, RequestError, validate_columns

logger = logging.getLogger(__name__)

_BATCH_ROWS = 8192
_NAMES = ("gene_id", "transcript_id", "gene_name", "chrom", "strand", "position")
"""Columns that name a row: handed on as they are."""


def score_rows(rows: Path, model: Path, output: Path, device: str = "cpu") -> int:
    """Score rows; the output has the columns that name a row, then donor, acceptor, neither (calibrated).

    Args:
        rows: `.parquet`, or tab-separated text with a header: `sequence` (transcript sense), the seven row
            scores, and where the labelled base is: `index`, else `position` and `window_start` as in
            artifacts, else the middle of the sequence. Other columns do not matter.
        model: model directory, or the output folder of `metalayer train`.
        output: `.parquet` or `.tsv`; appears whole or not at all.
        device: of the network.

    Returns:
        Number of rows.

    Raises:
        ArtifactError: a file or row that cannot be used, naming it (rows count from 0).
        InputError: an output of another kind.
    """
    if output.suffix not in (".parquet", ".tsv"):
        raise InputError(f"--output: given {output}; the name must end in .parquet or .tsv")
    predictor = Predictor.load(model, device)
    if predictor.masked_rows:
        logger.warning("%s", predictor.masked_rows)
    done = 0
    with publish_file(output) as draft, contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for batch in _read(rows):
            answers = _score(batch, predictor, rows, done)
            done += len(answers)
            if output.suffix == ".tsv":
                with draft.open("ab") as handle:
                    answers.write_csv(handle, separator="\t", include_header=done == len(answers))
                continue
            table = answers.to_arrow()
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(draft, table.schema, compression="zstd"))
            writer.write_table(table.cast(writer.schema))
        if not done:
            raise ArtifactError(f"{rows}: no rows")
    logger.info("scored %d rows into %s", done, output)
    return done


def _read(path: Path) -> Iterator[pl.DataFrame]:
    """Batches of the columns that matter."""
    try:
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            wanted = _wanted(path, file.schema_arrow.names)
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                yield pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            return
        names = pl.read_csv(path, separator="\t", n_rows=0, infer_schema=False).columns
        kinds: dict[str, pl.DataType] = dict.fromkeys(names, pl.String())
        kinds.update((name, pl.Float64()) for name in ROW_SCORES if name in kinds)
        kinds.update((name, pl.Int64()) for name in (INDEX, "position", "window_start") if name in kinds)
        scan = pl.scan_csv(path, separator="\t", schema=kinds).select(_wanted(path, names))
        yield from scan.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path}: {str(error).splitlines()[0]}") from None


def _wanted(path: Path, there: list[str]) -> list[str]:
    missing = [name for name in (SEQUENCE, *ROW_SCORES) if name not in there]
    if missing:
        raise ArtifactError(f"{path}: no column {', '.join(missing)}; needed are {', '.join((SEQUENCE, *ROW_SCORES))}")
    return [name for name in there if name in {*_NAMES, SEQUENCE, *ROW_SCORES, INDEX, "window_start"}]


def _score(batch: pl.DataFrame, predictor: Predictor, path: Path, first: int) -> pl.DataFrame:
    columns = {name: batch[name].to_list() for name in (SEQUENCE, *ROW_SCORES)}
    if INDEX in batch.columns:
        columns[INDEX] = batch[INDEX].to_list()
    elif {"position", "window_start"} <= set(batch.columns):
        columns[INDEX] = (batch["position"] - batch["window_start"]).to_list()
    try:
        rows = validate_columns(columns, Limits(max_rows=_BATCH_ROWS))
    except RequestError as error:
        told = [
            f"row {first + d['row']}: {d['field']} {d['given']!r}; allowed: {d['allowed']}" for d in error.details[:5]
        ]
        raise ArtifactError(f"{path}: {error}\n" + "\n".join(told)) from None
    windows = encode_windows(rows.sequences, rows.index, predictor.schema.window_bp)
    answers = predictor.predict_rows(rows.row_scores, windows)
    named = batch.select([name for name in _NAMES if name in batch.columns])
    return named.hstack([pl.Series(name, answers[:, i]) for i, name in enumerate(CLASSES)])
