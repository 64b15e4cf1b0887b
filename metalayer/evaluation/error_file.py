"""Every error of base and meta with its place, as a table: Parquet between steps, text for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from metalayer.evaluation.calls import KINDS, SiteCalls
from metalayer.evaluation.sample import Part
from metalayer.files import publish_file
from metalayer.schema import CLASSES, ERROR_COLUMNS

ERRORS, ERRORS_TEXT = "errors.parquet", "errors.tsv"
FIXED, MADE, LEFT = "fixed", "made", "left"
"""An error of the base alone, of meta alone, and of both."""
_NUMBERS = {"position": pa.int64(), "base": pa.float32(), "meta": pa.float32()}
_SCHEMA = pa.schema([(name, _NUMBERS.get(name, pa.string())) for name in ERROR_COLUMNS])
_WAITING = 50_000


@contextmanager
def error_file(path: Path) -> Iterator[Callable[[Part, SiteCalls], None]]:
    """Publish the errors of genes with places, each once: gives what `report.evaluate` takes as `watch`.

    Genes in the order of the evaluation, positions of each ascending. Columns: see `file_formats`.
    """
    with publish_file(path) as draft, pq.ParquetWriter(draft, _SCHEMA) as writer:
        waiting: list[dict[str, Any]] = []

        def add(part: Part, calls: SiteCalls) -> None:
            waiting.extend(_errors(part, calls))
            if len(waiting) > _WAITING:
                write()

        def write() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
            waiting.clear()

        yield add
        write()


def _errors(part: Part, calls: SiteCalls) -> list[dict[str, Any]]:
    gene = part.gene.gene
    if gene is None:
        return []
    found: list[dict[str, Any]] = []
    for kind in KINDS:
        name, error = kind
        base, meta = (calls.wrong(system, kind) for system in ("base", "meta"))
        wrong = np.flatnonzero(base | meta)
        for at, index in zip(wrong.tolist(), part.indices(wrong).tolist(), strict=True):
            position = gene.genomic(int(index))
            found.append(
                {
                    "outcome": LEFT if base[at] and meta[at] else FIXED if base[at] else MADE,
                    "error": error,
                    "class": name,
                    "gene_id": part.gene.gene_id,
                    "also_in": ",".join(part.also_in(position)) or None,
                    "chrom": part.gene.chrom,
                    "strand": gene.strand,
                    "position": position + 1,
                    "genome_build": part.gene.genome_build,
                    **{who: float(part.scores[who][at, CLASSES.index(name)]) for who in ("base", "meta")},
                }
            )
    return sorted(found, key=lambda row: int(row["position"]))


def write_text(errors: Path, output: Path) -> None:
    """The table as tab-separated text, for a spreadsheet; empty cells are what is not known."""
    with publish_file(output) as draft:
        pl.scan_parquet(errors).sink_csv(draft, separator="\t")
