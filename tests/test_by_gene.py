"""Errors by gene, the gene that is drawn, sites at the base's precision, and the table of all errors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scored_genes import make_genes

from metalayer.evaluation.by_gene import DRAWN_FROM
from metalayer.evaluation.error_file import error_file, write_text
from metalayer.evaluation.gene_drawing import BASELINES, LEFT, TRACK, WIDTH, exons_of, pieces_of
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.genome import Gene
from metalayer.schema import CLASSES, ERROR_COLUMNS, NEITHER
from metalayer.settings.sections import EvaluateConfig

QUICK = EvaluateConfig(n_bootstrap=100, top_k_values=(3,))


def placed(genes: list[GeneScores], step: int = 1000) -> list[GeneScores]:
    """Genes on one strand of a chromosome each, of which one begins `step` after the other."""
    out = []
    for i, gene in enumerate(genes):
        place = Gene.from_table(gene.gene_id, "1", "+", step * i + 1, step * i + len(gene.labels))
        out.append(GeneScores(gene.gene_id, "1", gene.labels, gene.scores, place))
    return out


@pytest.fixture(scope="module")
def genes() -> list[GeneScores]:
    """Meta is better in most genes and worse in four; the last two overlap, and agree."""
    made = make_genes(seed=3, gain=0.4)
    for gene in made[:4]:
        gene.scores["base"], gene.scores["meta"] = gene.scores["meta"], gene.scores["base"]
    out = placed(made)
    last = out[-1]
    assert last.gene is not None
    end = last.gene.interval.end
    scores = {name: values[-100:] for name, values in last.scores.items()}
    inside = Gene.from_table("IN", "1", "+", end - 99, end)
    return [*out, GeneScores("IN", "1", last.labels[-100:], scores, inside)]


@pytest.fixture(scope="module")
def made(genes: list[GeneScores], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], pl.DataFrame]:
    """The report, and the table of errors."""
    folder = tmp_path_factory.mktemp("errors")
    with error_file(folder / "errors.parquet") as watch:
        report = evaluate(genes, QUICK, watch=watch)
    write_text(folder / "errors.parquet", folder / "errors.tsv")
    return report, pl.read_csv(folder / "errors.tsv", separator="\t")


def test_the_genes_add_up_to_the_whole(made: tuple[dict[str, Any], pl.DataFrame]) -> None:
    report, _ = made
    found, errors = report["by_gene"], report["errors"]
    assert (found["genes"], found["counted_elsewhere"]) == (12, 1)  # IN lies within another gene
    assert found["gained"] + found["lost"] + found["same"] == sum(n for _, n in found["changes"]) == 12
    assert found["gained"] > found["lost"] > 0
    kinds = [(name, kind) for name in ("donor", "acceptor") for kind in ("missed", "false_calls")]
    total = {who: sum(errors[who][name][kind] for name, kind in kinds) for who in ("base", "meta")}
    assert sum(change * n for change, n in found["changes"]) == total["meta"] - total["base"]
    listed = [*found["most_gained"], *found["most_lost"]]
    assert len(listed) == found["gained"] + found["lost"]
    assert sum(one["fixed"] for one in listed) <= errors["fixed"]["total"]
    for one in listed:
        assert one["meta"] - one["base"] == one["made"] - one["fixed"]
    changes = [one["meta"] - one["base"] for one in found["most_gained"]]
    assert changes == sorted(changes) and changes[-1] < 0
    assert all(one["meta"] > one["base"] for one in found["most_lost"])


def test_rows_have_errors_by_gene_and_no_drawing() -> None:
    report = evaluate(make_genes(n_genes=3), QUICK, unit="rows")
    assert report["drawn_gene"] is None
    assert "start" not in report["by_gene"]["most_gained"][0]


def test_every_error_is_in_the_table_once(
    made: tuple[dict[str, Any], pl.DataFrame], genes: list[GeneScores], tmp_path: Path
) -> None:
    report, table = made
    assert tuple(table.columns) == ERROR_COLUMNS
    place = ["class", "error", "chrom", "strand", "position"]
    assert len(table) == len(table.unique(place))
    counts = dict(table.group_by("outcome").len().iter_rows())
    assert (counts["fixed"], counts["made"]) == (report["errors"]["fixed"]["total"], report["errors"]["made"]["total"])
    for who, outcome in (("base", "fixed"), ("meta", "made")):
        wrong = sum(
            report["errors"][who][name][kind] for name in ("donor", "acceptor") for kind in ("missed", "false_calls")
        )
        assert counts[outcome] + counts["left"] == wrong
    shared = table.filter(pl.col("also_in") == "IN")
    last = genes[-1].gene
    assert last is not None
    inside = pl.col("position").is_between(last.interval.start + 1, last.interval.end)
    assert shared["position"].to_list() == table.filter(inside)["position"].to_list() != []
    listed = {
        (one["class"], one["error"], one["position"]): one
        for key in ("fixed", "made")
        for one in report["errors"][key]["list"]
    }
    assert len(listed) == counts["fixed"] + counts["made"]
    for row in table.filter(pl.col("outcome") != "left").iter_rows(named=True):
        one = listed[row["class"], row["error"], row["position"]]
        assert (one["gene_id"], ",".join(one.get("also_in", [])) or None) == (row["gene_id"], row["also_in"])
        assert [row[who] for who in ("base", "meta")] == [pytest.approx(one[who], rel=1e-6) for who in ("base", "meta")]
    with pytest.raises(RuntimeError), error_file(tmp_path / "none.parquet"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_sites_at_the_precision_of_the_base(made: tuple[dict[str, Any], pl.DataFrame], genes: list[GeneScores]) -> None:
    report, _ = made
    genes = genes[:-1]  # all positions of the last count as another's
    labels = np.concatenate([gene.labels for gene in genes])
    for name in ("donor", "acceptor"):
        found, errors = report["same_precision"][name], report["errors"]["base"][name]
        hits = report["sites"][name] - errors["missed"]
        assert found["precision"] == hits / errors["calls"]
        for who in ("base", "meta"):
            score = np.concatenate([gene.scores[who][:, CLASSES.index(name)] for gene in genes])
            at = [score >= threshold for threshold in np.unique(score[labels == CLASSES.index(name)])]
            right = [(int((called & (labels == CLASSES.index(name))).sum()), int(called.sum())) for called in at]
            assert found[who] == max(n for n, called in right if n * errors["calls"] >= called * hits)
        assert found["base"] >= hits
    flat = [
        GeneScores(g.gene_id, g.chrom, g.labels, g.scores | {"base": np.full_like(g.scores["base"], 1 / 3)})
        for g in genes
    ]
    assert evaluate(flat, QUICK)["same_precision"] == {"donor": None, "acceptor": None}


def test_the_gene_that_is_drawn_differs_in_most_calls(
    made: tuple[dict[str, Any], pl.DataFrame], genes: list[GeneScores], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, table = made
    drawn = report["drawn_gene"]
    changed = table.filter(pl.col("outcome") != "left").group_by("gene_id").len()
    by_gene = dict(changed.iter_rows())
    assert drawn["differing_calls"] == by_gene[drawn["gene_id"]] == max(by_gene.values())
    gene = next(one for one in genes if one.gene_id == drawn["gene_id"])
    assert gene.gene is not None
    sites = [place for place in drawn["places"] if place["site"]]
    assert len(sites) == int((gene.labels != NEITHER).sum())
    for place in drawn["places"]:
        index = gene.gene.index(place["position"] - 1)
        for who in ("base", "meta"):
            assert place[who]["probability"] == gene.scores[who][index, CLASSES.index(place["class"])]
        high = max(place[who]["probability"] for who in ("base", "meta"))
        assert place["site"] or high >= DRAWN_FROM or any(place[who]["called"] for who in ("base", "meta"))
    # With one site a gene too many all around, it is the one with fewest sites.
    from metalayer.evaluation import by_gene as module

    monkeypatch.setattr(module, "DRAWN_SITES", 1)
    smallest = evaluate(genes, QUICK)["drawn_gene"]
    assert smallest["gene_id"] == "IN" or sum(place["site"] for place in smallest["places"]) == 16


def drawing(strand: str) -> dict[str, Any]:
    """Three exons with an alternative donor and an alternative acceptor, in transcript sense 1-20, 51-80, 91-100."""
    gene = Gene.from_table("G", "1", strand, 1001, 1100)
    sites = {15: "donor", 19: "donor", 50: "acceptor", 60: "acceptor", 79: "donor", 90: "acceptor"}
    places = [
        {
            "position": gene.genomic(at) + 1,
            "class": kind,
            "site": True,
            "counts": True,
            "base": {"probability": 0.5, "called": at != 15},
            "meta": {"probability": 1.0, "called": True},
        }
        for at, kind in sites.items()
    ]
    false = {"site": False, "base": {"probability": 0.9, "called": True}, "meta": {"probability": 0.0, "called": False}}
    places.append(places[0] | {"position": gene.genomic(35) + 1} | false)
    places.sort(key=lambda place: place["position"])
    return {"gene_id": "G", "chrom": "1", "strand": strand, "start": 1001, "end": 1100, "places": places}


@pytest.mark.parametrize(
    ("strand", "exons"),
    [("+", [(1001, 1020), (1051, 1080), (1091, 1100)]), ("-", [(1001, 1010), (1021, 1050), (1081, 1100)])],
)
def test_exons_and_marks_of_a_drawing(strand: str, exons: list[tuple[int, int]]) -> None:
    gene = drawing(strand)
    assert exons_of(gene) == exons
    pieces = pieces_of(gene)
    assert (pieces[0].first, pieces[-1].last) == (1001, 1100)
    for one, after in itertools.pairwise(pieces):
        assert one.last == after.first
    for who, wrong in (
        ("base", {"right": 5, "missed": 1, "false": 1}),
        ("meta", {"right": 6, "missed": 0, "false": 0}),
    ):
        assert {kind: sum(piece.number(who, kind) for piece in pieces) for kind in wrong} == wrong
    marks = [mark for piece in pieces for mark in piece.marks]
    assert all(LEFT <= mark.x <= WIDTH for mark in marks)
    assert {mark.y for mark in marks if mark.system == "meta" and mark.kind == "right"} == {BASELINES["meta"] - TRACK}
    assert sum(len(piece.sites) for piece in pieces) == 6


def test_a_gene_that_begins_within_an_intron_has_no_exon_there() -> None:
    gene = drawing("+")
    gene["places"] = [place for place in gene["places"] if place["position"] > 1040]
    assert exons_of(gene) == [(1051, 1080), (1091, 1100)]
