"""SpliceAI 1.3.1's numbers, faults and all, for those who must compare: `--as spliceai`.

Known faults, kept here on purpose: zeros that slide over bases that stay where more than the distance is deleted; one
number for the anchor and all letters inserted behind it; a mask after the maximum that looks at the nearest edge of any
exon alone; letters that are none read as bases; a record at either end of a contig skipped; replacements of several
letters by several without a number; `-0.00`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metalayer.base.haplotypes import Scores, Tokens
from metalayer.genome import N_TOKEN, token_table
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.variants.definition import Change, Effect
from metalayer.variants.genes import GeneSites

_SKIPPED_LETTERS = frozenset(".-*<>")


def _aliases() -> NDArray[np.uint8]:
    """Byte to token: A, C, G and T by themselves, any other byte by its value modulo 5, of which 0 is N."""
    known = token_table()
    found = (np.arange(256) % 5 + N_TOKEN) % 5
    for letter in b"acgtn":
        found[letter - 32] = known[letter]
    lower = np.arange(ord("a"), ord("z") + 1)
    found[lower] = found[lower - 32]
    return found.astype(np.uint8)


_ALIASES = _aliases()


def tokens_as(letters: bytes, *, aliased: bool) -> Tokens:
    """Letters as the peers read them, uint8 (n,).

    Args:
        letters: as they stand.
        aliased: other letters are some base, as in SpliceAI; else N, as in OpenSpliceAI.
    """
    table = _ALIASES if aliased else np.where(token_table() > N_TOKEN, N_TOKEN, token_table()).astype(np.uint8)
    return table[np.frombuffer(letters, dtype=np.uint8)]


def passed_over(alt: str) -> bool:
    """Whether an ALT gets no entry, without a word."""
    return not _SKIPPED_LETTERS.isdisjoint(alt)


def is_numberless(ref: str, alt: str) -> bool:
    """Whether an ALT gets an entry with dots in place of numbers."""
    return len(ref) > 1 and len(alt) > 1


def span(position: int, ref: str, distance: int) -> tuple[int, int]:
    """Positions [start, end), 0-based, whose probabilities `effect_as` needs of the reference and what it loses."""
    return position - distance, max(position + distance, position + len(ref) - 1) + 1


def effect_as(
    reference: Scores,
    alternative: Scores,
    sites: GeneSites,
    position: int,
    ref: str,
    alt: str,
    distance: int,
    *,
    mask: bool,
) -> Effect:
    """The four changes, of which scores may be negative.

    Args:
        reference: float32 (n, 3), positions of `span` in genome order.
        alternative: float32 (n - len(ref) + len(alt), 3), likewise.
        sites: of the gene.
        position: 0-based POS as it is written.
        ref: as it is written.
        alt: likewise.
        distance: positions to either side.
        mask: as the peers' `-M 1`.
    """
    width, deleted = 2 * distance + 1, max(len(ref) - len(alt), 0)
    y, x = reference[:width], alternative[: width - len(ref) + len(alt)]
    if len(ref) > 1:
        kept = distance + len(alt)
        x = np.concatenate([x[:kept], np.zeros((deleted, x.shape[1]), np.float32), x[kept:]])
    elif len(alt) > 1:
        behind = distance + len(alt)
        x = np.concatenate([x[:distance], x[distance:behind].max(axis=0, keepdims=True), x[behind:]])
    nearest = sites.edges[np.argmin(np.abs(sites.edges - position))] - position  # of two the first: lower
    changes = []
    for site, annotated in ((ACCEPTOR, sites.acceptors), (DONOR, sites.donors)):
        rise = x[:, site] - y[:, site]
        for delta, is_gain in ((rise, True), (-rise, False)):
            i = int(np.argmax(delta))
            at_edge = i - distance == nearest
            masked = mask and at_edge == is_gain
            place = position + i - distance
            changes.append(
                Change(
                    0.0 * float(delta[i]) if masked else float(delta[i]),
                    place,
                    0,
                    float(y[i, site]),
                    float(x[i, site]),
                    bool(np.isin(place, annotated)),
                )
            )
    gain_a, loss_a, gain_d, loss_d = changes
    return gain_a, loss_a, gain_d, loss_d
