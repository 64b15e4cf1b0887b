"""Calibration of a trained model on the validation part: shrinkage factors, scale and bias, by way of asking."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.loaders import RowPart
from metalayer.data.tracks import TrackStore
from metalayer.data.variant_weights import VariantWeights
from metalayer.errors import SplitError
from metalayer.evaluation.calibration import Calibration, beyond_chance, fit, mixed, shrinkage_factors
from metalayer.inference import Predictor
from metalayer.inference.predictor import base_probabilities
from metalayer.schema import POSITIONS, ROWS, WAYS
from metalayer.training.parts import Part

logger = logging.getLogger(__name__)


def calibrate(predictor: Predictor, valid: Part, weights: VariantWeights | None = None) -> dict[str, dict[str, Any]]:
    """Calibrate on all positions of the validation genes; on their rows where none has per-nucleotide scores.

    Args:
        predictor: of the model, which gets the calibration.
        valid: the validation part.
        weights: what they make doubtful is left out.

    Returns:
        As of `calibrate_on_genes`.

    Raises:
        SplitError: a part with neither.
    """
    tracked = valid.tracked()
    if valid.store is not None and tracked:
        return calibrate_on_genes(predictor, valid.store, tracked, weights)
    if valid.rows is None:
        raise SplitError("the validation part has neither per-nucleotide scores nor rows to calibrate on")
    return calibrate_on_rows(predictor, valid.rows, weights)


def calibrate_on_genes(
    predictor: Predictor, store: TrackStore, gene_ids: Sequence[str], weights: VariantWeights | None = None
) -> dict[str, dict[str, Any]]:
    """Fit shrinkage factors and calibration on all positions of validation genes, and put them into the model.

    Each way of asking that the network answers on a path of its own is fitted alone: rows, where they do without the
    scores around a position, on the same positions with those masked. Answers that no correction is left of are the
    base's, and recalibrated only where that is `beyond_chance`.

    Args:
        predictor: of the model.
        store: per-nucleotide scores with letters.
        gene_ids: the validation genes that are there.
        weights: doubtful positions of these are left out, as are those that another gene labels differently.

    Returns:
        By way of asking: shrinkage (donor, acceptor), scale, bias, what they were fitted on, how many were left out of
        it, and the reason where they change nothing. JSON-ready.
    """
    ways = WAYS if predictor.masks_rows else (POSITIONS,)
    doubtful = weights.doubtful("positions", gene_ids) if weights else {}
    found = {way: _fitted_on_genes(predictor, store, gene_ids, way, doubtful) for way in ways}
    return {way: found.get(way, found[POSITIONS]) for way in WAYS}


def _fitted_on_genes(
    predictor: Predictor,
    store: TrackStore,
    gene_ids: Sequence[str],
    way: str,
    doubtful: Mapping[str, NDArray[np.int64]],
) -> dict[str, Any]:
    logger.info("calibrating answers for %s on all positions of %d validation genes", way, len(gene_ids))
    answers, bases, labels, left_out = [], [], [], 0
    for track in store.read_many(list(gene_ids)):
        gene_id = track.gene.gene_id
        out = np.union1d(doubtful.get(gene_id, []), store.contradicted(gene_id)).astype(np.int64)
        answers.append(np.delete(predictor.log_probabilities(track, way), out, axis=0))
        bases.append(np.delete(np.log(base_probabilities(track.scores)), out, axis=0))
        labels.append(np.delete(track.labels, out))
        left_out += len(out)
    log_p, log_base, truth = np.concatenate(answers), np.concatenate(bases), np.concatenate(labels)
    genes = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])
    shrinkage = shrinkage_factors(log_base, log_p, truth, genes)
    predictor.model.calibrator(way).set_shrinkage(*shrinkage)
    probabilities = np.exp(mixed(log_base, log_p, shrinkage))
    calibration = fit(probabilities, truth)
    if not calibration.reason and not any(shrinkage) and not beyond_chance(calibration, probabilities, truth, genes):
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
