"""`python -m benchmarks.stacking DIR`: three base models joined, by nested cross-validation over real genes.

DIR is a folder like `../shared/real`. Every gene is answered by a stack that was fitted, penalty included, to the genes
of the other four fifths of the gene clusters; three draws of the folds. Beside it the best single base, the untrained
means, and for the first draw a boosted model of the same features (scikit-learn, monotone in what each base says of the
class itself) averaged with the mean in log-odds. Labels: all isoforms' sites, principal ones with other isoforms'
ignored, and principal ones alone. Takes half an hour on a busy core, so `make bench` leaves it out.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
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
from metalayer.schema import MARK_COLUMNS, NEITHER, SITE_KINDS, SPLICED_SCORE
from metalayer.settings.sections import EvaluateConfig
from metalayer.training.stacking import fit_stack
from metalayer.workflows.merge_scores import merge_scores

BASES = ("openspliceai_10000", "pangolin", "spliceai")
BEST = "openspliceai_10000"
OUTER, SEEDS = 5, (1, 2, 3)
LABELS = ("all isoforms", "principal, others ignored", "principal")
SYSTEMS = ("stack", "boosted", "mean of three", "mean of two")
Scores = dict[str, dict[str, NDArray[np.float32]]]
"""By system, by gene."""


def merged(real: Path, chrom: str, folder: Path, labels: str) -> Path:
    """The three base models side by side on the genes of a chromosome, with marks of isoforms."""
    isoforms = pl.read_parquet(real / "isoforms.parquet").select("gene_id", "position", pl.col("site").alias("other"))
    isoforms = isoforms.sort("other", descending=True).unique(
        ["gene_id", "position"], keep="first", maintain_order=True
    )
    given = []
    for base in BASES:
        frame = pl.read_parquet(real / "nucleotide_scores" / f"{base}_chr{chrom}.parquet")
        if base == "pangolin":
            tissues = frame.select(pl.mean_horizontal("heart", "liver", "brain", "testis")).to_series()
            frame = pl.read_parquet(real / "nucleotide_scores" / f"{BEST}_chr{chrom}.parquet")
            frame = frame.drop("donor_score", "acceptor_score", "neither_score")
            frame = frame.with_columns(tissues.cast(pl.Float32).alias(SPLICED_SCORE))
        frame = frame.with_columns(pl.col("gene_id", "label").cast(pl.String), pl.col("position").cast(pl.Int64))
        frame = frame.join(isoforms, on=["gene_id", "position"], how="left", maintain_order="left")
        is_site, is_other = pl.col("label") != "neither", pl.col("other").is_not_null()
        kind = pl.when(is_site).then(pl.lit(SITE_KINDS[1])).when(is_other).then(pl.lit(SITE_KINDS[2]))
        frame = frame.with_columns(
            kind.otherwise(pl.lit(SITE_KINDS[0])).alias(MARK_COLUMNS[0]),
            pl.lit(-1, pl.Int32).alias(MARK_COLUMNS[1]),
            ignored=(~is_site & is_other) if labels == LABELS[1] else pl.lit(False),
        )
        if labels == LABELS[0]:
            frame = frame.with_columns(
                pl.when(is_site).then("label").otherwise(pl.col("other").fill_null("neither")).alias("label")
            )
        path = folder / f"{base}-{chrom}.parquet"
        frame.drop("other").write_parquet(path)
        given.append((base, path))
    merge_scores(given, folder / f"merged-{chrom}.parquet")
    return folder / f"merged-{chrom}.parquet"


def answers(store: TrackStore, train: Sequence[str], test: Sequence[str], seed: int) -> Scores:
    """What each system says of the genes to test on, by the genes to train on."""
    genes = store.genes()
    groups = united(train, related(genes[gene_id] for gene_id in train))
    fitted = fit_stack(store, train, groups, seed)
    boosted = boost(store, train, seed) if seed == SEEDS[0] else None
    found: Scores = {name: {} for name in SYSTEMS}
    for track in store.read_many(list(test)):
        gene_id, bases = track.gene.gene_id, track.bases
        found["stack"][gene_id] = fitted.stack.scores(bases)
        found["mean of three"][gene_id] = track.scores
        found["mean of two"][gene_id] = untrained_mean({name: bases[name] for name in BASES[:2]})
        if boosted:
            found["boosted"][gene_id] = averaged(track, boosted)
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


def compared(store: TrackStore, found: Scores, gene_ids: Sequence[str], system: str, ignoring: bool) -> dict[str, Any]:
    genes = []
    for track in store.read_many(list(gene_ids)):
        gene = track.gene
        scores = {"base": track.bases[BEST]} | {name: of[gene.gene_id] for name, of in found.items()}
        rest = (gene, track.paralog, None, gene.gene_id, track.ignored, track.alternative)
        genes.append(GeneScores(gene.gene_id, gene.interval.chrom, track.labels, scores, *rest))
    scored = PrincipalLabels(genes) if ignoring else genes
    return evaluate(scored, EvaluateConfig(), candidate=system)


def gains(report: Mapping[str, Any], against: str) -> str:
    gaps = report["difference"] if against == "base" else report["differences"][against]
    parts = []
    for metric in ("ap_donor", "ap_acceptor"):
        gap = gaps[metric]
        parts.append(f"{report[against][metric]:.4f} {gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]")
    return "  ".join(parts)


def more(report: Mapping[str, Any], system: str) -> str:
    wanted = {
        "false donors/Mb, recall .95": "false_per_mb_at_recall95_donor",
        "false acceptors/Mb, recall .95": "false_per_mb_at_recall95_acceptor",
        "log-loss a site": "log_loss_per_site",
    }
    parts = [f"{text} {report['base'][name]:.3f} -> {report[system][name]:.3f}" for text, name in wanted.items()]
    return "; ".join(parts)


def stores_of(real: Path, chroms: Sequence[str], folder: Path, labels: str) -> TrackStore:
    own = folder / labels.replace(" ", "-")
    own.mkdir(exist_ok=True)
    paths = [merged(real, chrom, own, labels) for chrom in chroms]
    return ScoreFile.read(paths, own / f"canonical-{'-'.join(chroms)}.parquet", {}, base_model="+".join(BASES)).store


def main() -> int:
    logging.disable(logging.WARNING)
    real = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for labels in LABELS:
            store = stores_of(real, ("1", "5", "7"), folder, labels)
            genes = store.genes()
            groups = united(genes, related(genes.values()))
            print(
                f"\n{labels}: {len(genes)} genes of chr1, chr5, chr7 in {len(groups)} clusters, out of fold", flush=True
            )
            print("system (seed), against: donor AP of that, gain; acceptor AP of that, gain", flush=True)
            for seed in SEEDS:
                order = np.random.default_rng(seed).permutation(len(groups))
                found: Scores = {system: {} for system in SYSTEMS}
                for fold in range(OUTER):
                    test = [gene_id for place in order[fold::OUTER] for gene_id in groups[place]]
                    train = sorted(genes.keys() - set(test))
                    for system, scores in answers(store, train, sorted(test), seed).items():
                        found[system] |= scores
                found = {system: of for system, of in found.items() if of}
                for system in SYSTEMS if seed == SEEDS[0] else SYSTEMS[:1]:
                    report = compared(store, found, sorted(genes), system, ignoring=labels == LABELS[1])
                    print(f"{system} ({seed}), base: {gains(report, 'base')}")
                    if system == "stack":
                        print(f"{system} ({seed}), mean of two: {gains(report, 'mean of two')}")
                        print(f"   {more(report, system)}", flush=True)
            test_store = stores_of(real, ("3",), folder, labels)
            everything = answers_elsewhere(store, test_store)
            report = compared(test_store, everything, sorted(test_store.genes()), "stack", labels == LABELS[1])
            print(f"chr3, stack of all of these, base: {gains(report, 'base')}")
            print(
                f"chr3, stack of all of these, mean of two: {gains(report, 'mean of two')}\n   {more(report, 'stack')}"
            )
    return 0


def answers_elsewhere(store: TrackStore, test: TrackStore) -> Scores:
    """As `answers`, of genes of another store, without the boosted model."""
    train = sorted(store.genes())
    fitted = fit_stack(store, train, united(train, related(store.genes().values())), SEEDS[0])
    found: Scores = {"stack": {}, "mean of two": {}}
    for track in test.read_many(sorted(test.genes())):
        found["stack"][track.gene.gene_id] = fitted.stack.scores(track.bases)
        found["mean of two"][track.gene.gene_id] = untrained_mean({name: track.bases[name] for name in BASES[:2]})
    return found


if __name__ == "__main__":
    sys.exit(main())
