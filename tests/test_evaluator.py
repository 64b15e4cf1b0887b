"""Metrics of rows against scikit-learn, plain sorting and the report's; the evaluator against both."""

import json
import warnings

import numpy as np
import polars as pl
import pytest
import torch
from scored_genes import make_genes
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)
from test_metrics import expected_ece, precision_at_recall, top_k

from metalayer.data.dataset import RowLoader
from metalayer.data.row_table import RowTable
from metalayer.errors import ConfigError, EvaluationError
from metalayer.evaluation import row_metrics as module
from metalayer.evaluation.metrics import average_precision
from metalayer.evaluation.ranks import FALSE_CALLS
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.row_metrics import row_metrics
from metalayer.features import feature_matrix
from metalayer.models import MetaSpliceModel
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER
from metalayer.settings.sections import EvaluateConfig
from metalayer.training.evaluator import MetaLayerEvaluator

KS = (1, 3, 50)


def random_rows(n, seed, decimals=None, dtype=np.float32, sites=0.3):
    """Labels with a donor and an acceptor, and probabilities that know of them; rounded ones tie."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(n) < sites, rng.integers(0, 2, n), NEITHER).astype(np.uint8)
    labels[rng.choice(n, 2, replace=False)] = DONOR, ACCEPTOR
    p = rng.dirichlet([0.4, 0.4, 0.8], n)
    p[np.arange(n), labels] += rng.random(n)
    p /= p.sum(axis=1, keepdims=True)
    if decimals is not None:
        p = np.round(p, decimals)
    return labels, p.astype(dtype)


def by_scikit_learn(labels, p, ks=KS):
    """The ranking and calibration metrics, and those at argmax."""
    out = {}
    p = p.astype(np.float32)  # what counts, however it is stored
    sides = {
        "splice": (labels != NEITHER, p[:, DONOR].astype(np.float64) + p[:, ACCEPTOR]),
        "donor": (labels == DONOR, p[:, DONOR]),
        "acceptor": (labels == ACCEPTOR, p[:, ACCEPTOR]),
    }
    for name, (true, score) in sides.items():
        out["pr_auc_splice" if name == "splice" else f"ap_{name}"] = average_precision_score(true, score)
        out[f"roc_auc_{name}"] = None if true.all() else roc_auc_score(true, score)
        for percent in (90, 95):
            out[f"precision_at_recall{percent}_{name}"] = precision_at_recall(true, score, percent)
        if name != "splice":
            out[f"topk_{name}"] = top_k(true, score, true.sum())
            out |= {f"top{k}_acc_{name}": top_k(true, score, k) for k in ks}
    out["ap_splice"] = (out["ap_donor"] + out["ap_acceptor"]) / 2
    out["ece"] = expected_ece(*sides["splice"])
    losses = -np.log(np.maximum(p[np.arange(len(p)), labels].astype(np.float64), 1e-10))
    out |= {"log_loss": losses.mean(), "log_loss_per_site": losses.sum() / (labels != NEITHER).sum()}
    called = p.argmax(axis=1)
    out["accuracy"] = accuracy_score(labels, called)
    out["confusion"] = confusion_matrix(labels, called, labels=[0, 1, 2]).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columns = precision_recall_fscore_support(labels, called, labels=[0, 1, 2], zero_division=np.nan)
    out["per_class"] = {
        name: {
            metric: None if np.isnan(column[c]) else column[c]
            for metric, column in zip(("precision", "recall", "f1", "support"), columns, strict=True)
        }
        for c, name in enumerate(CLASSES)
    }
    return out | {"rows": len(labels), "per_chromosome": {}}


def agree(found, expected):
    """Equal keys and, to 1e-9, equal numbers; None where and only where expected."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            agree(found[name], value)
        elif value is None or isinstance(value, list):
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
@pytest.mark.parametrize("n", [2, 3, 7, 60, 3000])
def test_equal_to_scikit_learn_on_ties_too(n, decimals, dtype, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ROWS", 1000)
    for seed in range(6):
        labels, p = random_rows(n, seed, decimals, dtype)
        agree(row_metrics(labels.astype(np.int64), p, None, KS), by_scikit_learn(labels, p))


@pytest.mark.parametrize("sites", [0.001, 1.0])
def test_equal_to_scikit_learn_with_few_sites_and_with_nothing_else(sites):
    labels, p = random_rows(4000, 3, 2, sites=sites)
    found = row_metrics(labels, p, None, KS)
    agree(found, by_scikit_learn(labels, p))
    assert (found["roc_auc_splice"] is None) == (sites == 1.0)


def test_equal_to_scikit_learn_where_all_rows_tie():
    labels, _ = random_rows(500, 0)
    p = np.full((500, 3), 0.25, dtype=np.float32)
    found = row_metrics(labels, p, None, KS)
    agree(found, by_scikit_learn(labels, p))
    assert found["roc_auc_donor"] == 0.5
    assert found["top3_acc_donor"] == pytest.approx((labels == DONOR).mean())
    assert found["per_class"]["acceptor"]["precision"] is None  # never called


def test_by_hand():
    labels = np.array([DONOR, NEITHER, DONOR, ACCEPTOR], dtype=np.uint8)
    p = np.array([[0.9, 0.0, 0.1], [0.5, 0.1, 0.4], [0.5, 0.1, 0.4], [0.0, 1.0, 0.0]], dtype=np.float32)
    found = row_metrics(labels, p, None, (1, 2, 100))
    assert found["ap_donor"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["roc_auc_donor"] == pytest.approx((2 + 1.5) / 4)
    assert found["top1_acc_donor"] == 1.0
    assert found["top2_acc_donor"] == found["topk_donor"] == pytest.approx(1.5 / 2)  # of the tie at 0.5, half
    assert found["top100_acc_donor"] == pytest.approx(2 / 4)  # min(k, n)
    assert found["confusion"] == [[2, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert found["accuracy"] == 0.75


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_same_numbers_as_the_report(decimals):
    genes = make_genes(decimals=decimals)
    labels, p = (np.concatenate(part) for part in zip(*((g.labels, g.scores["meta"]) for g in genes), strict=True))
    chroms = np.repeat([g.chrom for g in genes], [len(g.labels) for g in genes])
    report = evaluate(genes, EvaluateConfig(n_bootstrap=100, top_k_values=KS))
    found = row_metrics(labels, p, chroms, KS)
    both = {name: value for name, value in report["meta"].items() if not name.startswith(FALSE_CALLS)}
    assert {name: found[name] for name in both} == pytest.approx(both, abs=1e-12)
    assert not any(name.startswith(FALSE_CALLS) for name in found)  # of rows, a sample
    assert found["confusion"] == report["confusion"]["meta"]
    for chrom, entry in report["by_chromosome"].items():
        here = found["per_chromosome"][chrom]
        assert (here["rows"], here["sites"]) == (entry["positions"], entry["sites"])
        assert {name: here[name] for name in entry["meta"]} == pytest.approx(entry["meta"], abs=1e-12)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("dtype", [np.str_, np.object_])
def test_per_chromosome_is_none_where_sites_lack(mixed, dtype):
    rng = np.random.default_rng(0)
    labels, p = random_rows(1200, 5, 2)
    chroms = np.repeat(["2", "10", "X", "MT"], 300)
    labels[(chroms == "X") & (labels == ACCEPTOR)] = NEITHER
    labels[chroms == "MT"] = NEITHER
    order = rng.permutation(1200) if mixed else np.arange(1200)
    found = row_metrics(labels[order], p[order], chroms[order].astype(dtype), KS)["per_chromosome"]
    assert set(found) == {"2", "10", "X", "MT"}
    for chrom, entry in found.items():
        at = chroms == chrom
        assert entry["rows"] == 300
        assert entry["sites"] == {"donor": (labels[at] == DONOR).sum(), "acceptor": (labels[at] == ACCEPTOR).sum()}
        for name, true, score in (
            ("pr_auc_splice", labels[at] != NEITHER, p[at, DONOR].astype(np.float64) + p[at, ACCEPTOR]),
            ("ap_donor", labels[at] == DONOR, p[at, DONOR]),
            ("ap_acceptor", labels[at] == ACCEPTOR, p[at, ACCEPTOR]),
        ):
            if true.any():
                assert entry[name] == pytest.approx(average_precision_score(true, score), abs=1e-9)
            else:
                assert entry[name] is None
    assert found["X"]["ap_acceptor"] is None is found["MT"]["pr_auc_splice"]
    assert found["X"]["ap_donor"] is not None


def test_the_result_is_json():
    labels, p = random_rows(300, 1)
    found = row_metrics(labels, p, np.repeat(["1", "2"], 150), KS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("site_class", [DONOR, ACCEPTOR])
def test_no_donor_or_no_acceptor_is_an_error(site_class):
    labels, p = random_rows(50, 0)
    labels[labels == site_class] = NEITHER
    with pytest.raises(EvaluationError, match=f"no {CLASSES[site_class]} among the 50 rows"):
        row_metrics(labels, p)


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, np.inf])
def test_what_is_no_probability_is_an_error(value):
    labels, p = random_rows(50, 0)
    p[[3, 3, 9], [0, 1, 2]] = value
    with pytest.raises(EvaluationError, match="2 of 50 rows"):
        row_metrics(labels, p)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels, p, c: (labels[:-1], p, c), "probabilities of shape"),
        (lambda labels, p, c: (labels, p[:, :2], c), "probabilities of shape"),
        (lambda labels, p, c: (labels, p, c[1:]), "chroms of shape"),
        (lambda labels, p, c: (labels + 1, p, c), "the classes are 0 donor"),
        (lambda labels, p, c: (labels.astype(float), p, c), "labels of type float64"),
        (lambda labels, p, c: (labels, p, np.where(c == "1", None, c)), "chromosome None"),
        (lambda labels, p, c: (labels[:0], p[:0], c[:0]), "no donor among the 0 rows"),
    ],
)
def test_arrays_that_cannot_be_used_are_an_error(change, message):
    labels, p = random_rows(50, 0)
    with pytest.raises(EvaluationError, match=message):
        row_metrics(*change(labels, p, np.repeat(["1", "2"], 25)))


@pytest.mark.parametrize("values", [(0,), (10, -1), (1.5,), ("10",), (True,)])
def test_top_k_values_are_positive_integers(values):
    with pytest.raises(ConfigError, match=r"top_k_values.*positive integer"):
        MetaLayerEvaluator(top_k_values=values)
    with pytest.raises(ConfigError, match="top_k_values"):
        row_metrics(*random_rows(50, 0), None, values)


def table(n=700, seed=0, labels=None):
    rng = np.random.default_rng(seed)
    labels = random_rows(n, seed)[0].astype(np.int64) if labels is None else labels
    scores = np.zeros((n, 7), dtype=np.float32)
    scores[:, :3] = rng.dirichlet([1, 1, 1], n)
    windows = rng.integers(0, 4, (n, 500)).astype(np.uint8)
    return RowTable(
        frame=pl.DataFrame({"chrom": np.sort(rng.choice(["1", "2", "X"], n))}),
        windows=windows,
        features=feature_matrix(scores, windows),
        labels=labels,
        weights=np.ones(n, dtype=np.float32),
    )


def small_model():
    """A model whose head and calibration do something."""
    torch.manual_seed(0)
    model = MetaSpliceModel(
        hidden_dim=16,
        sequence_encoder_config={"kernel_sizes": [5], "num_filters": 8, "output_dim": 8, "levels": 3},
        dropout=0.5,
    )
    torch.nn.init.normal_(model.head.weight)
    model.calibrator("rows").set_calibration(0.7, (0.5, -0.5, 0.0))
    return model


def test_evaluator_gives_the_metrics_of_calibrated_probabilities():
    rows, model = table(), small_model().eval()
    with torch.no_grad():
        p = model.calibrate(model(torch.from_numpy(rows.windows), torch.from_numpy(rows.features)), "rows").numpy()
    expected = row_metrics(rows.labels, p, rows.frame["chrom"].to_numpy(), KS)
    found = MetaLayerEvaluator(top_k_values=KS).evaluate_dataloader(model, RowLoader(rows, 64), "cpu")
    agree_to = {"abs": 1e-6}
    for name in ("pr_auc_splice", "ap_splice", "top50_acc_donor", "ece", "roc_auc_splice", "accuracy"):
        assert found[name] == pytest.approx(expected[name], **agree_to), name
    assert found.keys() == expected.keys()
    assert list(found["per_chromosome"]) == ["1", "2", "X"]
    for chrom, entry in expected["per_chromosome"].items():
        assert found["per_chromosome"][chrom]["sites"] == entry["sites"]
        assert found["per_chromosome"][chrom]["ap_donor"] == pytest.approx(entry["ap_donor"], **agree_to)


def test_evaluator_does_not_depend_on_the_order_of_rows():
    rows, model, evaluator = table(), small_model(), MetaLayerEvaluator()
    plain = evaluator.evaluate_dataloader(model, RowLoader(rows, 700), torch.device("cpu"))
    shuffled = evaluator.evaluate_dataloader(model, RowLoader(rows, 700, shuffle=True), torch.device("cpu"))
    agree(shuffled, plain)


def test_evaluator_leaves_every_module_in_its_mode_and_the_weights_trainable():
    model = small_model().train()
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    assert set(before) == {True, False}
    evaluator = MetaLayerEvaluator()
    evaluator.evaluate_dataloader(model, RowLoader(table(), 64), "cpu")
    assert [module.training for module in model.modules()] == before
    assert not any(parameter.is_inference() for parameter in model.parameters())
    no_sites = table(labels=np.full(700, 5))
    with pytest.raises(EvaluationError, match="the classes are"):
        evaluator.evaluate_dataloader(model, RowLoader(no_sites, 64), "cpu")
    assert [module.training for module in model.modules()] == before


def test_evaluator_refuses_a_model_whose_answers_are_no_numbers():
    model = small_model()
    model.calibrator("rows").scale.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="700 of 700 rows have probabilities that are NaN"):
        MetaLayerEvaluator().evaluate_dataloader(model, RowLoader(table(), 64), "cpu")


class Repeating(RowLoader):
    """Gives its first batch twice."""

    def __iter__(self):
        first = next(iter(super().__iter__()))
        yield first
        yield from super().__iter__()


class DropLast(RowLoader):
    """Leaves out its last, smaller batch."""

    def __iter__(self):
        return (batch for batch in super().__iter__() if len(batch) == self.rows_in_batch)


@pytest.mark.parametrize(("loader", "given"), [(Repeating, "764 rows, 700 different"), (DropLast, "640 rows, 640")])
def test_evaluator_refuses_rows_that_come_twice_or_not_at_all(loader, given):
    with pytest.raises(EvaluationError, match=given):
        MetaLayerEvaluator().evaluate_dataloader(small_model(), loader(table(), 64), "cpu")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"gene_id": ["g"] * 700}), "no column chrom, only gene_id"),
        (pl.DataFrame({"chrom": ["1"] * 699 + [None]}), "1 rows have no chromosome"),
    ],
)
def test_evaluator_needs_chromosomes(frame, message):
    rows = table()
    rows = RowTable(frame, rows.windows, rows.features, rows.labels, rows.weights)
    with pytest.raises(EvaluationError, match=message):
        MetaLayerEvaluator().evaluate_dataloader(small_model(), RowLoader(rows, 64), "cpu")


def test_evaluator_refuses_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="device 'tpu'"):
        MetaLayerEvaluator().evaluate_dataloader(small_model(), RowLoader(table(), 64), "tpu")


def test_batches_carry_the_numbers_of_their_rows():
    rows = table()
    loader = RowLoader(rows, 64, shuffle=True)
    assert loader.table is rows
    for batch in loader:
        assert torch.equal(batch.labels, torch.from_numpy(rows.labels)[batch.rows])
        assert torch.equal(batch.to(torch.device("cpu")).rows, batch.rows)


def test_the_average_precision_of_training_is_the_evaluators():
    labels, p = random_rows(2000, 9, 1)
    splice = p[:, DONOR].astype(np.float64) + p[:, ACCEPTOR]
    found = row_metrics(labels, p)["pr_auc_splice"]
    assert average_precision(labels != NEITHER, splice) == pytest.approx(found, abs=1e-12)
