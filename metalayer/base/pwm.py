"""The built-in base model: the classical position weight matrix of splice sites.

Letter frequencies around vertebrate donors (-3 to +6) and acceptors (-14 to +1) in the manner of
Shapiro and Senapathy (Nucleic Acids Res. 1987, 15:7155), in rounded per cent. A site's score is its
log-odds against a uniform background; with a prior it becomes a probability over donor, acceptor and
neither. It knows nothing of branch points, exonic enhancers or anything else beyond these few letters,
so its errors are real ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metalayer.base.origin import Origin
from metalayer.errors import ConfigError
from metalayer.genome import encode
from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR, NEITHER

# Per cent of A, C, G, T. Donor: positions -3 -2 -1 (exon) +1 .. +6 (intron).
_DONOR_PERCENT = (
    (33, 37, 18, 12),
    (59, 13, 14, 14),
    (9, 4, 80, 7),
    (0, 0, 100, 0),
    (0, 0, 0, 100),
    (53, 3, 42, 2),
    (71, 8, 12, 9),
    (7, 6, 81, 6),
    (16, 17, 21, 46),
)
# Acceptor: positions -14 .. -1 (intron) +1 (exon).
_ACCEPTOR_PERCENT = (
    (11, 29, 14, 46),
    (11, 33, 12, 44),
    (10, 30, 11, 49),
    (9, 31, 10, 50),
    (10, 33, 10, 47),
    (10, 34, 11, 45),
    (9, 36, 10, 45),
    (9, 37, 8, 46),
    (7, 38, 7, 48),
    (8, 36, 6, 50),
    (24, 28, 23, 25),
    (4, 67, 1, 28),
    (100, 0, 0, 0),
    (0, 0, 100, 0),
    (27, 15, 47, 11),
)
_FLOOR = 1e-3  # non-GT and non-AG sites exist, and the logarithm needs more than 0
EXON_LETTERS = {DONOR: 3, ACCEPTOR: 1}
"""How many letters of the motif lie in the exon."""


def _frequencies(percent: tuple[tuple[int, ...], ...]) -> NDArray[np.float64]:
    table = np.maximum(np.array(percent, dtype=np.float64) / 100.0, _FLOOR)
    table /= table.sum(axis=1, keepdims=True)
    return table


SITE_FREQUENCIES: dict[int, NDArray[np.float64]] = {
    DONOR: _frequencies(_DONOR_PERCENT),
    ACCEPTOR: _frequencies(_ACCEPTOR_PERCENT),
}
"""Letter frequencies by class, float64 (motif length, 4), transcript sense."""


def log_odds(site_class: int) -> NDArray[np.float64]:
    """Natural log-odds of a motif's letters against a uniform background, float64 (length, 5); N is 0."""
    frequencies = SITE_FREQUENCIES[site_class]
    return np.concatenate([np.log(frequencies / 0.25), np.zeros((len(frequencies), 1))], axis=1)


class PwmModel:
    """Scores each base as donor and acceptor by its surrounding letters alone."""

    name = "pwm"
    columns = BASE_SCORES
    origin = Origin(
        licence=None, trained_on="published letter frequencies of vertebrate splice sites", unseen_chroms=None
    )
    # The exon base is the last but 6 letter of a donor motif and the last of an acceptor motif.
    flank_bp = max(len(SITE_FREQUENCIES[ACCEPTOR]) - 1, len(SITE_FREQUENCIES[DONOR]) - EXON_LETTERS[DONOR])

    def __init__(self, prior: float = 1.5e-3) -> None:
        """Build the scorer.

        Args:
            prior: share of positions that are donors, and of those that are acceptors, before the
                letters are seen.

        Raises:
            ConfigError: a prior outside (0, 0.5).
        """
        if not 0.0 < prior < 0.5:
            raise ConfigError(f"base model 'pwm': prior {prior!r}; needs a share of positions between 0 and 0.5")
        self.prior = prior

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> NDArray[np.float32]:
        """Probabilities at exon bases, float32 (L, 3); see `BaseModel.score`."""
        flank, length = self.flank_bp, len(sequence)
        before = upstream[-flank:].rjust(flank, "N")
        after = downstream[:flank].ljust(flank, "N")
        tokens = encode(before + sequence + after)
        logits = np.empty((length, len(CLASSES)))
        for site_class in (DONOR, ACCEPTOR):
            table = log_odds(site_class)
            first = flank - (EXON_LETTERS[site_class] - 1 if site_class == DONOR else len(table) - 1)
            total = np.full(length, np.log(self.prior))
            for offset, column in enumerate(table):
                total += column[tokens[first + offset : first + offset + length]]
            logits[:, site_class] = total
        logits[:, NEITHER] = np.log1p(-2.0 * self.prior)
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        result: NDArray[np.float32] = probabilities.astype(np.float32)
        return result
