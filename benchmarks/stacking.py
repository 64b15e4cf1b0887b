"""`python -m benchmarks.stacking DIR`: base models joined in a stack, by nested cross-validation over real genes.

DIR is a folder like `../shared/real`. Every gene is answered by a stack that was fitted, penalty included, to the genes
of the other four fifths of the gene clusters; three draws of the folds, and their median. `--genes nested` takes those
of chromosomes 1, 5 and 7, by which choices are made; `chr3` answers the genes of chromosome 3 by a stack of all of
these, once; `all` crosses the genes of all four. `--labels` says what is learned and counted: `all`, sites of all
isoforms; `principal`, those of the principal transcript; `ignored`, these, where sites of other isoforms do not count.
`--bases` names the base models; gains are over the first, and of several over the mean of the first two.
`--boosted` adds a boosted model of the same features (scikit-learn, monotone in what each base says of the class
itself), averaged with the mean in log-odds, for the first draw. `make bench` leaves it out.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.ensemble import HistGradientBoostingClassifier

from metalayer.data.mean import untrained_mean
from metalayer.data.score_files import ScoreFile
from metalayer.data.tracks import TrackStore
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.scored_genes import PrincipalLabels
from metalayer.gene_groups import related, united
from metalayer.gene_track import GeneTrack
from metalayer.models.stack import SITES, is_candidate, look
from metalayer.schema import CLASSES, MARK_COLUMNS, NEITHER, SITE_KINDS, SPLICED_SCORE, bases_of
from metalayer.settings.sections import EvaluateConfig
from metalayer.training.stacking import fit_stack
from metalayer.workflows.merge_scores import merge_scores

BASES = ("openspliceai_10000", "pangolin", "spliceai")
CHROMS, TEST = ("1", "5", "7"), "3"
OUTER, SEEDS = 5, (1, 2, 3)
LABELS, GENES = ("all", "ignored", "principal"), ("nested", "chr3", "all")
STACK, BOOSTED, OF_ALL, OF_TWO = "stack", "boosted", "mean of all", "mean of the first two"
Scores = dict[str, dict[str, NDArray[np.float32]]]
"""By system, by gene."""


class Labelled(TrackStore):
    """Genes whose file labels the sites of all isoforms, with other labels."""

    labels = LABELS[0]

    def read(self, gene_id: str, base_model: str | None = None) -> GeneTrack:
        track = super().read(gene_id, base_model)
        if self.labels == LABELS[0]:
            return track
        labels, ignored = track.labels.copy(), track.ignored
        labels[track.alternative] = NEITHER
        if self.labels == LABELS[1]:
            ignored = np.union1d(ignored, track.alternative)
        return replace(track, labels=labels, ignored=ignored)


def store_of(real: Path, bases: Sequence[str], chroms: Sequence[str], folder: Path) -> Labelled:
    """The base models side by side on the genes of chromosomes, sites of all isoforms labelled and marked."""
    paths = []
    for chrom in chroms:
        given = [(base, with_isoforms(real, base, chrom, folder)) for base in bases]
        paths.append(folder / f"merged-{chrom}.parquet" if len(bases) > 1 else given[0][1])
        if len(bases) > 1:
            merge_scores(given, paths[-1])
    canonical = folder / f"canonical-{'-'.join(chroms)}.parquet"
    ScoreFile.read(paths, canonical, {}, base_model="+".join(bases))
    return Labelled(canonical)


def with_isoforms(real: Path, base: str, chrom: str, folder: Path) -> Path:
    """A file of `real` with labels and marks of all isoforms; of Pangolin, P(spliced) is the mean of its tissues."""
    isoforms = pl.read_parquet(real / "isoforms.parquet").select("gene_id", "position", pl.col("site").alias("other"))
    isoforms = isoforms.sort("other", descending=True).unique(
        ["gene_id", "position"], keep="first", maintain_order=True
    )
    frame = pl.read_parquet(real / "nucleotide_scores" / f"{base}_chr{chrom}.parquet")
    if base == "pangolin":
        tissues = frame.select(pl.mean_horizontal("heart", "liver", "brain", "testis")).to_series()
        frame = pl.read_parquet(real / "nucleotide_scores" / f"{BASES[0]}_chr{chrom}.parquet")
        frame = frame.drop("donor_score", "acceptor_score", "neither_score")
        frame = frame.with_columns(tissues.cast(pl.Float32).alias(SPLICED_SCORE))
    frame = frame.with_columns(pl.col("gene_id", "label").cast(pl.String), pl.col("position").cast(pl.Int64))
    frame = frame.join(isoforms, on=["gene_id", "position"], how="left", maintain_order="left")
    is_site, is_other = pl.col("label") != CLASSES[NEITHER], pl.col("other").is_not_null()
    kind = pl.when(is_site).then(pl.lit(SITE_KINDS[1])).when(is_other).then(pl.lit(SITE_KINDS[2]))
    frame = frame.with_columns(
        kind.otherwise(pl.lit(SITE_KINDS[0])).alias(MARK_COLUMNS[0]),
        pl.lit(-1, pl.Int32).alias(MARK_COLUMNS[1]),
        pl.when(is_site).then("label").otherwise(pl.col("other").fill_null(CLASSES[NEITHER])).alias("label"),
    )
    path = folder / f"{base}-{chrom}.parquet"
    frame.drop("other").write_parquet(path)
    return path


def answers(store: TrackStore, train: Sequence[str], test: TrackStore, tested: Sequence[str], seed: int) -> Scores:
    """What the stack says of the genes to test on, by the genes to train on; and what needs no training."""
    genes = store.genes()
    fitted = fit_stack(store, train, united(train, related(genes[gene_id] for gene_id in train)), seed)
    found: Scores = {STACK: {}}
    for track in test.read_many(list(tested)):
        gene_id, bases = track.gene.gene_id, track.bases
        found[STACK][gene_id] = fitted.stack.scores(bases)
        if len(bases) > 1:
            found.setdefault(OF_ALL, {})[gene_id] = track.scores
            first_two = {name: bases[name] for name in list(bases)[:2]}
            found.setdefault(OF_TWO, {})[gene_id] = untrained_mean(first_two)
    return found


def folds(store: TrackStore, seed: int) -> Iterator[tuple[list[str], list[str]]]:
    """Genes to train and to test on, gene clusters together."""
    genes = store.genes()
    groups = united(genes, related(genes.values()))
    order = np.random.default_rng(seed).permutation(len(groups))
    for fold in range(OUTER):
        tested = sorted(gene_id for place in order[fold::OUTER] for gene_id in groups[place])
        yield sorted(genes.keys() - set(tested)), tested


def out_of_fold(store: TrackStore, seed: int, with_boosted: bool) -> Scores:
    """All genes, each answered by what was fitted without it."""
    found: Scores = {}
    for train, tested in folds(store, seed):
        there = answers(store, train, store, tested, seed)
        if with_boosted:
            models = boost(store, train, seed)
            there[BOOSTED] = {track.gene.gene_id: averaged(track, models) for track in store.read_many(tested)}
        for system, scores in there.items():
            found.setdefault(system, {}).update(scores)
    return found


def boost(store: TrackStore, train: Sequence[str], seed: int) -> Mapping[int, HistGradientBoostingClassifier]:
    """One boosted model a class, at candidate positions."""
    models = {}
    for site in SITES:
        features, labels = [], []
        for track in store.read_many(list(train)):
            at = np.setdiff1d(np.flatnonzero(is_candidate(track.bases, site)), track.ignored)
            features.append(look(track.bases, site, track.scores, at).features)
            labels.append(track.labels[at] == site)
        own = [1, 0, 1, 1, 0]  # same and other kind of two bases, P(spliced) of one between them
        monotone = own + [0] * (features[0].shape[1] - len(own))
        model = HistGradientBoostingClassifier(
            max_iter=120,
            learning_rate=0.06,
            max_leaf_nodes=8,
            l2_regularization=5.0,
            max_features=0.5,
            early_stopping=False,
            monotonic_cst=monotone,
            random_state=seed,
        )
        models[site] = model.fit(np.concatenate(features), np.concatenate(labels))
    return models


def averaged(track: GeneTrack, models: Mapping[int, HistGradientBoostingClassifier]) -> NDArray[np.float32]:
    """Of the boosted model and the mean of all."""
    scores = track.scores.astype(np.float64)
    for site, model in models.items():
        at = np.flatnonzero(is_candidate(track.bases, site))
        if len(at):
            ours = model.predict_proba(look(track.bases, site, track.scores, at).features)[:, 1]
            both = np.clip(np.stack([ours, scores[at, site]]), 1e-9, 1 - 1e-7)
            scores[at, site] = expit(logit(both).mean(axis=0))
    scores[:, :NEITHER] /= np.maximum(1.0, scores[:, :NEITHER].sum(axis=1, keepdims=True))
    scores[:, NEITHER] = 1.0 - scores[:, :NEITHER].sum(axis=1)
    return scores.astype(np.float32)


def compared(store: Labelled, found: Scores, system: str) -> dict[str, Any]:
    """The report of a system; its reference is the first base model."""
    genes = []
    for track in store.read_many(sorted(store.genes())):
        gene_id = track.gene.gene_id
        scores = {"base": next(iter(track.bases.values()))} | {name: of[gene_id] for name, of in found.items()}
        rest = (track.gene, track.paralog, None, gene_id, track.ignored, track.alternative)
        genes.append(GeneScores(gene_id, track.gene.interval.chrom, track.labels, scores, *rest))
    scored = PrincipalLabels(genes) if store.labels == LABELS[1] else genes
    return evaluate(scored, EvaluateConfig(), candidate=system)


def shown(reports: Sequence[Mapping[str, Any]], system: str) -> Iterator[str]:
    """Lines of what a system brings; of several draws the median of each number."""

    def median(*path: str) -> float:
        values: list[Any] = [reduce(getitem, path, report) for report in reports]
        return float(statistics.median(values))

    for against in ("base", OF_TWO, OF_ALL):
        if against == "base" or against in reports[0]["differences"]:
            where = ("difference",) if against == "base" else ("differences", against)
            parts = []
            for kind in ("donor", "acceptor"):
                gap = [median(*where, f"ap_{kind}", part) for part in ("value", "low", "high")]
                parts.append(f"{median(against, f'ap_{kind}'):.4f} {gap[0]:+.4f} ({gap[1]:+.4f} to {gap[2]:+.4f})")
            yield f"{system}, AP over {against}: donor {parts[0]}, acceptor {parts[1]}"
    names = [f"false_per_mb_at_recall{recall}_{kind}" for kind in ("donor", "acceptor") for recall in (90, 95)]
    for name in ("log_loss_per_site", *names):
        before, after = median("base", name), median(system, name)
        yield f"   {name} {before:.3f} -> {after:.3f} ({after / before - 1:+.0%})"
    for kind in ("donor", "acceptor"):
        if reports[0]["site_recall"]["alternative"][kind]:
            path = ("site_recall", "alternative", kind)
            gap = [median(*path, "difference", part) for part in ("value", "low", "high")]
            change = f"{gap[0]:+.3f}, {gap[1]:+.3f} to {gap[2]:+.3f}"
            shares = [median(*path, one, "value") for one in ("base", system)]
            yield f"   alternative {kind} recall at 95 % precision {shares[0]:.3f} -> {shares[1]:.3f} ({change})"


def show(title: str, store: Labelled, found: Sequence[Scores], seeds: Sequence[int]) -> None:
    """Print what the systems of several draws bring."""
    genes = store.genes()
    print(f"\n{title}: {len(genes)} genes in {len(united(genes, related(genes.values())))} clusters")
    reports = [compared(store, one, STACK) for one in found]
    for seed, report in zip(seeds, reports, strict=True):
        gaps = [report["difference"][f"ap_{kind}"] for kind in ("donor", "acceptor")]
        parts = [f"{report[STACK][f'ap_{kind}']:.4f}" for kind in ("donor", "acceptor")]
        low = [f"{gap['value']:+.4f} from {gap['low']:+.4f}" for gap in gaps]
        print(f"seed {seed}: donor {parts[0]} ({low[0]}), acceptor {parts[1]} ({low[1]})")
    lines = [*shown(reports, STACK)]
    for system in (OF_ALL, OF_TWO, BOOSTED):
        if system in found[0]:
            lines += shown([compared(store, found[0], system)], system)
    print("\n".join(lines), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("real", type=Path)
    parser.add_argument("--bases", default="+".join(BASES), help="names, with + between")
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=LABELS)
    parser.add_argument("--genes", nargs="+", choices=GENES, default=GENES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--boosted", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    bases = bases_of(given.bases)
    has = [
        chrom
        for chrom in (*CHROMS, TEST)
        if all((given.real / "nucleotide_scores" / f"{base}_chr{chrom}.parquet").is_file() for base in bases)
    ]
    chosen = [chrom for chrom in has if chrom != TEST]
    with tempfile.TemporaryDirectory() as name:
        stores = {}
        wanted = {"nested": chosen, "chr3": [TEST], "all": has}
        for where, chroms in wanted.items():
            if where in given.genes or (where == "nested" and "chr3" in given.genes):
                stores[where] = store_of(given.real, bases, chroms, Path(name))
        for labels in given.labels:
            for store in stores.values():
                store.labels = labels
            for where in given.genes:
                store, started = stores[where], time.process_time()
                if where == "chr3":
                    train = sorted(stores["nested"].genes())
                    seeds = given.seeds[:1] if len(bases) > 1 else given.seeds
                    found = [answers(stores["nested"], train, store, sorted(store.genes()), seed) for seed in seeds]
                else:
                    seeds = given.seeds
                    found = [out_of_fold(store, seed, given.boosted and seed == seeds[0]) for seed in seeds]
                title = f"{labels} labels, {where} (chromosomes {', '.join(wanted[where])})"
                show(title, store, found, seeds)
                print(f"   {time.process_time() - started:.0f} s of CPU", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
