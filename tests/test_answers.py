"""Answers kept with a version: whole, small, of the gene that was asked, and exact to a stated bound."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from metalayer.errors import ModelError
from metalayer.evaluation import answers
from metalayer.evaluation.answers import clipped, gene_key, read_answers, write_answers
from metalayer.evaluation.answers import test_set_digest as set_digest
from metalayer.evaluation.metrics import GeneScores, ap_name, average_precision, ranking
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

SYSTEMS = ("base", "meta", "champion")


def make_genes(n_genes: int = 8, length: int = 4000, mean: float = -14.0, seed: int = 0) -> list[GeneScores]:
    """Genes whose answers are mostly near 0, as those of a good model, and of whose sites a few are hardly seen."""
    rng = np.random.default_rng(seed)
    genes = []
    for number in range(n_genes):
        labels = np.full(length, NEITHER, dtype=np.uint8)
        at = rng.choice(length, 20, replace=False)
        labels[at[:10]], labels[at[10:]] = DONOR, ACCEPTOR
        scores = {}
        for name in SYSTEMS:
            logits = rng.normal(mean, 3.0, (length, 3))
            logits[:, NEITHER] = 0
            for c in (DONOR, ACCEPTOR):
                logits[labels == c, c] = rng.normal(0, 6, (labels == c).sum())
            odds = np.exp(logits)
            scores[name] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        genes.append(GeneScores(f"G{number}", "1", labels, scores, letters="acgt"))
    return genes


def kept(genes: list[GeneScores], folder: Path, system: str = "champion") -> answers.Answers:
    path = folder / "answers.parquet"
    write_answers(genes, path, system)
    return read_answers(path, sha256(path.read_bytes()).hexdigest())


def test_answers_come_back_as_given_and_what_is_below_the_floor_as_nothing(tmp_path: Path) -> None:
    genes = make_genes()
    found = kept(genes, tmp_path)
    assert found.floor == answers.FLOOR
    assert pq.read_metadata(tmp_path / "answers.parquet").num_row_groups == len(genes)
    for gene in genes:
        given, back = gene.scores["champion"], found.of(gene_key(gene))
        reaches = given[:, [DONOR, ACCEPTOR]].max(axis=1) >= found.floor
        assert 0.05 < reaches.mean() < 0.6
        assert np.array_equal(back[reaches][:, [DONOR, ACCEPTOR]], given[reaches][:, [DONOR, ACCEPTOR]])
        assert np.array_equal(np.unique(back[~reaches], axis=0), np.eye(3, dtype=np.float32)[[NEITHER]])
        assert np.abs(back.sum(axis=1) - 1).max() < 1e-6


def test_paired_average_precision_is_exact_to_the_bound(tmp_path: Path) -> None:
    genes = make_genes()
    found = kept(genes, tmp_path)
    both = [replace(gene, scores={**gene.scores, "champion": found.of(gene_key(gene))}) for gene in genes]
    brought = clipped(both, ["meta", "champion"], found.floor)

    def difference(of: list[GeneScores], target: str) -> float:
        labels = np.concatenate([gene.labels for gene in of])
        ours, theirs = (
            average_precision(*ranking(labels, np.concatenate([gene.scores[name] for gene in of]), target))
            for name in ("meta", "champion")
        )
        return ours - theirs

    for target in ("splice", "donor", "acceptor"):
        error = abs(difference(list(brought.genes), target) - difference(genes, target))
        assert error <= brought.bound[ap_name(target)]
        assert 0 < brought.bound[ap_name(target)] < 0.01


def test_a_model_that_is_never_sure_takes_no_more_than_the_stated_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ALWAYS_KEPT", 10_000)  # of 100,000 positions here instead of a million
    unsure = make_genes(n_genes=5, length=20_000, mean=-4.0)
    found = kept(unsure, tmp_path)
    assert found.floor > answers.FLOOR
    assert sum(len(position) for position, _ in found.genes.values()) <= 10_000
    assert (tmp_path / "answers.parquet").stat().st_size < 120_000 + 5 * 2_000


def test_another_gene_is_not_taken_for_the_one_that_was_asked() -> None:
    gene = make_genes(1)[0]
    labels = gene.labels.copy()
    labels[np.flatnonzero(labels == DONOR)[0]] = NEITHER
    others = [
        replace(gene, labels=labels),
        replace(gene, letters="acgg"),
        replace(gene, chrom="2"),
        replace(gene, genome_build="GRCh37"),
        replace(gene, scores={**gene.scores, "base": gene.scores["meta"]}),
    ]
    assert len({gene_key(one) for one in [gene, *others]}) == 6
    hg38, grch38 = (replace(gene, genome_build=build) for build in ("hg38", "GRCh38.p14"))
    assert gene_key(hg38) == gene_key(grch38)
    assert gene_key(replace(gene, scores={"base": gene.scores["base"]})) == gene_key(gene)

    # A test set is its genes and their labels, in any order and whatever scored them.
    genes = make_genes(3)
    rescored = [replace(one, scores={"base": one.scores["meta"]}) for one in reversed(genes)]
    assert set_digest(genes) == set_digest(rescored)
    assert set_digest(genes) != set_digest(genes[1:])
    assert set_digest([gene]) != set_digest([others[0]])


def test_damaged_answers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    write_answers(make_genes(2), path)
    expected = sha256(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="are not those that were registered"):
        read_answers(path, expected)
