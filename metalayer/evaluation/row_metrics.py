"""Metrics of one system on rows pooled over all genes, for millions of rows.

The definitions (ties, top-k, calibration bins) are those of `metrics`, with all rows as one gene.
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
from metalayer.evaluation.ranks import FALSE_CALLS, GroupRanks, Reached
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

_CHUNK_ROWS = 1 << 18
"""Rows whose temporary arrays are held at a time."""
Codes = NDArray[np.unsignedinteger[Any]]
_ALL = np.ones((1, 1))
"""Weights of the one resample that is the sample itself, of the one gene that is all rows."""


def row_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    chroms: NDArray[np.str_] | NDArray[np.object_] | None = None,
    top_k_values: Sequence[int] = (10, 50, 100, 500),
) -> dict[str, Any]:
    """Every metric of three-class rows.

    Beyond its arguments (13 bytes a row) it holds a byte a row, or two, for its chromosome, and about 200 bytes a
    distinct score of a site.

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
            log_loss, log_loss_per_site: mean of -log P(true class), in nats, and its sum over the true sites.
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
    names, codes = _codes(chroms)
    counts = _Counts(labels, probabilities, codes, len(names))
    for rows, code in _pieces(codes, len(labels)):
        counts.add(labels[rows], probabilities[rows], code)
    n = np.array([len(labels)], dtype=np.float64)
    out: dict[str, Any] = {"rows": len(labels)}
    for target in TARGETS:
        ranks = counts.whole[target].counts()
        measured = ranks.evaluate(_ALL, n, None if target == "splice" else top_k)
        # Rows are a sample: how many are called falsely says nothing of a stretch of the genome.
        found = {name: float(value[0]) for name, value in measured.items() if not name.startswith(FALSE_CALLS)}
        out[ap_name(target)] = found.pop("ap")
        out |= {f"{name}_{target}": value for name, value in found.items()}
        area = float(ranks.roc_auc(_ALL, n)[0])
        out[f"roc_auc_{target}"] = None if np.isnan(area) else area
    out["ap_splice"] = (out["ap_donor"] + out["ap_acceptor"]) / 2
    out["ece"] = float(counts.calibration.ece(_ALL)[0])
    out["log_loss"] = counts.loss / len(labels)
    out["log_loss_per_site"] = counts.loss / int(counts.confusion[:NEITHER].sum())
    out["accuracy"] = _share(np.trace(counts.confusion), len(labels))
    out["confusion"] = counts.confusion.tolist()
    out["per_class"] = _per_class(counts.confusion)
    out["per_chromosome"] = counts.per_chromosome(names)
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


class _Counts:
    """Counts of rows, added up piece by piece, each of one chromosome."""

    def __init__(
        self, labels: NDArray[np.integer], probabilities: NDArray[np.floating], codes: Codes | None, n_chroms: int
    ) -> None:
        at = np.flatnonzero(labels != NEITHER)
        sites, scores = labels[at], probabilities[at]
        self.calibration = CalibrationCounts(1)
        self.confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.intp)
        self.loss = 0.0
        self._thresholds: dict[str, NDArray[np.floating]] = {}
        self.whole: dict[str, GroupRanks] = {}
        self._by_chrom: list[dict[str, GroupRanks]] = [{} for _ in range(n_chroms)]
        self._rows = np.zeros((n_chroms, len(CLASSES)), dtype=np.int64)
        for target in TARGETS:
            positive, score = ranking(sites, scores, target)
            self._thresholds[target] = np.unique(score[positive])
            hit = Reached.of(self._thresholds[target], positive, score).hit
            self.whole[target] = GroupRanks(hit)
            for code, ranks in enumerate(self._by_chrom):
                assert codes is not None
                ranks[target] = GroupRanks(hit[codes[at][positive] == code])

    def add(self, labels: NDArray[np.integer], probabilities: NDArray[np.floating], code: int | None) -> None:
        self.loss += float(log_losses(labels, probabilities).sum())
        self.confusion += confusion_counts(labels, probabilities)
        for target, whole in self.whole.items():
            positive, score = ranking(labels, probabilities, target)
            if target == "splice":
                self.calibration.add(0, positive, score)
            reached = Reached.of(self._thresholds[target], positive, score)
            whole.add(reached)
            if code is not None:
                self._by_chrom[code][target].add(reached)
        if code is not None:
            self._rows[code] += np.bincount(labels, minlength=len(CLASSES))

    def per_chromosome(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        out = {}
        for name, ranks, rows in zip(names, self._by_chrom, self._rows.tolist(), strict=True):
            there = {"donor": rows[DONOR], "acceptor": rows[ACCEPTOR], "splice": rows[DONOR] + rows[ACCEPTOR]}
            entry: dict[str, Any] = {"rows": sum(rows), "sites": {key: there[key] for key in ("donor", "acceptor")}}
            for target in TARGETS:
                entry[ap_name(target)] = ranks[target].average_precision() if there[target] else None
            out[name] = entry
        return out


def _codes(chroms: NDArray[Any] | None) -> tuple[list[str], Codes | None]:
    """Chromosomes in the order of the rows, and the number of that of each row, (n,).

    Raises:
        EvaluationError: a chromosome without a name.
    """
    if chroms is None:
        return [], None
    starts = np.flatnonzero(np.concatenate([[True], chroms[1:] != chroms[:-1]]))
    runs = chroms[starts].tolist()
    numbers = {name: number for number, name in enumerate(dict.fromkeys(runs))}
    nameless = [name for name in numbers if not isinstance(name, str) or not name]
    if nameless:
        raise EvaluationError(f"chromosome {nameless[0]!r}: each row needs the name of its chromosome")
    of_runs = np.fromiter((numbers[name] for name in runs), np.min_scalar_type(len(numbers)), len(runs))
    return list(numbers), np.repeat(of_runs, np.diff(starts, append=len(chroms)))


def _pieces(codes: Codes | None, n: int) -> Iterator[tuple[slice | NDArray[np.intp], int | None]]:
    """Rows some at a time and the chromosome that they are of; None where none is known."""
    for start in range(0, n, _CHUNK_ROWS):
        rows = slice(start, min(n, start + _CHUNK_ROWS))
        if codes is None:
            yield rows, None
            continue
        there = np.unique(codes[rows]).tolist()
        for code in there:
            yield rows if len(there) == 1 else start + np.flatnonzero(codes[rows] == code), code


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
