"""Genes with scores of several systems, of a known strength."""

import numpy as np

from metalayer.evaluation.metrics import GeneScores
from metalayer.schema import ACCEPTOR, DONOR, NEITHER


def make_genes(n_genes=12, length=300, sites=8, seed=0, decimals=None, gain=2.0, systems=("base", "meta")):
    """Genes whose systems see each site with a signal; the candidate's is stronger by `gain`."""
    rng = np.random.default_rng(seed)
    genes = []
    for g in range(n_genes):
        labels = np.full(length, NEITHER, dtype=np.uint8)
        at = rng.choice(length, 2 * sites, replace=False)
        labels[at[:sites]], labels[at[sites:]] = DONOR, ACCEPTOR
        noise = rng.normal(-4, 1.5, (length, 3))
        noise[:, NEITHER] = 0
        scores = {}
        for i, system in enumerate(systems):
            logits = noise.copy()
            for c in (DONOR, ACCEPTOR):
                logits[labels == c, c] += 2.5 + i * gain
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            if decimals is not None:
                p[:, :2] = np.floor(p[:, :2] * 10**decimals) / 10**decimals
                p[:, 2] = 1 - p[:, 0] - p[:, 1]
            scores[system] = p.astype(np.float32)
        genes.append(GeneScores(f"G{g}", "12X"[g % 3], labels, scores))
    return genes
