"""Metrics of one system on rows pooled over all genes, for millions of rows.

The definitions (ties, top-k, calibration bins) are those of `metrics`, with all rows as one gene. A ranking
needs no order of rows: counts at the scores of its sites follow from the sorted scores of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import ConfigError, EvaluationError
from metalayer.evaluation.metrics import (
    TARGETS,
    CalibrationCounts,
    ap_name,
    check_probabilities,
    confusion_counts,
    log_losses,
    ranking,
)
from metalayer.evaluation.ranks import RankCounts
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

_CHUNK_ROWS = 1 << 18
"""Rows whose temporary arrays are held at a time."""
_ALL = np.ones((1, 1))
"""Weights of the one resample that is the sample itself, of the one gene that is all rows."""


def row_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    chroms: NDArray[np.str_] | NDArray[np.object_] | None = None,
    top_k_values: Sequence[int] = (10, 50, 100, 500),
) -> dict[str, Any]:
    """Every metric of three-class rows.

    Beyond its arguments (13 bytes a row) it holds 9 bytes a row and about 90 bytes a distinct score of a site, and
    where the rows of a chromosome do not follow each other, up to 35 bytes a row.

    Args:
        labels: uint8 or int64 (n,), classes.
        probabilities: float32 (n, 3); of other floats the nearest float32 counts.
        chroms: (n,), chromosome names; None for no `per_chromosome`.
        top_k_values: k of the top-k accuracies.

    Returns:
        JSON-ready:
            rows: n.
            pr_auc_splice: average precision of donor-or-acceptor on P(donor) + P(acceptor).
            ap_donor, ap_acceptor, ap_splice: average precisions, and the mean of the two.
            roc_auc_splice, roc_auc_donor, roc_auc_acceptor: area under the ROC; None without a negative.
            precision_at_recall90_splice, ..._donor, ..._acceptor, and 95: precision at the highest threshold that
                finds 90 (95) % of the true ones, a tie called whole.
            topk_donor, topk_acceptor: share of true ones among the k highest scored, k being the number of
                true sites (SpliceAI's top-k accuracy). Of a tie that k cuts, the expected share is taken.
            top<k>_acc_donor, top<k>_acc_acceptor: the same at each k, or at n where k is more.
            ece: expected calibration error of P(donor) + P(acceptor), 15 equal-width bins.
            log_loss: mean of -log P(true class), in nats.
            confusion: true class (rows) by most probable class (columns).
            accuracy: share of rows whose most probable class is true.
            per_class: class name to precision, recall, f1 and support of the most probable class; None
                where undefined (precision of a class never called, recall of a class without rows).
            per_chromosome: name, in the order of the rows, to rows, sites (by class), pr_auc_splice,
                ap_donor and ap_acceptor, None where the chromosome lacks such sites.

    Raises:
        ConfigError: `top_k_values` that are not positive integers.
        EvaluationError: arrays that do not match, labels that are no classes, no donor or no acceptor,
            probabilities that are NaN or outside [0, 1], or chromosomes without a name.
    """
    top_k = check_top_k_values(top_k_values)
    _check(labels, probabilities, chroms)
    n = np.array([len(labels)], dtype=np.float64)
    out: dict[str, Any] = {"rows": len(labels)}
    for target in TARGETS:
        counts = _rank(labels, probabilities, target)
        measured = counts.evaluate(_ALL, n, None if target == "splice" else top_k)
        found = {name: float(value[0]) for name, value in measured.items()}
        out[ap_name(target)] = found.pop("ap")
        out |= {f"{name}_{target}": value for name, value in found.items()}
        area = float(counts.roc_auc(_ALL, n)[0])
        out[f"roc_auc_{target}"] = None if np.isnan(area) else area
    out["ap_splice"] = (out["ap_donor"] + out["ap_acceptor"]) / 2
    confusion, calibration, loss = _counts(labels, probabilities)
    out["ece"] = float(calibration.ece(_ALL)[0])
    out["log_loss"] = loss / len(labels)
    out["accuracy"] = _share(np.trace(confusion), len(labels))
    out["confusion"] = confusion.tolist()
    out["per_class"] = _per_class(confusion)
    out["per_chromosome"] = {} if chroms is None else _per_chromosome(labels, probabilities, chroms)
    return out


def check_top_k_values(values: Sequence[int]) -> tuple[int, ...]:
    """The k of top-k accuracies, as plain integers.

    Raises:
        ConfigError: one that is no positive integer.
    """
    wrong = [k for k in values if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1]
    if wrong:
        raise ConfigError(
            f"top_k_values: {', '.join(repr(k) for k in wrong)}; each must be a positive integer, as in (10, 50, 100)"
        )
    return tuple(int(k) for k in values)


def check_labels(labels: NDArray[np.integer]) -> None:
    """Refuse what is no class.

    Raises:
        EvaluationError: labels that are not integers from 0 to 2.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise EvaluationError(f"labels of type {labels.dtype}; expected integers, the classes {_classes()}")
    if labels.size and not (labels.min() >= 0 and labels.max() < len(CLASSES)):
        raise EvaluationError(f"labels from {labels.min()} to {labels.max()}; the classes are {_classes()}")


def _classes() -> str:
    return ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))


def _check(labels: NDArray[np.integer], probabilities: NDArray[np.floating], chroms: NDArray[Any] | None) -> None:
    shapes = {"labels": (labels.shape, (len(labels),)), "probabilities": (probabilities.shape, (len(labels), 3))}
    if chroms is not None:
        shapes["chroms"] = (chroms.shape, (len(labels),))
    for name, (given, expected) in shapes.items():
        if given != expected:
            raise EvaluationError(f"{name} of shape {given}, expected {expected}: one entry a label")
    check_labels(labels)
    for site_class in (DONOR, ACCEPTOR):
        if not (labels == site_class).any():
            raise EvaluationError(
                f"no {CLASSES[site_class]} among the {len(labels):,} rows: its average precision is not defined; "
                "evaluate on genes that have both kinds of site"
            )
    check_probabilities(probabilities, "evaluation")


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, _CHUNK_ROWS):
        yield slice(start, min(n, start + _CHUNK_ROWS))


def _rank(labels: NDArray[np.integer], probabilities: NDArray[np.floating], target: str) -> RankCounts:
    """Counts of one ranking; scores of the two sides are gathered in chunks and sorted in place."""
    total = np.count_nonzero(labels == NEITHER if target == "splice" else labels != CLASSES.index(target))
    dtype: type[np.floating[Any]] = np.float64 if target == "splice" else np.float32  # a sum of two needs float64
    negatives, positives = np.empty(total, dtype), np.empty(len(labels) - total, dtype)
    n_negative = n_positive = 0
    for rows in _chunks(len(labels)):
        positive, score = ranking(labels[rows], probabilities[rows], target)
        hits, others = score[positive], score[~positive]
        positives[n_positive : n_positive + len(hits)] = hits
        negatives[n_negative : n_negative + len(others)] = others
        n_positive, n_negative = n_positive + len(hits), n_negative + len(others)
    negatives.sort()
    return RankCounts.pooled(positives, negatives)


def _counts(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> tuple[NDArray[np.intp], CalibrationCounts, float]:
    """Confusion (C, C), calibration of P(donor) + P(acceptor) and log losses, added up chunk by chunk."""
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.intp)
    calibration = CalibrationCounts(1)
    loss = 0.0
    for rows in _chunks(len(labels)):
        loss += float(log_losses(labels[rows], probabilities[rows]).sum())
        confusion += confusion_counts(labels[rows], probabilities[rows])
        calibration.add(0, *ranking(labels[rows], probabilities[rows], "splice"))
    return confusion, calibration, loss


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _per_class(confusion: NDArray[np.intp]) -> dict[str, dict[str, float | int | None]]:
    support, called, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    return {
        name: {
            "precision": _share(right[c], called[c]),
            "recall": _share(right[c], support[c]),
            "f1": _share(2 * right[c], support[c] + called[c]),
            "support": int(support[c]),
        }
        for c, name in enumerate(CLASSES)
    }


def _per_chromosome(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], chroms: NDArray[Any]
) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for chrom, rows in _rows_by_chromosome(chroms):
        here, scores = labels[rows], probabilities[rows]
        sites = {CLASSES[c]: int((here == c).sum()) for c in (DONOR, ACCEPTOR)}
        n = np.array([len(here)], dtype=np.float64)
        entry: dict[str, Any] = {"rows": len(here), "sites": sites}
        for name, target, there in (
            ("pr_auc_splice", "splice", sum(sites.values())),
            ("ap_donor", "donor", sites["donor"]),
            ("ap_acceptor", "acceptor", sites["acceptor"]),
        ):
            entry[name] = float(_rank(here, scores, target).evaluate(_ALL, n)["ap"][0]) if there else None
        out[chrom] = entry
    return out


def _rows_by_chromosome(chroms: NDArray[Any]) -> Iterator[tuple[str, slice | NDArray[np.intp]]]:
    """Each chromosome and its rows: a slice where all of them follow each other, without a copy.

    Raises:
        EvaluationError: a chromosome without a name.
    """
    starts = np.flatnonzero(np.concatenate([[True], chroms[1:] != chroms[:-1]]))
    runs = chroms[starts].tolist()
    codes = {name: code for code, name in enumerate(dict.fromkeys(runs))}
    nameless = [name for name in codes if not isinstance(name, str) or not name]
    if nameless:
        raise EvaluationError(f"chromosome {nameless[0]!r}: each row needs the name of its chromosome")
    if len(runs) == len(codes):
        for name, start, end in zip(runs, starts, [*starts[1:], len(chroms)], strict=True):
            yield name, slice(int(start), int(end))
        return
    run_codes = np.fromiter((codes[name] for name in runs), np.min_scalar_type(len(codes)), len(runs))
    row_codes = np.repeat(run_codes, np.diff(starts, append=len(chroms)))
    order = np.argsort(row_codes, kind="stable")  # of up to 65,535 chromosomes, a radix sort
    bounds = np.searchsorted(row_codes, np.arange(len(codes) + 1), sorter=order)
    for code, name in enumerate(codes):
        yield name, order[bounds[code] : bounds[code + 1]]
