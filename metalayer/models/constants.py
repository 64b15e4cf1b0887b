"""Fixed numbers of the network, with which the weights of a model directory were learned; no torch."""

from __future__ import annotations

from metalayer.genome import encode

FEATURE_CLIP = 8.0
"""Normalised features are clipped to +-FEATURE_CLIP: nothing far outside the training rows takes over."""

ATTENTION_REACH_BP = 16
"""Bases on either side of the labelled one that cross attention sees: the splice-site motif on both
sides of the junction, most of a polypyrimidine tract."""
ATTENTION_HEADS, ATTENTION_HEAD_DIM = 4, 16
"""Of cross attention."""

PROBABILITY_SCALE = 4.0
"""Of base probabilities, as the track encoder reads them."""
LOG_ODDS_SHIFT, LOG_ODDS_LIMIT, LOG_ODDS_SCALE = 8.0, 16.0, 0.25
"""Log-odds of a class against neither, shifted and clipped to [0, 16]: odds from e^-8 to e^8 stay different."""
LOG_ODDS_CENTRE = 2.0
"""Scaled log-odds of even odds: subtracted from the maxima."""
TRACK_FLOOR = 1e-10
"""Scores of the tracks below this count as this before the logarithm."""
TRACK_WIDTH_BP = 11
"""Of the convolution of a stage of the track encoder."""

HEXAMER = 6
CODING_WINDOWS = (40, 120)
"""Hexamers whose mean is taken, on either side."""
CODING_SCALE = 4.0
"""Of these means."""
OPEN_BP = 600
"""Bases without a stop codon count up to here."""
STOP_CODONS = tuple(tuple(encode(codon).tolist()) for codon in ("TAA", "TAG", "TGA"))
CODING_REACH_BP, CODING_CHANNELS = OPEN_BP + 2, 2 * len(CODING_WINDOWS) + 2
"""Letters that the signals of a base read on either side, and how many signals there are."""
