"""Fitting a stack of base models: ridge regression of log-odds, its penalty by cross-validation over gene clusters.

A convex problem with one answer, found by Newton's method: no epochs, and the same bits each time. What a training gene
is answered, while a network or a calibration learns from it, comes from folds that it is not in (`Stacking.held_out`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from metalayer.data.mean import untrained_mean
from metalayer.data.tracks import TrackStore
from metalayer.errors import ConfigError, TrainingError
from metalayer.evaluation.metrics import average_precision
from metalayer.gene_track import GeneTrack
from metalayer.models.stack import SITES, Doubles, Seen, SiteWeights, Stack, is_candidate, look
from metalayer.schema import CLASSES, NEITHER

logger = logging.getLogger(__name__)

FOLDS = 5
PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""On the squares of weights of features of unit variance, beside the log-likelihood of what is learned from."""
MAX_POSITIONS = 300_000
"""Positions that are learned from, of a class, each in half a kB: genes are drawn until there are so many."""
OTHERS = 200.0
"""Of the positions that are neither site nor candidate one in so many is learned from, and weighs so much."""
_STEPS, _SETTLED = 50, 1e-13
_SEVERAL = 3
"""Base models, of which a stack of all but one joins several still."""
_LOW_SCORE = 1e-4
"""Positions that score less are left out where base models are ranked."""


@dataclass(frozen=True)
class Stacking:
    """A stack that was fitted.

    Attributes:
        stack: fitted to all training genes.
        folds: fitted to the genes of all folds but one, each.
        fold_of: training gene id to the one that it is not in.
        losses: log-loss a site of held-out genes, by penalty; under None that of the mean.
    """

    stack: Stack
    folds: tuple[Stack, ...]
    fold_of: Mapping[str, int]
    losses: Mapping[float | None, float]

    def held_out(self, track: GeneTrack) -> NDArray[np.float32]:
        """Probabilities of a gene by a stack that was not fitted to it: float32 (L, C)."""
        fold = self.fold_of.get(track.gene.gene_id)
        return (self.stack if fold is None else self.folds[fold]).scores(track.bases)


@dataclass
class _Fold:
    """Positions of a fold's genes, for one class: design (n, F + 2), last the mean and 1; which are sites; weights."""

    parts: list[tuple[Seen, NDArray[np.bool_], Doubles]] = field(default_factory=list)
    design: Doubles = field(default_factory=lambda: np.empty((0, 0)))
    positive: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    weights: Doubles = field(default_factory=lambda: np.empty(0))

    def close(self, scale: Doubles) -> None:
        """All genes are there: build the design of features divided by `scale`."""
        features = np.concatenate([seen.features for seen, *_ in self.parts]) / scale
        log_odds = np.concatenate([seen.log_odds for seen, *_ in self.parts])
        self.design = np.concatenate([features, log_odds[:, None], np.ones((len(log_odds), 1))], axis=1)
        self.positive = np.concatenate([positive for _, positive, _ in self.parts])
        self.weights = np.concatenate([weights for *_, weights in self.parts])
        self.parts = []

    def loss(self, weights: Doubles) -> float:
        log_odds = self.design @ weights
        return -float(self.weights @ log_expit(np.where(self.positive, log_odds, -log_odds)))


def fit_stack(
    store: TrackStore,
    gene_ids: Sequence[str],
    groups: Sequence[Sequence[str]],
    seed: int,
    *,
    base_dropout: bool = False,
) -> Stacking:
    """Fit a stack.

    Args:
        store: per-nucleotide scores of the base models, side by side, with labels.
        gene_ids: to learn from.
        groups: all of them, those that are not independent together.
        seed: draws the folds, and genes where there are too many.
        base_dropout: fit a stack without each base model, too, where one of the others tells donors from acceptors.

    Raises:
        ConfigError: `base_dropout` of fewer than three base models.
        TrainingError: fewer groups than folds, a fold without positions, fewer than two folds with sites of a class, or
            a fit that does not settle.
    """
    if len(groups) < FOLDS:
        raise TrainingError(
            f"a stack is fitted by cross-validation in {FOLDS} folds; {len(gene_ids)} training genes form only "
            f"{len(groups)} clusters of overlapping or related ones. Give more genes, or set model.head to network"
        )
    bases = store.base_models
    if base_dropout and len(bases) < _SEVERAL:
        raise ConfigError(
            f"model.base_dropout: given true, and scores of {', '.join(filter(None, bases)) or 'one base model'}; a "
            f"model that answers without one of them needs at least {_SEVERAL}. Merge more, or leave it out"
        )
    found = _fit(store, gene_ids, groups, seed, None)
    if not base_dropout:
        return found
    left = {name: set(found.stack.telling) - {name} for name in bases}
    without = {name: _fit(store, gene_ids, groups, seed, name).stack for name, telling in left.items() if telling}
    return replace(found, stack=replace(found.stack, without=without))


def _fit(
    store: TrackStore, gene_ids: Sequence[str], groups: Sequence[Sequence[str]], seed: int, missing: str | None
) -> Stacking:
    """As `fit_stack`, without the base model that is missing."""
    order = np.random.default_rng(seed).permutation(len(groups))
    fold_of = {gene_id: place % FOLDS for place, number in enumerate(order) for gene_id in groups[number]}
    folds = {site: [_Fold() for _ in range(FOLDS)] for site in SITES}
    spreads, draws = {site: _Spread() for site in SITES}, np.random.default_rng(seed)
    counts, used, ranks = dict.fromkeys(SITES, 0), 0, _Ranks()
    for track in store.read_many([gene_id for number in order for gene_id in groups[number]]):
        if max(counts.values()) >= MAX_POSITIONS:
            break
        if missing:
            track = replace(track, several={name: of for name, of in track.bases.items() if name != missing})  # noqa: PLW2901
        mean, used = untrained_mean(track.bases), used + 1
        ranks.add(track)
        for site in SITES:
            at, weights, drawn = _learned_from(track, site, draws)
            seen, positive = look(track.bases, site, mean, at), track.labels[at] == site
            spreads[site].add(seen.features[drawn])
            kept = positive | (track.labels[at] == NEITHER)
            kept_seen = Seen(seen.features[kept], seen.log_odds[kept])
            folds[site][fold_of[track.gene.gene_id]].parts.append((kept_seen, positive[kept], weights[kept]))
            counts[site] += len(at)
    stack = ranks.untrained()
    joined = ", ".join(name or "one base model" for name in stack.bases)
    logger.info(
        "stack of %s: %s of %d training genes, %s positions for donors and %s for acceptors%s",
        *(
            joined,
            used,
            len(gene_ids),
            *(f"{n:,}" for n in counts.values()),
        ),
        f"; the best single one is {stack.best}" if len(stack.bases) > 1 else "",
    )
    problems = [_Problem(folds[site], spreads[site].scale(), CLASSES[site]) for site in SITES]
    sites = sum(problem.sites for problem in problems)
    losses: dict[float | None, float] = {None: sum(problem.mean_loss() for problem in problems) / sites}
    for penalty in PENALTIES:
        losses[penalty] = sum(problem.held_out_loss(penalty) for problem in problems) / sites
    penalty = min(PENALTIES, key=lambda one: losses[one])
    logger.info(
        "log-loss a site of genes that were held out: mean %.4f, stack %.4f with penalty %g",
        *(losses[None], losses[penalty], penalty),
    )

    def fitted(left_out: int | None) -> Stack:
        donor, acceptor = (problem.fitted(penalty, left_out) for problem in problems)
        return replace(stack, weights=(donor, acceptor), penalty=penalty)

    return Stacking(fitted(None), tuple(fitted(fold) for fold in range(FOLDS)), fold_of, losses)


class _Spread:
    """Standard deviations of features, whatever the labels."""

    def __init__(self) -> None:
        self._count, self._total, self._squares = 0, np.zeros(()), np.zeros(())

    def add(self, features: NDArray[np.float32]) -> None:
        self._count += len(features)
        self._total = self._total + features.sum(axis=0, dtype=np.float64)
        self._squares = self._squares + np.square(features, dtype=np.float64).sum(axis=0)

    def scale(self) -> Doubles:
        """At least .001: a feature that is the same everywhere weighs nothing."""
        mean = self._total / self._count
        return np.sqrt(np.maximum(self._squares / self._count - np.square(mean), 1e-6))


class _Problem:
    """The regression of one class."""

    def __init__(self, folds: Sequence[_Fold], scale: Doubles, name: str) -> None:
        with_sites = sum(any(positive.any() for _, positive, _ in fold.parts) for fold in folds)
        if with_sites < 2 or not all(fold.parts for fold in folds):
            raise TrainingError(
                f"{with_sites} of {FOLDS} folds of the training genes have a {name}, two must, and none may be empty; "
                "give more genes, or set model.head to network"
            )
        self._folds, self._scale = folds, scale
        for fold in folds:
            fold.close(scale)
        self.sites = sum(int(fold.positive.sum()) for fold in folds)
        self._prior = np.zeros(folds[0].design.shape[1])
        self._prior[-2] = 1.0
        self._found: dict[tuple[float, int | None], Doubles] = {}

    def mean_loss(self) -> float:
        """Log-loss of the mean."""
        return sum(fold.loss(self._prior) for fold in self._folds)

    def held_out_loss(self, penalty: float) -> float:
        """Log-loss of each fold by what was fitted to the others."""
        return sum(fold.loss(self._weights(penalty, number)) for number, fold in enumerate(self._folds))

    def fitted(self, penalty: float, left_out: int | None) -> SiteWeights:
        """What was fitted to all folds but `left_out`, for features as they are."""
        *features, slope, intercept = self._weights(penalty, left_out)
        return SiteWeights(float(slope), float(intercept), np.array(features) / self._scale)

    def _weights(self, penalty: float, left_out: int | None) -> Doubles:
        if (penalty, left_out) not in self._found:
            folds = [fold for number, fold in enumerate(self._folds) if number != left_out]
            # From the nearest penalty's, of the same folds: what is held out does not reach even the last bit.
            found = [one for one, of in self._found if of == left_out]
            near = min(found, key=lambda one: abs(np.log(one / penalty)), default=None)
            start = self._prior if near is None else self._found[near, left_out]
            self._found[penalty, left_out] = _newton(folds, self._prior, penalty, start)
        return self._found[penalty, left_out]


def _learned_from(
    track: GeneTrack, site: int, draws: np.random.Generator
) -> tuple[NDArray[np.intp], Doubles, NDArray[np.bool_]]:
    """Positions of a gene that are learned from for a class: candidates, sites, and some others.

    Returns:
        Positions (n,), what each weighs (n,), and which were chosen without a look at their labels (n,).
    """
    candidate = is_candidate(track.bases, site)
    drawn = candidate | (draws.random(len(track)) < 1.0 / OTHERS)
    is_site = track.labels == site
    chosen = drawn | is_site
    chosen[track.ignored] = False
    at = np.flatnonzero(chosen)
    return at, np.where((candidate | is_site)[at], 1.0, OTHERS), drawn[at]


def _newton(folds: Sequence[_Fold], prior: Doubles, penalty: float, start: Doubles) -> Doubles:
    """The weights of highest penalised likelihood, sought from `start` on; the last one, the intercept, is free."""
    precision = np.full(len(prior), penalty)
    precision[-1] = 1e-6

    def value(weights: Doubles) -> float:
        return sum(fold.loss(weights) for fold in folds) + 0.5 * float(precision @ np.square(weights - prior))

    weights, reached = start, value(start)
    for _ in range(_STEPS):
        slope, curvature = precision * (weights - prior), np.diag(precision)
        for fold in folds:
            probability = expit(fold.design @ weights)
            slope += fold.design.T @ (fold.weights * (probability - fold.positive))
            weighed = fold.design * np.sqrt(fold.weights * probability * (1.0 - probability))[:, None]
            curvature += weighed.T @ weighed  # symmetric, which takes half the time
        step = np.linalg.solve(curvature, slope)
        expected = float(slope @ step)
        if expected < _SETTLED * max(1.0, reached):
            break
        length = 1.0
        while (tried := value(weights - length * step)) > reached - 0.25 * length * expected and length > 1e-6:
            length /= 2
        weights, reached = weights - length * step, tried
    else:
        raise TrainingError(f"the fit of a stack has not settled in {_STEPS} steps: are base scores as they should be?")
    return weights


class _Ranks:
    """Which base models there are, and how well each ranks sites."""

    def __init__(self) -> None:
        self._bases: dict[str, int] = {}
        self._found: dict[tuple[str, int], list[tuple[NDArray[np.bool_], NDArray[np.float32]]]] = {}

    def add(self, track: GeneTrack) -> None:
        counted = np.ones(len(track), dtype=bool)
        counted[track.ignored] = False
        for name, scores in track.bases.items():
            self._bases[name] = scores.shape[1]
            for site in SITES if scores.shape[1] == len(CLASSES) else ():
                positive = track.labels == site
                at = counted & (positive | (scores[:, site] >= _LOW_SCORE))
                self._found.setdefault((name, site), []).append((positive[at], scores[at, site]))

    def untrained(self) -> Stack:
        """The mean, which names the best of the base models that tell donors from acceptors."""
        telling = tuple(name for name, columns in self._bases.items() if columns == len(CLASSES))

        def precision(name: str) -> float:
            found = (zip(*self._found[name, site], strict=True) for site in SITES)
            return sum(average_precision(np.concatenate(positive), np.concatenate(score)) for positive, score in found)

        return Stack(tuple(self._bases), telling, max(telling, key=precision))
