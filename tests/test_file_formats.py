"""docs/formats.md and docs/settings.md are made from schema and types, and say something of each column and setting."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from metalayer import settings_page
from metalayer.evaluation.detection import FIGURES
from metalayer.file_formats import file_formats, page
from metalayer.formats.sources import SHEET_COLUMNS
from metalayer.formats.tables import KNOWN
from metalayer.schema import ARTIFACT_COLUMNS, GENE_COLUMNS, SCORED_COLUMNS, TRACK_COLUMNS
from metalayer.variants.answers import CALIBRATED_COLUMNS
from metalayer.variants.answers import COLUMNS as VARIANT_COLUMNS
from metalayer.variants.labelled import JUDGED_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
OF = {one.title: one.columns for one in file_formats()}


def test_the_page_is_made_from_the_schema() -> None:
    assert (ROOT / "docs/formats.md").read_text("utf-8") == page(), "python -m metalayer.file_formats > docs/formats.md"


def test_the_page_of_settings_is_made_from_their_types() -> None:
    made = settings_page.page()
    assert (ROOT / "docs/settings.md").read_text("utf-8") == made, (
        "python -m metalayer.settings_page > docs/settings.md"
    )
    assert "| `max_epochs` | whole number from 1 to 100,000 | `100` |" in made
    assert "| `by` | `chromosome`, `gene` | `chromosome` |" in made
    assert "| `fasta` | path | needed |" in made


def test_every_column_is_described() -> None:
    assert tuple(OF["Artifact rows"]) == ARTIFACT_COLUMNS
    assert tuple(OF["Per-nucleotide scores"])[: len(TRACK_COLUMNS)] == TRACK_COLUMNS
    assert tuple(OF["Gene table"])[: len(GENE_COLUMNS)] == GENE_COLUMNS
    assert tuple(OF["Scored genes"]) == SCORED_COLUMNS
    assert tuple(OF["Sheet"]) == SHEET_COLUMNS
    assert tuple(OF["Table of scores"]) == tuple(KNOWN)
    assert tuple(OF["Table of variants"]) == (*VARIANT_COLUMNS, *CALIBRATED_COLUMNS)
    assert tuple(OF["Judged variants"]) == tuple(JUDGED_COLUMNS)
    assert tuple(OF["Detection"]) == FIGURES


def test_what_is_written_has_the_columns_of_the_page(simulation: Path) -> None:
    scores = pl.read_parquet(next(simulation.glob("nucleotide_scores/*.parquet")))
    assert set(scores.columns) <= set(OF["Per-nucleotide scores"])
    genes = pl.read_csv(simulation / "genes.tsv", separator="\t")
    assert set(genes.columns) <= set(OF["Gene table"])
    rows = pl.read_csv(next(simulation.glob("data/*/*/*/meta_models/*.tsv")), separator="\t", n_rows=1)
    assert tuple(rows.columns) == tuple(OF["Artifact rows"])
