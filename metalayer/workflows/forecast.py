"""What a run on a user's data could show, and how long it would take, measured on some of the genes beforehand."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.crops import GeneArrays
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.errors import MetalayerError
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.tables import resolution_note
from metalayer.gene_groups import related
from metalayer.inference.torch_network import base_probabilities
from metalayer.schema import DONOR, NEITHER, bases_of
from metalayer.settings.sections import EvaluateConfig
from metalayer.training.parts import Part, TrainingParts
from metalayer.workflows.own_data import Plan

MOST_POSITIONS = 50_000_000
"""Of all genes; with more, reading them alone takes minutes, and nothing is measured."""
SHAKEN = 0.5
"""Standard deviation, in log-odds, of the changes by which a model is imitated."""
_TIMED_GENES, _TESTED_GENES, _ASKED_FROM = 8, 400, 1e-3


def forecast(plan: Plan, folder: Path | None = None) -> list[str]:
    """Measure on some genes.

    Args:
        plan: of whole genes; of others nothing is measured.
        folder: for what is read meanwhile; None for the usual one.

    Returns:
        Lines for a person: what gain the test genes could show, and what an epoch and the run take.
    """
    if not plan.genes.whole or plan.genes.positions > MOST_POSITIONS:
        return []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tracks = Path(scratch) / "tracks.parquet"
        tested, trained = _parts(plan)
        chosen = set(tested[:_TESTED_GENES]) | set(trained[:_TIMED_GENES])
        write_tracks(
            plan.base.scores, tracks, plan.genes.genes, pl.DataFrame, only=chosen, base_models=bases_of(plan.base.name)
        )
        store = TrackStore(tracks)
        return [*_gain(store, tested[:_TESTED_GENES], plan), *_time(store, trained, plan)]


def _parts(plan: Plan) -> tuple[list[str], list[str]]:
    """Ids of genes with sites to test on and to train on, in the order of a draw that is the same each time."""
    ids = sorted(gene_id for gene_id, sites in plan.genes.sites.items() if any(sites))
    np.random.default_rng(0).shuffle(ids)
    tested, trained = ([one for one in ids if plan.parts.get(one) == part] for part in ("test", "train"))
    return tested, trained


def _gain(store: TrackStore, tested: list[str], plan: Plan) -> list[str]:
    rng = np.random.default_rng(0)
    genes = []
    for track in store.read_many(tested):
        base = base_probabilities(track.scores)
        scores = {"base": base, "meta": _shaken(base, rng)}
        place = track.gene
        genes.append(
            GeneScores(place.gene_id, place.interval.chrom, track.labels, scores, place, ignored=track.ignored)
        )
    try:
        report = evaluate(
            genes,
            EvaluateConfig(n_bootstrap=200),
            unit="positions",
            related_genes=related(plan.genes.genes[one.gene_id] for one in genes),
        )
    except MetalayerError as error:
        return [f"gain          {error}"]
    return [
        f"gain          {resolution_note(report)} (estimated: a model that changes log-odds by {SHAKEN:g}; donor AP of "
        f"the base {report['base']['ap_donor']:.3f}, acceptor AP {report['base']['ap_acceptor']:.3f})"
    ]


def _shaken(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Probabilities whose log-odds are changed at random where the base sees a site at all."""
    out = base.astype(np.float64)
    at = np.flatnonzero(base[:, :NEITHER].max(axis=1) >= _ASKED_FROM)
    out[at, DONOR:NEITHER] *= np.exp(rng.normal(0.0, SHAKEN, (len(at), NEITHER)))
    out[at] /= out[at].sum(axis=1, keepdims=True)
    return out.astype(np.float32)


def _time(store: TrackStore, trained: list[str], plan: Plan) -> list[str]:
    """An epoch on some genes, times all; a stack alone has none."""
    from metalayer.models.meta import build_model
    from metalayer.training.trainer import Trainer

    config = plan.config()
    some = [gene_id for gene_id in trained[:_TIMED_GENES] if gene_id in store]
    if not some or config.model.head == "stack":
        return []
    model = build_model(config.model, config.data.evidence)
    part = Part(some, store)
    loader, valid = TrainingParts(part, part).loaders(model, config.train, None)
    trainer = Trainer(model, loader, valid, config.train)
    began = time.monotonic()
    trainer.train_on(loader)
    seconds = time.monotonic() - began
    positions = len(GeneArrays.read(store, some))
    share = sum(len(plan.genes.genes[one]) for one in trained) / positions
    epoch = seconds * share
    return [
        f"time          about {_clock(epoch)} an epoch on this machine, at most {config.train.max_epochs} epochs: "
        f"{_clock(epoch * config.train.max_epochs)} (measured on {len(some)} genes)"
    ]


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
