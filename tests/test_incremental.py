"""What variants change, computed alone: against whole passes over each haplotype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.base import incremental
from metalayer.base.dilated import Ensemble
from metalayer.base.incremental import Alternative, Tokens, WindowPass, score_alternatives
from metalayer.base.openspliceai import load_openspliceai
from metalayer.errors import InputError
from metalayer.genome import N_TOKEN, encode


def ensemble(folder: Path, flank: int, members: int = 2, precision: str = "float32") -> Ensemble:
    """Random networks whose normalisations do something."""
    for seed in range(members):
        torch.manual_seed(seed)
        network = PlainSpliceAI(flank).eval()
        for name, value in network.state_dict().items():
            if "batchnorm" in name and "num" not in name:
                value.copy_(torch.rand_like(value) + 0.5)
        torch.save(network.state_dict(), folder / f"model_{flank}nt_rs{seed}.pt")
    return load_openspliceai(folder, device="cpu", precision=precision)


def whole(model: Ensemble, tokens: Tokens, start: int, end: int) -> np.ndarray:
    """By the whole pass, of letters that are N beyond the window."""
    half = model.flank_bp
    padded = np.pad(tokens, half, constant_values=N_TOKEN)
    return model.score_tokens(padded[start : end + 2 * half])


def haplotype(tokens: Tokens, at: int, ref_len: int, letters: Tokens) -> Tokens:
    return np.concatenate((tokens[:at], letters, tokens[at + ref_len :]))


def changes(rng: np.random.Generator, size: int, count: int) -> list[tuple[int, int, Tokens]]:
    """SNVs, insertions, deletions and delins anywhere, some of them N."""
    found = []
    for _ in range(count):
        ref_len, inserted = rng.choice([(1, 1), (0, 1), (1, 0), (0, 7), (12, 0), (3, 3), (5, 2), (2, 9), (30, 1)])
        found.append((int(rng.integers(0, size - ref_len)), int(ref_len), rng.integers(0, 5, inserted, dtype=np.uint8)))
    return found


@pytest.mark.parametrize("flank", [80, 400, 2000])
def test_alternatives_equal_whole_passes(tmp_path: Path, flank: int) -> None:
    """Also those across either end of the answers, at the ends of the window and far from the answers."""
    model, rng, half = ensemble(tmp_path, flank), np.random.default_rng(0), flank // 2
    for size, start, end in ((flank + 240, half + 70, half + 131), (flank // 2 + 40, 20, 40), (3 * flank, 50, 2 * flank)):
        tokens = rng.integers(0, 5, size, dtype=np.uint8)
        given = [one for one in changes(rng, size, 60) if start - half <= one[0] and one[0] + one[1] <= end + half]
        given += [(start, 0, encode("GT")), (end, 0, encode("A")), (start - 3, 6, encode("A")), (end - 3, 6, encode(""))]
        given += [(start - half, 1, encode("C")), (end + half - 1, 1, encode("C")), (start - 1, end - start + 2, encode("A"))]
        given = [one for one in given if 0 <= one[0] and one[0] + one[1] <= size and end - start + len(one[2]) >= one[1]]
        window = WindowPass(model, tokens, start, end)
        assert np.abs(window.reference - whole(model, tokens, start, end)).max() < 1e-6
        for (at, ref_len, letters), found in zip(given, window.alternatives(given), strict=True):
            shift = len(letters) - ref_len
            expected = whole(model, haplotype(tokens, at, ref_len, letters), start, end + shift)
            assert found.shape == expected.shape
            assert not found.size or np.abs(found - expected).max() < 1e-6
            assert np.abs(found - window.alternative(at, ref_len, letters)).max(initial=0) < 1e-6
