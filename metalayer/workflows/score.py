"""Scoring rows of a file, with a model directory or by a server; one contract for both.

By a server, a few batches are under way at a time and answers are kept in parts beside the output, so
that a run that was cut off goes on where it was; all parts are of one model, or the run ends.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError, InputError, ServiceError
from metalayer.file_kinds import TEXT, refuse_others
from metalayer.files import only_one, publish_file, sha256
from metalayer.inference import Predictor
from metalayer.integrity import PAGE_CHECKSUMS, PARQUET_ERRORS, open_parquet, read_json, write_json
from metalayer.release import answer
from metalayer.release.contract import INDEX, SEQUENCE, Limits, RequestError, validate_columns
from metalayer.schema import BASE_SCORES, CLASSES, ROW_SCORES, ROWS
from metalayer.workflows.places import CONTIG, GENOMIC_POSITION, Places

if TYPE_CHECKING:
    from metalayer.client import MetaLayerClient

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH_ROWS = 8192
_IN_FLIGHT = 4
_NAMES = ("gene_id", "transcript_id", "gene_name", "chrom", "strand", "position", CONTIG, GENOMIC_POSITION)
"""Columns that name a row: handed on as they are."""


def score_rows(rows: Path, model: Path, output: Path, device: str = "cpu", places: Places | None = None) -> int:
    """Score rows.

    The output has the columns that name a row, with `places` contig and genomic_position, then donor, acceptor, neither
    (calibrated), and base_donor, base_acceptor, base_neither (as given).

    Args:
        rows: `.parquet`, or tab-separated text with a header: `sequence` (transcript sense), the seven row
            scores, and where the labelled base is: `index`, else `position` and `window_start` as in
            artifacts, else the middle of the sequence. Other columns do not matter.
        model: model directory, or the output folder of `metalayer train`.
        output: `.parquet` or `.tsv`; appears whole or not at all. How rows are answered is logged, and stands in
            the metadata of the Parquet's schema.
        device: of the network.
        places: where the genes of the rows lie; None where only the rows themselves say it.

    Returns:
        Number of rows.

    Raises:
        ArtifactError: a file or row that cannot be used, naming it (rows count from 0).
        InputError: an output of another kind.
    """
    _check_name(output, (".parquet", ".tsv"))
    predictor = Predictor.load(model, device)
    note = predictor.note(ROWS)
    logger.log(logging.WARNING if predictor.masks_rows else logging.INFO, "rows: %s", note)
    done = 0
    with publish_file(output) as draft, _writer(draft, output.suffix, note) as write:
        for batch in _read(rows):
            answers = _score(batch, predictor, rows, done, places)
            done += len(answers)
            write(answers)
        if not done:
            raise ArtifactError(f"{rows}: no rows")
        if places:
            places.check(str(rows))
    logger.info("scored %d rows into %s", done, output)
    return done


@contextlib.contextmanager
def _writer(path: Path, kind: str, note: str) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Writes batches to `path`, opened once, as `.tsv`, or as `.parquet` with the note."""
    with contextlib.ExitStack() as stack:
        if kind == ".tsv":
            handle = stack.enter_context(path.open("wb"))
            yield lambda answers: answers.write_csv(handle, separator="\t", include_header=handle.tell() == 0)
            return
        out: pq.ParquetWriter | None = None

        def write(answers: pl.DataFrame) -> None:
            nonlocal out
            table = _noted(answers, note)
            if out is None:
                out = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            out.write_table(table.cast(out.schema))

        yield write


def score_rows_by_server(rows: Path, client: MetaLayerClient, output: Path, places: Places | None = None) -> int:
    """As `score_rows`, by a server; a run that was cut off goes on where it was.

    Args:
        rows: `.parquet`, as in `score_rows`.
        client: of the server; tries again while that restarts, and is closed on KeyboardInterrupt.
        output: `.parquet`; appears whole or not at all. Answers are kept in `<output>.parts` until then.
        places: as in `score_rows`.

    Returns:
        Number of rows.

    Raises:
        ArtifactError: a file or row that cannot be used, naming it (rows count from 0).
        InputError: an output of another kind, or parts of another input or model.
        ServiceError: the server does not answer.
        MetalayerError: another run writes this output.
    """
    _check_name(output, (".parquet",))
    if rows.suffix != ".parquet":  # whose batches are the same each time
        raise InputError(f"{rows}: rows for a server are read from .parquet; convert it first")
    parts = output.with_name(output.name + ".parts")
    with only_one(parts / "lock", "write to another --output"):
        try:
            content = sha256(rows)
            content += f" {sha256(places.path)}" if places else ""
        except OSError as error:
            raise ArtifactError(f"{rows}: {error.strerror or error}") from None
        if any(parts.glob("*.parquet")):
            client.model()
            _check_run(parts / "run.json", rows, content, client.digest)
        done, files = 0, []
        for part, count in _in_flight(_part_by_part(rows, content, client, parts, places), client):
            files.append(part)
            done += count
        if not done:
            raise ArtifactError(f"{rows}: no rows")
        schema = _kept_answers(files[0]).schema
        logger.info("rows: %s", answer.note_of(schema.metadata, "the server says no more"))
        with publish_file(output) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as out:
            for part in files:
                out.write_table(_kept_answers(part).cast(out.schema))
        shutil.rmtree(parts)  # with the lock in it, while that is held: who comes next begins in a new folder
    logger.info("scored %d rows into %s", done, output)
    return done


def _part_by_part(
    rows: Path, content: str, client: MetaLayerClient, parts: Path, places: Places | None
) -> Iterator[Callable[[], tuple[Path, int]]]:
    """For each batch what makes its part, where that is not there, and gives its path and its number of rows."""
    first, checking = 0, threading.Lock()

    def score(batch: pl.DataFrame, part: Path, first: int) -> tuple[Path, int]:
        if not part.exists():
            answers = _noted(_named(batch, _ask(batch, client, rows, first), rows, places), client.note)
            with checking:
                _check_run(parts / "run.json", rows, content, client.digest)
            with publish_file(part) as draft:
                pq.write_table(answers, draft, compression="zstd", **PAGE_CHECKSUMS)
        return part, len(batch)

    for number, batch in enumerate(_read(rows)):
        yield functools.partial(score, batch, parts / f"{number:08d}.parquet", first)
        first += len(batch)


def _kept_answers(part: Path) -> pa.Table:
    advice = "remove it, and run again, which asks for its rows again"
    try:
        return open_parquet(part, advice).read()
    except PARQUET_ERRORS as error:
        raise ArtifactError(f"{part}: damaged within ({error}); {advice}") from None


def _in_flight(calls: Iterator[Callable[[], T]], client: MetaLayerClient) -> Iterator[T]:
    """What the calls give, in their order, at most `_IN_FLIGHT` at a time; none begins after one failed."""
    pool = ThreadPoolExecutor(_IN_FLIGHT, "score")
    running: deque[Future[T]] = deque()
    try:
        for call in calls:
            running.append(pool.submit(call))
            if len(running) == _IN_FLIGHT:
                yield _result(running.popleft())
        while running:
            yield _result(running.popleft())
    except (KeyboardInterrupt, GeneratorExit):
        client.close()  # else the end would wait for a server that is away
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _result(call: Future[T]) -> T:
    """What a call gives; by looks at it, because polars lets Ctrl-C interrupt no wait without an end."""
    while not call.done():
        wait([call], timeout=0.5)
    return call.result()


def _check_run(record: Path, rows: Path, content: str, digest: str) -> None:
    """All parts are of one input, by its content, and one model.

    Raises:
        InputError: they would not be.
    """
    run = {"rows": str(rows.resolve()), "sha256": content, "batch_rows": _BATCH_ROWS, "model": digest}
    if not record.exists():
        write_json(record, run)
    before = read_json(record, InputError, f"remove {record.parent} to begin again")
    other = [name for name in run if before.get(name) != run[name]]
    if other:
        raise InputError(
            f"{record.parent} holds answers of another run: {', '.join(other)} differ (before: "
            f"{', '.join(str(before.get(name)) for name in other)}). Remove it to begin again"
        )


def _ask(batch: pl.DataFrame, client: MetaLayerClient, path: Path, first: int) -> pl.DataFrame:
    columns = batch.select(SEQUENCE, *ROW_SCORES)
    if INDEX in batch.columns:
        columns = columns.with_columns(batch[INDEX])
    elif {"position", "window_start"} <= set(batch.columns):
        columns = columns.with_columns((batch["position"] - batch["window_start"]).alias(INDEX))
    try:
        answers = client.score(columns)
    except RequestError as error:
        if error.status in (401, 404):
            raise ServiceError(f"{error}; see METALAYER_API_KEY and --url") from None
        raise _bad_rows(path, error, first) from None
    return answers


def _check_name(output: Path, endings: tuple[str, ...]) -> None:
    if output.suffix not in endings:
        raise InputError(f"--output: given {output}; the name must end in {' or '.join(endings)}")


def _bad_rows(path: Path, error: RequestError, first: int) -> ArtifactError:
    """The mistakes of a batch, by their rows in the file."""
    told = [
        f"row {first + (d['row'] or 0)}: {d['field']} {d['given']!r}; allowed: {d['allowed']}"
        for d in error.details[:5]
    ]
    return ArtifactError(f"{path}: {error}\n" + "\n".join(told))


def _read(path: Path) -> Iterator[pl.DataFrame]:
    """Batches of the columns that matter."""
    try:
        if path.suffix == ".parquet":
            file = open_parquet(path, "copy or write it again")
            wanted = _wanted(path, file.schema_arrow.names)
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                yield pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            return
        needed = f"Parquet, or text with the columns {', '.join((SEQUENCE, *ROW_SCORES))}, tab separated"
        refuse_others(path, "rows", needed, TEXT, ArtifactError)
        names = pl.read_csv(path, separator="\t", n_rows=0, infer_schema=False).columns
        kinds: dict[str, pl.DataType] = dict.fromkeys(names, pl.String())
        kinds.update((name, pl.Float64()) for name in ROW_SCORES if name in kinds)
        kinds.update(
            (name, pl.Int64()) for name in (INDEX, "position", "window_start", GENOMIC_POSITION) if name in kinds
        )
        scan = pl.scan_csv(path, separator="\t", schema=kinds).select(_wanted(path, names))
        yield from scan.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (pl.exceptions.PolarsError, *PARQUET_ERRORS) as error:
        raise ArtifactError(f"{path}: {str(error).splitlines()[0]}") from None


def _wanted(path: Path, there: list[str]) -> list[str]:
    missing = [name for name in (SEQUENCE, *ROW_SCORES) if name not in there]
    if missing:
        raise ArtifactError(f"{path}: no column {', '.join(missing)}; needed are {', '.join((SEQUENCE, *ROW_SCORES))}")
    return [name for name in there if name in {*_NAMES, SEQUENCE, *ROW_SCORES, INDEX, "window_start"}]


def _score(batch: pl.DataFrame, predictor: Predictor, path: Path, first: int, places: Places | None) -> pl.DataFrame:
    columns = {name: batch[name].to_list() for name in (SEQUENCE, *ROW_SCORES)}
    if INDEX in batch.columns:
        columns[INDEX] = batch[INDEX].to_list()
    elif {"position", "window_start"} <= set(batch.columns):
        columns[INDEX] = (batch["position"] - batch["window_start"]).to_list()
    try:
        rows = validate_columns(columns, Limits(max_rows=_BATCH_ROWS))
    except RequestError as error:
        raise _bad_rows(path, error, first) from None
    windows = encode_windows(rows.sequences, rows.index, predictor.schema.window_bp)
    answers = predictor.predict_rows(rows.row_scores, windows)
    return _named(batch, pl.DataFrame(answers, schema=CLASSES), path, places)


def _noted(answers: pl.DataFrame, note: str) -> pa.Table:
    """A table whose metadata say how its rows were answered."""
    return answers.to_arrow().replace_schema_metadata(answer.facts(ROWS, note))


def _named(batch: pl.DataFrame, answers: pl.DataFrame, source: Path, places: Places | None) -> pl.DataFrame:
    """The columns that name a row, where there are any, then the answers, and the base's scores beside them."""
    found = places.of(batch, str(source)).get_columns() if places else []
    of_places = {column.name for column in found}
    named = [batch[name] for name in _NAMES if name in batch.columns and name not in of_places]
    base = [
        batch[given].cast(pl.Float32).alias(name) for given, name in zip(BASE_SCORES, answer.BASE_COLUMNS, strict=True)
    ]
    return pl.DataFrame([*named, *found, *answers.get_columns(), *base])
