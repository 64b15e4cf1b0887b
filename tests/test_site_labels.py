"""A base that is a donor and an acceptor is a donor, whatever it was read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer.base.introns import AnnotatedGene
from metalayer.base.simulator import _Draft, _labels
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.genome import Gene, intron_base
from metalayer.schema import ACCEPTOR, BASE_SCORES, DONOR, NEITHER
from metalayer.site_labels import labels_of_sites, row_classes

LENGTH, AT = 200, 100
EXONS = [(0, 50), (AT, AT + 1), (150, LENGTH)]
"""Transcript sense; that in the middle has one base."""


def expected(strand: str = "+") -> list[int]:
    labels = np.full(LENGTH, NEITHER)
    labels[[49, AT]], labels[150] = DONOR, ACCEPTOR
    if strand == "-":  # the same exons of the plus strand, read the other way
        labels = np.full(LENGTH, NEITHER)
        labels[[49, LENGTH - 1 - AT]], labels[150] = DONOR, ACCEPTOR
    return labels.tolist()


def test_of_sites() -> None:
    assert labels_of_sites(LENGTH, [49, AT], [AT, 150]).tolist() == expected()
    assert labels_of_sites(3, [], []).tolist() == [NEITHER] * 3
    both = np.array([DONOR, NEITHER, ACCEPTOR, NEITHER], dtype=np.uint8)  # around an intron of one base
    assert row_classes(both).tolist() == [NEITHER, DONOR, NEITHER, NEITHER]
    assert (
        row_classes(np.array([ACCEPTOR, NEITHER, DONOR], dtype=np.uint8)).tolist() == [NEITHER] * 3
    )  # beyond the gene


@pytest.mark.parametrize("strand", ["+", "-"])
def test_of_an_annotation(strand: str) -> None:
    gene = AnnotatedGene(Gene.from_table("G", "1", strand, 1001, 1000 + LENGTH))
    gene.exons["T"] = [(1000 + start, 1000 + end) for start, end in EXONS]
    assert gene.labels().tolist() == expected(strand)


@pytest.mark.parametrize("first", [DONOR, ACCEPTOR])
def test_of_artifact_rows_in_either_order(tmp_path: Path, first: int) -> None:
    frame = pl.DataFrame(
        {
            "gene_id": "G",
            "chrom": "1",
            "strand": "+",
            "position": np.arange(1001, 1001 + LENGTH),
            "base": "A",
            **dict(zip(BASE_SCORES, (0.0, 0.0, 1.0), strict=True)),
        }
    )
    frame.write_parquet(tmp_path / "scores.parquet")
    sites = [(49, DONOR), *((AT, kind) for kind in (first, 1 - first)), (150, ACCEPTOR)]
    rows = pl.DataFrame(
        [("G", int(intron_base(at, kind)), ("donor", "acceptor")[kind]) for at, kind in sites],
        schema=["gene_id", "position", "splice_type"],
        orient="row",
    )
    write_tracks([tmp_path / "scores.parquet"], tmp_path / "tracks.parquet", {}, lambda: rows)
    assert TrackStore(tmp_path / "tracks.parquet").read("G").labels.tolist() == expected()


def test_of_the_simulator() -> None:
    assert _labels(_Draft(np.zeros(LENGTH, np.uint8), EXONS, [])).tolist() == expected()
