"""Coding signals of the letters, against what they say they are, one base at a time."""

import numpy as np
import pytest
import torch

from metalayer.data.crops import UNKNOWN
from metalayer.genome import N_TOKEN, encode
from metalayer.models.coding import CodingSignals
from metalayer.models.constants import CODING_WINDOWS, OPEN_BP


@pytest.fixture(scope="module")
def coding() -> CodingSignals:
    found = CodingSignals()
    torch.manual_seed(0)
    found.hexamers.normal_()
    return found


def padded(tokens: np.ndarray, coding: CodingSignals) -> torch.Tensor:
    return torch.from_numpy(np.pad(tokens, coding.reach_bp, constant_values=N_TOKEN)).unsqueeze(0)


def by_hand(sequence: str, coding: CodingSignals) -> np.ndarray:
    """float32 (6, L) of the definition."""
    size = len(sequence)
    value = [0.0] * size
    for i in range(size - 5):
        if "N" not in sequence[i : i + 6]:
            value[i] = float(
                coding.hexamers[sum("ACGT".index(c) * 4 ** (5 - k) for k, c in enumerate(sequence[i : i + 6]))]
            )
    stops = [i for i in range(size - 2) if sequence[i : i + 3] in ("TAA", "TAG", "TGA")]
    out = np.zeros((6, size))
    for i in range(size):
        for k, window in enumerate(CODING_WINDOWS):
            ending = [value[j] for j in range(i - 5 - window + 1, i - 5 + 1) if j >= 0]
            beginning = [value[j] for j in range(i, i + window) if j < size]
            out[2 * k, i], out[2 * k + 1, i] = 4 * sum(ending) / window, 4 * sum(beginning) / window
        up, down = [], []
        for frame in range(3):
            before = [s for s in stops if s % 3 == frame and s <= i - 2]
            after = [s for s in stops if s % 3 == frame and s >= i]
            up.append(i - 2 - before[-1] if before else OPEN_BP)
            down.append(after[0] - i if after else OPEN_BP)
        for k, bases in ((4, max(up)), (5, max(down))):
            out[k, i] = np.log1p(min(bases, OPEN_BP)) / 2 - 2
    return out


def test_signals_are_what_they_say(coding: CodingSignals) -> None:
    rng = np.random.default_rng(1)
    letters = rng.choice(list("ACGT"), 700)
    letters[300:310] = "N"
    sequence = "".join(letters)
    found = coding(padded(encode(sequence), coding))[0].numpy()
    np.testing.assert_allclose(found, by_hand(sequence, coding), atol=1e-5)


def test_a_stretch_says_what_the_whole_says(coding: CodingSignals) -> None:
    tokens = padded(np.random.default_rng(2).integers(0, 4, 3000).astype(np.uint8), coding)
    whole = coding(tokens)
    for start, end in ((0, 5), (1000, 1001), (1499, 2600), (2999, 3000)):
        part = coding(tokens[:, start : end + 2 * coding.reach_bp])
        assert torch.equal(part, whole[..., start:end])


def test_exons_are_told_by_their_hexamers_and_unknown_positions_count_nothing() -> None:
    rng = np.random.default_rng(3)
    exons = np.repeat(np.arange(300) % 2, 200).astype(np.uint8)
    at, gc = np.array([0.4, 0.1, 0.1, 0.4]), np.array([0.1, 0.4, 0.4, 0.1])
    tokens = np.where(exons == 1, rng.choice(4, len(exons), p=gc), rng.choice(4, len(exons), p=at)).astype(np.uint8)
    starts = np.array([0, len(exons)])
    coding = CodingSignals()
    coding.fit(tokens, exons, starts)
    means = coding(padded(tokens, coding))[0, 1].numpy()
    inside = np.arange(len(exons)) % 200 < 150
    assert means[(exons == 1) & inside].mean() > 1.0
    assert means[(exons == 0) & inside].mean() < -1.0
    assert coding.hexamers.abs().max() <= 2.0
    coding.fit(tokens, np.full(len(exons), UNKNOWN, np.uint8), starts)
    assert coding.hexamers.abs().max() < 1e-6
