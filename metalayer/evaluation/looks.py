"""How often a test set has decided, and how much wider the interval is for that.

Each model that is judged on the same genes is another chance that one which is no better than its base is lucky on
them. The n-th has alpha / (1 + log2 n) instead of alpha. That is less than half of what nothing would let through (52
models that equal their base, judged independently: 27 % for one to pass within the year at 95 %, instead of 73 %) and
it does not lock as alpha / n would: at the 52nd the interval is 1.36 times as wide as at the first, and a gain that
shows at all still shows. What is promised is this rule, not an error rate over years: a report says how often its test
set has decided, and other test genes (`split.test_chroms`) begin at 1 again.

Only comparisons with the base are widened. Against champions luck is paid for already: who had it is the next one to
beat on the same genes, and widening that as well soon stops all promotions (`tests/test_year.py` simulates a year).
"""

from __future__ import annotations

import math


def widened(confidence: float, looks: int) -> float:
    """Coverage of the interval of the `looks`-th decision on a test set, the first of which has `confidence`."""
    return 1.0 - (1.0 - confidence) / (1.0 + math.log2(max(looks, 1)))
