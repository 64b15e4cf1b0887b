"""From the largest change of a score to the probability that a variant alters splicing, by kind of variant.

p = 1 / (1 + exp(-(slope * x + bias))), where x is the log-odds of |delta|, which counts as at least .001 and at most
.999. The slope is never below 0, so a larger change is never less likely to matter. It is fitted by maximum posterior:
first to all variants, near p = |delta| (normal priors of slope and bias); then to each kind with `MIN_OF_EACH` variants
of either label, near the fit of all. Kinds with fewer have the fit of all. No probability is nearer to 0 or 1 than one
variant more of the other label would allow: 1 / (n + 2) of n variants.

A probability is one among variants like those that it was fitted on: where half of these alter splicing, and one in a
thousand of a genome's do, it is far too high for the genome's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from metalayer.errors import InputError
from metalayer.integrity import read_json, write_json
from metalayer.variants.answers import ESCAPES, PROBABILITY_TAG
from metalayer.variants.genes import Genes
from metalayer.variants.kinds import KINDS, located
from metalayer.variants.letters import Letters
from metalayer.variants.scoring import META, Allele

FORMAT, FORMAT_VERSION = "metalayer variant calibration", 1
METHOD = "logistic in the log-odds of |delta|, slope at least 0, maximum posterior, by kind"
LEAST = 0.001
"""|delta| counts as no smaller, and no nearer to 1."""
MIN_OF_EACH = 10
"""Variants that alter splicing, and others, that a kind needs for a fit of its own."""
MIN_OF_ALL = 20
"""Likewise of all kinds together, without which nothing is fitted."""
FOLDS = 5
"""Parts of the clusters of genes, each answered by curves of the others."""
_IDENTITY, _PRIOR_OF_ALL, _PRIOR_OF_KIND = (1.0, 0.0), (1.0, 4.0), (0.5, 2.0)
"""Slope and bias that change nothing; standard deviations of the priors."""
_OPTIONS = ("distance", "mask", "flanks", "way")
Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Curve:
    """A fit.

    Attributes:
        slope: of the log-odds of |delta|, at least 0.
        bias: log-odds at |delta| = .5.
        altering, neutral: variants that it was fitted on.
        pooled: whether it is that of all kinds.
    """

    slope: float
    bias: float
    altering: int
    neutral: int
    pooled: bool

    def probability(self, change: Floats) -> Floats:
        """Of |delta|, (n,) to (n,)."""
        least = 1.0 / (self.altering + self.neutral + 2)
        found: Floats = np.clip(expit(self.slope * log_odds(change) + self.bias), least, 1.0 - least)
        return found


def log_odds(change: Floats) -> Floats:
    """Of |delta|, (n,) to (n,)."""
    found: Floats = logit(np.clip(change, LEAST, 1.0 - LEAST))
    return found


def _fitted(
    x: Floats, altering: _Bools, middle: Sequence[float], deviations: Sequence[float], *, pooled: bool
) -> Curve:
    sign = np.where(altering, 1.0, -1.0)
    precision, centre = np.array(deviations) ** -2.0, np.array(middle)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        margin = sign * (parameters[0] * x + parameters[1])
        pull = -sign * expit(-margin)
        off = parameters - centre
        gradient = np.array([pull @ x, pull.sum()]) + precision * off
        return float(np.logaddexp(0.0, -margin).sum() + 0.5 * (precision * off**2).sum()), gradient

    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    count = int(altering.sum())
    return Curve(float(found.x[0]), float(found.x[1]), count, len(x) - count, pooled)


def fit_curves(change: Floats, altering: _Bools, kinds: Sequence[str]) -> dict[str, Curve]:
    """A curve for each of `KINDS`.

    Args:
        change: |delta|, (n,).
        altering: (n,).
        kinds: of each of the n.
    """
    x, names = log_odds(change), np.array(kinds)
    of_all = _fitted(x, altering, _IDENTITY, _PRIOR_OF_ALL, pooled=True)
    found = {}
    for kind in KINDS:
        here = names == kind
        count = int(altering[here].sum())
        enough = min(count, int(here.sum()) - count) >= MIN_OF_EACH
        near = (of_all.slope, of_all.bias)
        found[kind] = _fitted(x[here], altering[here], near, _PRIOR_OF_KIND, pooled=False) if enough else of_all
    return found


def held_out(change: Floats, altering: _Bools, kinds: Sequence[str], clusters: NDArray[np.int64], seed: int) -> Floats:
    """Probabilities (n,) of curves that were fitted without the cluster of genes of each, which are dealt to `FOLDS`.

    Args:
        change: |delta|, (n,).
        altering: (n,).
        kinds: of each.
        clusters: number of the cluster of each, from 0 to C - 1.
        seed: deals them.
    """
    order = np.random.default_rng(seed).permutation(int(clusters.max()) + 1)
    fold, names = (order % FOLDS)[clusters], np.array(kinds)
    out = np.zeros(len(change))
    for number in range(FOLDS):
        rest = fold != number
        curves = fit_curves(change[rest], altering[rest], names[rest].tolist())
        for kind, curve in curves.items():
            here = ~rest & (names == kind)
            out[here] = curve.probability(change[here])
    return out


def refuse_too_few(altering: _Bools, clusters: NDArray[np.int64], least_clusters: int) -> None:
    """See that there are enough variants to fit on.

    Raises:
        InputError: too few of either label, or in too few clusters of genes.
    """
    counts = {"altering": int(altering.sum()), "neutral": int((~altering).sum())}
    there = {"altering": len(np.unique(clusters[altering])), "neutral": len(np.unique(clusters[~altering]))}
    if min(counts.values()) < MIN_OF_ALL or min(there.values()) < least_clusters:
        said = " and ".join(f"{counts[name]:,} {name} ones in {there[name]:,} clusters of genes" for name in counts)
        raise InputError(
            f"calibration: {said} have a score; needed are {MIN_OF_ALL} of either in {least_clusters} clusters (genes "
            "that overlap are one). Take more labelled variants"
        )


def identity(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a score must have in common with that which a table was fitted for: JSON-ready.

    Args:
        facts: what decided the scores, as `Opened.facts` has it.
        name: of the scores.
    """
    bases = facts["bases"] if name == META else {name: facts["bases"][name]}
    return {
        "score": name,
        "bases": bases,
        "model_digest": facts["model_digest"] if name == META else None,
        **{option: facts["options"][option] for option in _OPTIONS},
    }


@dataclass(frozen=True)
class Calibration:
    """A table of curves.

    Attributes:
        fitted_for: `identity` of the scores.
        curves: by kind.
        about: what it was fitted on and how well that went, JSON-ready.
    """

    fitted_for: Mapping[str, Any]
    curves: Mapping[str, Curve]
    about: Mapping[str, Any]

    def probability(self, kind: str, change: float) -> float:
        """That a variant of a kind alters splicing.

        Args:
            kind: of `KINDS`.
            change: the largest of its four changes.
        """
        return float(self.curves[kind].probability(np.array([change]))[0])

    def write(self, path: Path) -> None:
        """Publish it as JSON."""
        curves = {kind: asdict(curve) for kind, curve in self.curves.items()}
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "method": METHOD}
        write_json(path, {**head, "fitted_for": self.fitted_for, "curves": curves, **self.about})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of a file of `write`.

        Raises:
            InputError: no such file, another one, or one that was changed.
        """
        advice = "needed is a file of `metalayer variants calibrate`"
        try:
            content = read_json(path, InputError, advice)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--calibration {path}: cannot be read ({error}); {advice}") from None
        if content.get("format") != FORMAT or content.get("format_version") != FORMAT_VERSION:
            raise InputError(f"--calibration {path}: {advice}, of format version {FORMAT_VERSION}")
        curves = {kind: Curve(**curve) for kind, curve in content["curves"].items()}
        known = {"format", "format_version", "method", "fitted_for", "curves"}
        about = {name: value for name, value in content.items() if name not in known}
        return cls(content["fitted_for"], curves, about)

    def check(self, path: Path, facts: Mapping[str, Any]) -> None:
        """See that it was fitted for scores like these.

        Args:
            path: where it was read, for the message.
            facts: what decides the scores.

        Raises:
            InputError: another base model, weights, model, distance, mask, or letters around.
        """
        name = str(self.fitted_for["score"])
        if name not in [*facts["bases"], *([META] if facts["model_digest"] else [])]:
            given = ", ".join([*facts["bases"], *([META] if facts["model_digest"] else [])])
            raise InputError(f"--calibration {path}: fitted for scores of {name}; this run has those of {given}")
        here = identity(facts, name)
        other = [f"{key} {_short(value)}, here {_short(here[key])}" for key, value in self.fitted_for.items()
                 if value != here[key]]  # fmt: skip
        if other:
            raise InputError(
                f"--calibration {path}: fitted for {'; '.join(other)}. Fit one for these scores with "
                "`metalayer variants calibrate`"
            )


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(of)}".rstrip() for name, of in value.items())
    text = str(value)
    return text[:12] if len(text) == 64 else text


@dataclass(frozen=True)
class Calibrated:
    """A table at work.

    Attributes:
        calibration: the table.
        letters: the reference.
        genes: of the annotation.
    """

    calibration: Calibration
    letters: Letters
    genes: Genes

    @property
    def name(self) -> str:
        """Of the scores that it reads."""
        return str(self.calibration.fitted_for["score"])

    def of(self, contig: str, position: int, ref: str, allele: Allele) -> Iterator[tuple[str, str, str, float]]:
        """Id and symbol of each gene that an allele is scored for, its kind there and the probability.

        Args:
            contig: by any of its names.
            position: 0-based POS.
            ref: letters of the reference.
            allele: what is known of it.
        """
        scored = [(gene, changes) for gene in allele.genes if (changes := gene.effects.get(self.name))]
        if not scored:
            return
        places = located(self.letters, self.genes, contig, position, ref, allele.alt)
        for gene, changes in scored:
            kind = places[gene.gene_id].kind
            change = max(one.score for one in changes)
            yield gene.gene_id, gene.symbol, kind, self.calibration.probability(kind, change)

    def info(self, contig: str, position: int, ref: str, alleles: Sequence[Allele]) -> dict[str, str]:
        """The INFO field of a record, if it has one; arguments as in `of`."""
        entries = [
            "|".join([allele.alt, symbol.translate(ESCAPES), f"{chance:.4f}", kind])
            for allele in alleles
            for _, symbol, kind, chance in self.of(contig, position, ref, allele)
        ]
        return {PROBABILITY_TAG: ",".join(entries)} if entries else {}

    def fill(
        self, rows: list[dict[str, Any]], contig: str, position: int, ref: str, alleles: Sequence[Allele]
    ) -> list[dict[str, Any]]:
        """Rows of a record (of `rows_of`) with `CALIBRATED_COLUMNS`, filled in those of the scores that it reads."""
        known = {
            (allele.alt, gene_id): {"kind": kind, "probability": chance}
            for allele in alleles
            for gene_id, _, kind, chance in self.of(contig, position, ref, allele)
        }
        return [row | known.get((row["alt"], row["gene_id"]), {}) if row["model"] == self.name else row for row in rows]


@dataclass(frozen=True)
class Threshold:
    """The least |delta| that is called, where sensitivity plus specificity is largest.

    Attributes:
        threshold: of |delta|.
        low, high: between which 95 % of resamples of gene clusters have theirs; None with too few clusters.
        sensitivity, specificity: at it.
    """

    threshold: float
    low: float | None
    high: float | None
    sensitivity: float
    specificity: float


def best_threshold(
    change: Floats, altering: _Bools, clusters: NDArray[np.int64], weights: Floats, confidence: float
) -> Threshold:
    """Of variants of both labels.

    Args:
        change: |delta|, (n,); equal ones are those with the same three decimals.
        altering: (n,).
        clusters: number of the cluster of each, from 0 to C - 1.
        weights: (1 + B, C), as in `Resamples`.
        confidence: of the interval.
    """
    levels, at = np.unique(np.floor(change * 1000.0 + 1e-9) / 1000.0, return_inverse=True)
    shares = []
    for of in (altering, ~altering):
        counts = np.zeros((weights.shape[1], len(levels)))
        np.add.at(counts, (clusters[of], at[of]), 1.0)
        called = np.cumsum((weights @ counts)[:, ::-1], axis=1)[:, ::-1]
        shares.append(called / called[:, :1])
    best = np.argmax(shares[0] - shares[1], axis=1)
    drawn = levels[best[1:]]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]) if len(drawn) else (None, None)
    sensitivity, false = (float(share[0, best[0]]) for share in shares)
    return Threshold(float(levels[best[0]]), low, high, sensitivity, 1.0 - false)


def slope_of(probability: Floats, altering: _Bools, clusters: NDArray[np.int64]) -> tuple[float, float] | None:
    """Slope of labels on the log-odds of probabilities (1: as sure as they should be; below: too sure), and its error.

    The standard error is that of clusters. None where labels are separated without error, or are all the same.
    """
    x = logit(np.clip(probability, 1e-9, 1 - 1e-9))
    design = np.stack([np.ones(len(x)), x], axis=1)
    found = np.zeros(2)
    for _ in range(100):
        p = expit(design @ found)
        bread = design.T @ (design * (p * (1 - p))[:, None])
        if np.linalg.cond(bread) > 1e12:
            return None
        step = np.linalg.solve(bread, design.T @ (altering - p))
        found = found + step
        if np.abs(step).max() < 1e-9:
            break
    else:
        return None
    pull = np.zeros((int(clusters.max()) + 1, 2))
    np.add.at(pull, clusters, design * (altering - p)[:, None])
    inverse = np.linalg.inv(bread)
    variance = float((inverse @ (pull.T @ pull) @ inverse)[1, 1])
    return float(found[1]), math.sqrt(variance)
