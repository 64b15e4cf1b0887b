"""Calibration of a trained model on the validation part: shrinkage factors, scale and bias, by way of asking."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.loaders import RowPart
from metalayer.data.tracks import TrackStore
from metalayer.data.variant_weights import VariantWeights
from metalayer.errors import SplitError
from metalayer.evaluation.calibration import (
    Calibration,
    Corrections,
    Labelled,
    beyond_chance,
    fit,
    fit_parts,
    mixed,
)
from metalayer.evaluation.columns import Columns
from metalayer.inference import Predictor
from metalayer.inference.torch_network import base_probabilities
from metalayer.schema import CLASSES, POSITIONS, ROWS, WAYS
from metalayer.training.parts import Part

logger = logging.getLogger(__name__)

_BASE, _MODEL, _LABELS = "base", "model", "labels"


def calibrate(
    predictor: Predictor, valid: Part, weights: VariantWeights | None = None, *, also: Part | None = None
) -> dict[str, dict[str, Any]]:
    """Calibrate on all positions of the validation genes; on their rows where none has per-nucleotide scores.

    Args:
        predictor: of the model, which gets the calibration.
        valid: the validation part.
        weights: what they make doubtful is left out.
        also: further genes with per-nucleotide scores, where answers for them are as honest.

    Returns:
        As of `calibrate_on_genes`.

    Raises:
        SplitError: a part with neither.
    """
    tracked = valid.tracked()
    if valid.store is not None and tracked:
        more = [(also.store, also.tracked())] if also and also.store else []
        return calibrate_on_genes(predictor, valid.store, tracked, weights, more)
    if valid.rows is None:
        raise SplitError("the validation part has neither per-nucleotide scores nor rows to calibrate on")
    return calibrate_on_rows(predictor, valid.rows, weights)


def calibrate_on_genes(
    predictor: Predictor,
    store: TrackStore,
    gene_ids: Sequence[str],
    weights: VariantWeights | None = None,
    more: Sequence[tuple[TrackStore, Sequence[str]]] = (),
) -> dict[str, dict[str, Any]]:
    """Fit shrinkage factors and calibration on all positions of validation genes, and put them into the model.

    Each way of asking that the network answers on a path of its own is fitted alone: rows, where they do without the
    scores around a position, on the same positions with those masked. Answers that no correction is left of are the
    base's, and recalibrated only where that is `beyond_chance`.

    Args:
        predictor: of the model.
        store: per-nucleotide scores with letters.
        gene_ids: the validation genes that are there.
        weights: doubtful positions of these are left out, as are ignored ones.
        more: further stores and their genes.

    Returns:
        By way of asking: shrinkage (donor, acceptor), scale, bias, what they were fitted on, how many were left out of
        it, and the reason where they change nothing. JSON-ready.
    """
    sources = [(store, gene_ids), *more]
    ids = [gene_id for _, some in sources for gene_id in some]
    doubtful = weights.doubtful("positions", ids) if weights else {}
    found = {way: _fitted_on_genes(predictor, sources, way, doubtful) for way in predictor.ways_of_asking}
    return {way: found.get(way, found[POSITIONS]) for way in WAYS}


def _fitted_on_genes(
    predictor: Predictor,
    sources: Sequence[tuple[TrackStore, Sequence[str]]],
    way: str,
    doubtful: Mapping[str, NDArray[np.int64]],
) -> dict[str, Any]:
    count = sum(len(gene_ids) for _, gene_ids in sources)
    logger.info("calibrating answers for %s on all positions of %d validation genes", way, count)
    corrections, left_out = Corrections(), 0
    scores = (np.float32, (len(CLASSES),))
    genes = Columns({_BASE: scores, _MODEL: scores, _LABELS: (np.uint8, ())})
    for track in (track for store, gene_ids in sources for track in store.read_many(list(gene_ids))):
        gene_id = track.gene.gene_id
        out = np.union1d(doubtful.get(gene_id, []), track.ignored).astype(np.int64)
        log_p = np.delete(predictor.log_probabilities(track, way), out, axis=0)
        log_base = np.delete(np.log(base_probabilities(track.scores)), out, axis=0)
        labels = np.delete(track.labels, out)
        corrections.add(log_base, log_p, labels)
        genes.append(**{_BASE: log_base, _MODEL: log_p, _LABELS: labels})
        left_out += len(out)
    shrinkage = corrections.shrinkage_factors()
    predictor.model.calibrator(way).set_shrinkage(*shrinkage)
    for number in range(len(genes)):
        shrunk = mixed(genes.read(_BASE, number), genes.read(_MODEL, number), shrinkage)
        genes.replace(_MODEL, number, np.exp(shrunk))

    def probabilities() -> Iterator[Labelled]:
        return ((genes.read(_MODEL, number), genes.read(_LABELS, number), None) for number in range(len(genes)))

    calibration = fit_parts(probabilities)
    if not calibration.reason and not any(shrinkage) and not beyond_chance(calibration, probabilities()):
        calibration = Calibration(reason="answers are the base's, which the validation genes do not show to be off")
    return _put(predictor, way, calibration, "positions", left_out, shrinkage)


def calibrate_on_rows(
    predictor: Predictor, part: RowPart, weights: VariantWeights | None = None
) -> dict[str, dict[str, Any]]:
    """Fit the calibration of a model on validation rows and put it into the model.

    Where the model reads the scores around a position, which rows do not carry, its answers for positions stay
    uncalibrated, and that is said.

    Args:
        predictor: of the model.
        part: the validation rows.
        weights: doubtful rows of these are left out.

    Returns:
        As in `calibrate_on_genes`.
    """
    table, rows = part.table, part.rows
    logger.info("calibrating on %d validation rows", len(rows))
    log_p = predictor.row_log_probabilities(table.features[rows], table.windows[rows])
    doubtful = np.zeros(len(rows), dtype=bool)
    if weights:
        places = table.frame.select("gene_id", pl.col("position").cast(pl.Int64))[rows]
        found = weights.doubtful("rows", places["gene_id"].unique().to_list())
        for gene_id, at in found.items():
            doubtful |= (places["gene_id"] == gene_id).to_numpy() & np.isin(places["position"].to_numpy(), at)
    calibration = fit(np.exp(log_p), table.labels[rows], np.where(doubtful, 0.0, part.in_genes))
    fitted = _put(predictor, ROWS, calibration, "rows", int(doubtful.sum()))
    if not predictor.masks_rows:
        return dict.fromkeys(WAYS, fitted)
    logger.warning("no validation gene has per-nucleotide scores: answers for positions are not calibrated")
    return {POSITIONS: _put(predictor, POSITIONS, Calibration(), "nothing", 0), ROWS: fitted}


def _put(
    predictor: Predictor,
    way: str,
    calibration: Calibration,
    unit: str,
    left_out: int,
    shrinkage: Sequence[float] = (1.0, 1.0),
) -> dict[str, Any]:
    predictor.model.calibrator(way).set_calibration(calibration.scale, calibration.bias)
    return {
        "shrinkage": list(shrinkage),
        "scale": calibration.scale,
        "bias": list(calibration.bias),
        "fitted_on": unit,
        "left_out": left_out,
        "reason": calibration.reason,
    }
