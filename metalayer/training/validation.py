"""Figures of one validation: loss and average precisions of answers that come batch by batch, none of them held.

Average precision needs the scores of the true sites before anything can be counted, so answers wait on disk: 13 bytes a
row or position.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metalayer.errors import TrainingError
from metalayer.evaluation.columns import Columns
from metalayer.evaluation.metrics import Floats, ap_name, splice_score
from metalayer.evaluation.ranks import WeightedRanks
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

_LOG_P, _LABELS, _WEIGHTS = "log_p", "labels", "weights"
_TARGETS = {"splice": (DONOR, ACCEPTOR), "donor": (DONOR,), "acceptor": (ACCEPTOR,)}


class Validation:
    """Adds up what a model answers."""

    def __init__(self) -> None:
        self._answers = Columns({_LOG_P: (np.float32, (NEITHER,)), _LABELS: (np.uint8, ()), _WEIGHTS: (np.float32, ())})
        self._sites = [np.empty((0, len(CLASSES)))]
        self._loss = self._weight = 0.0

    def add(self, log_p: Tensor, labels: Tensor, losses: Tensor, weights: Tensor) -> None:
        """Count answers.

        Args:
            log_p: float32 (n, C).
            labels: int64 (n,).
            losses: float32 (n,), -log P(true class).
            weights: float32 (n,), above 0.

        Raises:
            TrainingError: probabilities that are no numbers.
        """
        probabilities = log_p.double().exp()
        if not torch.isfinite(probabilities).all():
            raise TrainingError(
                "the model gives probabilities that are no numbers; check the features, or lower train.learning_rate"
            )
        weight = weights.double()
        self._loss += float((losses.double() * weight).sum())
        self._weight += float(weight.sum())
        is_site = labels != NEITHER
        self._sites.append(np.column_stack([probabilities[is_site][:, :NEITHER].numpy(), labels[is_site].numpy()]))
        self._answers.append(**{_LOG_P: log_p[:, :NEITHER].numpy(), _LABELS: labels.numpy(), _WEIGHTS: weights.numpy()})

    def figures(self) -> dict[str, float]:
        """Of all answers: val_loss, val_pr_auc_splice, val_ap_donor, val_ap_acceptor, val_ap_splice.

        Raises:
            EvaluationError: no donor or no acceptor.
        """
        sites = np.concatenate(self._sites)
        labels = sites[:, NEITHER]
        ranks = {
            target: WeightedRanks.of(_score(sites[np.isin(labels, classes)], classes))
            for target, classes in _TARGETS.items()
        }
        for number in range(len(self._answers)):
            found = torch.from_numpy(self._answers.read(_LOG_P, number)).double().exp().numpy()
            truth, weights = (self._answers.read(name, number) for name in (_LABELS, _WEIGHTS))
            for target, classes in _TARGETS.items():
                ranks[target].add(np.isin(truth, classes), _score(found, classes), weights.astype(np.float64))
        out = {"val_loss": self._loss / self._weight}
        out |= {f"val_{ap_name(target)}": one.average_precision() for target, one in ranks.items()}
        return out | {"val_ap_splice": (out["val_ap_donor"] + out["val_ap_acceptor"]) / 2}


def _score(probabilities: Floats, classes: tuple[int, ...]) -> Floats:
    """Of one class or of both, (n, 2 or more) to (n,)."""
    return probabilities[:, classes[0]] if len(classes) == 1 else splice_score(probabilities)
