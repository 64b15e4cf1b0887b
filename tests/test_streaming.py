"""Counts that are added up gene by gene, against a slow reading of all positions at once."""

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.metrics import average_precision_score
from test_metrics import brute_force

from metalayer.evaluation import counts as counts_module
from metalayer.evaluation import ranks as ranks_module
from metalayer.evaluation.calibration import FACTORS, Corrections, fit, fit_parts, mixed
from metalayer.evaluation.columns import Columns, Scratch
from metalayer.evaluation.counts import counted
from metalayer.evaluation.intervals import Resamples
from metalayer.evaluation.metrics import GeneScores, average_precision, ranking
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.scored_genes import Chained, MadeOf, ScoresOnDisk
from metalayer.genome import Gene
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER
from metalayer.settings.sections import EvaluateConfig

SYSTEMS = ("base", "meta")
K = (3, 50)
CONFIG = EvaluateConfig(n_bootstrap=100, top_k_values=K)


def random_genes(seed: int, decimals: int | None) -> list[GeneScores]:
    """Genes of two builds that overlap by chance, on both strands, some with other labels where they do."""
    rng = np.random.default_rng(seed)
    genes = []
    for build in ("GRCh37", "GRCh38"):
        for number in range(16):
            start, length = int(rng.integers(1, 1500)), int(rng.integers(30, 200))
            chrom, strand = str(rng.choice(["1", "2", "X"])), str(rng.choice(["+", "-"]))
            gene = Gene.from_table(f"G{number}", chrom, strand, start, start + length - 1)
            labels = rng.choice([DONOR, ACCEPTOR, NEITHER], length, p=[0.04, 0.04, 0.92]).astype(np.uint8)
            scores = {}
            for system, gain in zip(SYSTEMS, (2.0, 3.0), strict=True):
                logits = rng.normal(-4, 2, (length, 3))
                logits[:, NEITHER] = 0
                at = np.flatnonzero(labels != NEITHER)
                logits[at, labels[at]] += gain
                p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
                if decimals is not None:
                    p[:, :2] = np.floor(p[:, :2] * 10**decimals) / 10**decimals
                    p[:, 2] = 1 - p[:, 0] - p[:, 1]
                scores[system] = p.astype(np.float32)
            genes.append(GeneScores(f"G{number}", chrom, labels, scores, gene, int(rng.integers(-1, 2)), build))
    return genes


def slowly(genes: list[GeneScores]) -> list[GeneScores]:
    """What counts of each gene, by looking at every position of every gene."""
    said: dict[tuple[str | None, str, str, int], list[tuple[int, int, int, int]]] = {}
    for number, one in enumerate(genes):
        assert one.gene is not None
        for index, label in enumerate(one.labels.tolist()):
            place = (one.genome_build, one.chrom, one.gene.strand, one.gene.genomic(index))
            begins = (one.gene.interval.start, -one.gene.interval.end)
            said.setdefault(place, []).append((*begins, number, label))
    kept: dict[int, set[int]] = {number: set() for number in range(len(genes))}
    for (*_, position), there in said.items():
        if len({label for *_, label in there}) == 1:
            first = min(there)[2]
            gene = genes[first].gene
            assert gene is not None
            kept[first].add(int(gene.index(position)))
    out = []
    for number, one in enumerate(genes):
        at = np.array(sorted(kept[number]), dtype=int)
        scores = {name: values[at] for name, values in one.scores.items()}
        out.append(replace(one, labels=one.labels[at], scores=scores, gene=None))
    return out


def clusters(genes: list[GeneScores]) -> list[set[str]]:
    """Ids of genes that overlap, directly or through others, in either build."""
    found = [{gene.gene_id} for gene in genes]
    for one in genes:
        for other in genes:
            assert one.gene is not None
            assert other.gene is not None
            if one.genome_build == other.genome_build and one.gene.interval.overlaps(other.gene.interval):
                joined = [ids for ids in found if ids & {one.gene_id, other.gene_id}]
                found = [ids for ids in found if ids not in joined] + [set().union(*joined)]
    return [ids for number, ids in enumerate(found) if ids not in found[:number]]


@pytest.fixture(params=["whole", "in blocks, on disk"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "whole":
        monkeypatch.setattr(ranks_module, "_CELLS_A_BLOCK", 7 * 32)
        monkeypatch.setattr(ranks_module, "_WAITING", 40)
        monkeypatch.setattr(ranks_module, "_NUMBERS_AT_ONCE", 100)
        monkeypatch.setattr(counts_module, "_WAITING_SCORES", 0)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("decimals", [None, 2, 1])
@pytest.mark.parametrize("seed", range(3))
def test_a_report_equals_scikit_learn_on_all_positions(seed: int, decimals: int | None) -> None:
    genes = random_genes(seed, decimals)
    slow = slowly(genes)
    on_disk = Chained([ScoresOnDisk(genes[:5], SYSTEMS), ScoresOnDisk(genes[5:], SYSTEMS)])
    report = evaluate(on_disk, CONFIG)
    assert report["clusters"] == len(clusters(genes))
    assert report["positions"] == sum(len(one.labels) for one in slow) < sum(len(one.labels) for one in genes)
    assert report["overlaps"]["contradicted"] > 0
    labels = np.concatenate([one.labels for one in slow])
    for system in SYSTEMS:
        assert report[system] | brute_force(slow, system, K) == pytest.approx(report[system], abs=1e-9)
        p = np.concatenate([one.scores[system] for one in slow])
        assert np.array_equal(
            report["confusion"][system],
            [[((labels == true) & (p.argmax(axis=1) == said)).sum() for said in range(3)] for true in range(3)],
        )
        for target in ("donor", "acceptor"):
            positive, score = ranking(labels, p, target)
            curve = report["curves"][system][target]
            found = [(positive & (score >= one)).sum() for one in np.unique(score[positive])[::-1]]
            called = [(score >= one).sum() for one in np.unique(score[positive])[::-1]]
            assert curve["recall"] == pytest.approx(np.array(found) / positive.sum())
            assert curve["precision"] == pytest.approx(np.array(found) / np.array(called))
            # As many calls as sites, but for a tie.
            said = report["errors"][system][target]
            assert said["calls"] == (0 if said["threshold"] is None else (score >= said["threshold"]).sum())
            assert said["missed"] - said["false_calls"] == positive.sum() - said["calls"]
    for key, name in (("by_chromosome", "chrom"), ("by_paralog", "paralog")):
        for group, found in report[key].items():
            here = [one for one in slow if str(getattr(one, name)) == group]
            expected = brute_force(here, "meta", ())
            assert found["positions"] == sum(len(one.labels) for one in here)
            for metric in ("pr_auc_splice", "ap_donor", "ap_acceptor"):
                assert found["meta"][metric] == pytest.approx(expected[metric], abs=1e-9)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("decimals", [None, 1])
def test_a_resample_is_the_positions_of_its_clusters_repeated(decimals: int | None) -> None:
    genes = random_genes(7, decimals)
    slow = slowly(genes)
    sample, counts = counted(genes, SYSTEMS)
    resamples = Resamples.of(sample, CONFIG)
    weights = resamples.weights[1:9]
    found = counts["meta"].metric_values(weights, K)
    for b, row in enumerate(weights.astype(int)):
        repeated = [one for one, cluster in zip(slow, sample.clusters, strict=True) for _ in range(row[cluster])]
        expected = brute_force(repeated, "meta", K)
        assert {name: values[b] for name, values in found.items()} | expected == pytest.approx(
            {name: values[b] for name, values in found.items()}, abs=1e-9
        )


@pytest.mark.usefixtures("_blocks")
def test_the_errors_listed_are_those_of_a_sort_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from metalayer.evaluation import calls

    genes = random_genes(3, 2)
    everything = evaluate(genes, CONFIG)["errors"]
    monkeypatch.setattr(calls, "LISTED", 2)  # cut while genes are added
    few = evaluate(genes, CONFIG)["errors"]
    for key in ("fixed", "made"):
        assert few[key]["list"] == everything[key]["list"][:2]
        assert few[key]["total"] == everything[key]["total"] == len(everything[key]["list"]) > 2


def test_made_genes_are_read_again_as_they_were() -> None:
    genes = random_genes(1, None)
    made = MadeOf(genes, lambda _, gene: {"meta": lambda: gene.scores["base"]}, {2, 5})
    for _ in range(2):
        assert [gene.gene_id for gene in made] == [genes[2].gene_id, genes[5].gene_id]
        assert all(np.array_equal(a.scores["meta"], genes[i].scores["base"]) for a, i in zip(made, (2, 5), strict=True))
    assert len(made) == 2
    assert list(next(iter(made)).scores) == ["meta"]


def test_columns_come_back_as_written_and_replaced() -> None:
    columns = Columns({"p": (np.float32, (3,)), "n": (np.uint8, ())})
    rng = np.random.default_rng(0)
    parts = [rng.random((n, 3)).astype(np.float32) for n in (4, 0, 7)]
    for number, part in enumerate(parts):
        columns.append(p=part[::-1], n=np.full(len(part), number))
    columns.replace("p", 2, parts[2] * 2)
    assert len(columns) == 3
    assert np.array_equal(columns.read("p", 0), parts[0][::-1])
    assert columns.read("p", 1).shape == (0, 3)
    assert np.array_equal(columns.read("p", 2), parts[2] * 2)
    assert columns.read("n", 2).tolist() == [2] * 7


def test_what_was_never_written_is_not_read_as_something() -> None:
    scratch = Scratch()
    scratch.write(0, np.arange(3))
    with pytest.raises(OSError, match="shorter than what was written"):
        scratch.read(0, np.empty(4, np.int64))


def test_a_full_disk_names_the_folder_of_scratch_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b"))
    with pytest.raises(OSError, match="No space left on device, of the scratch files; TMPDIR names another") as caught:
        ScoresOnDisk(random_genes(0, None), SYSTEMS)
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_a_calibration_fitted_part_by_part_is_the_optimum_of_all(seed: int) -> None:
    genes = [one for one in random_genes(seed, None) if len(one.labels)]
    p, labels = np.concatenate([g.scores["meta"] for g in genes]), np.concatenate([g.labels for g in genes])

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray, None]]:
        return ((gene.scores["meta"], gene.labels, None) for gene in genes)

    found, whole = fit_parts(parts), fit(p, labels)
    assert found.scale == pytest.approx(whole.scale, abs=1e-6)
    assert found.bias == pytest.approx(whole.bias, abs=1e-6)

    def loss(x: np.ndarray) -> float:
        logits = x[0] * np.log(p.astype(np.float64)) + np.array([x[1], x[2], 0.0])
        prior = ((x - [1, 0, 0]) / [0.15, 0.3, 0.3]) ** 2
        return float((logsumexp(logits, axis=1) - logits[np.arange(len(p)), labels]).sum() + prior.sum() / 2)

    best = minimize(loss, [1.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
    assert [found.scale, *found.bias[:2]] == pytest.approx(best.x, abs=1e-3)


def test_gains_of_corrections_are_those_of_mixed() -> None:
    genes = random_genes(5, None)
    log_base, log_p = (np.log(genes[0].scores[system].astype(np.float64)) for system in SYSTEMS)
    corrections = Corrections()
    corrections.add(log_base, log_p, genes[0].labels)
    at, truth = np.arange(len(log_p)), genes[0].labels.astype(int)
    for site_class in (DONOR, ACCEPTOR):
        which = np.eye(2)[site_class]
        expected = [(mixed(log_base, log_p, f * which) - log_base)[at, truth].sum() for f in FACTORS]
        assert corrections._gains[0][site_class] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_figures_of_a_validation_are_those_of_all_its_answers(decimals: int | None) -> None:
    import torch

    from metalayer.training.validation import Validation

    rng = np.random.default_rng(0)
    genes = random_genes(2, decimals)
    validation, seen = Validation(), []
    for gene in genes:
        log_p = torch.from_numpy(np.log(np.maximum(gene.scores["meta"], 1e-12)))
        weights = torch.from_numpy(rng.uniform(0.1, 5, len(log_p)).astype(np.float32))
        labels = torch.from_numpy(gene.labels.astype(np.int64))
        losses = -log_p[torch.arange(len(log_p)), labels]
        validation.add(log_p, labels, losses, weights)
        seen.append((log_p, labels, losses, weights))
    log_p, labels, losses, weights = (torch.cat(parts).double().numpy() for parts in zip(*seen, strict=True))
    found, p = validation.figures(), np.exp(log_p)
    splice = p[:, 0].astype(np.float32).astype(float) + p[:, 1].astype(np.float32)
    expected = {
        "val_loss": np.average(losses, weights=weights),
        "val_pr_auc_splice": average_precision_score(labels != NEITHER, splice, sample_weight=weights),
    }
    for c in (DONOR, ACCEPTOR):
        name = f"val_ap_{CLASSES[c]}"
        expected[name] = average_precision_score(labels == c, p[:, c], sample_weight=weights)
        assert found[name] == pytest.approx(average_precision(labels == c, p[:, c], weights), abs=1e-12)
    expected["val_ap_splice"] = (expected["val_ap_donor"] + expected["val_ap_acceptor"]) / 2
    assert found == pytest.approx(expected, abs=1e-9)


def long_gene(number: int) -> GeneScores:
    """A gene of many positions and few sites."""
    rng = np.random.default_rng(number)
    labels = np.full(20_000, NEITHER, dtype=np.uint8)
    labels[rng.choice(len(labels), 6, replace=False)] = [DONOR] * 3 + [ACCEPTOR] * 3
    scores = {}
    for system in SYSTEMS:
        p = rng.dirichlet([0.05, 0.05, 5.0], len(labels))
        at = np.flatnonzero(labels != NEITHER)
        p[at] = 0.1
        p[at, labels[at]] = 0.8
        scores[system] = p.astype(np.float32)
    return GeneScores(f"G{number:03}", "1", labels, scores)


def evaluated(n_genes: int) -> None:
    evaluate(ScoresOnDisk(map(long_gene, range(n_genes)), SYSTEMS), CONFIG)


def calibrated(n_genes: int) -> None:
    columns = Columns({"p": (np.float32, (3,)), "labels": (np.uint8, ())})
    for gene in map(long_gene, range(n_genes)):
        columns.append(p=gene.scores["meta"], labels=gene.labels)
    fit_parts(lambda: ((columns.read("p", i), columns.read("labels", i), None) for i in range(n_genes)))


def validated(n_genes: int) -> None:
    import torch

    from metalayer.training.validation import Validation

    validation = Validation()
    for gene in map(long_gene, range(n_genes)):
        log_p = torch.from_numpy(np.log(np.maximum(gene.scores["meta"], 1e-12)))
        validation.add(log_p, torch.from_numpy(gene.labels.astype(np.int64)), log_p[:, 2], torch.ones(len(log_p)))
    validation.figures()


@pytest.mark.parametrize("run", [evaluated, calibrated, validated])
def test_memory_does_not_grow_with_positions(run: Callable[[int], None]) -> None:
    peaks = []
    for n_genes in (6, 6, 18):  # twice: the first time, modules are loaded too
        tracemalloc.start()
        run(n_genes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 2 * 12 * 20_000  # 2 bytes a position; held whole, they are 138, 342 and 185
