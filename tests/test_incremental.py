"""What variants change, computed alone: against whole passes over each haplotype."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.base import incremental
from metalayer.base.convolution import Dilated
from metalayer.base.dilated import Ensemble
from metalayer.base.haplotypes import Alternative, Scores, Tokens
from metalayer.base.incremental import _Trace, score_alternatives
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
    if start == end:
        return np.zeros((0, 3), dtype=np.float32)
    beyond = model.flank_bp + 50
    padded = np.pad(tokens, beyond, constant_values=N_TOKEN)
    return model.score_tokens(padded[start + 50 : end + 50 + model.flank])


def haplotype(tokens: Tokens, at: int, ref_len: int, letters: Tokens) -> Tokens:
    return np.concatenate((tokens[:at], letters, tokens[at + ref_len :]))


def window(
    model: Ensemble, tokens: Tokens, start: int, end: int, given: Sequence[tuple[int, int, Tokens]]
) -> tuple[Scores, list[Scores]]:
    """REF at [start, end), and haplotypes whose answers are wanted there."""
    found = score_alternatives(model, tokens, [Alternative(*one, start, end) for one in given])
    assert all(np.array_equal(one.reference, found[0].reference) for one in found)
    return found[0].reference, [one.alternative for one in found]


def changes(rng: np.random.Generator, size: int, count: int) -> list[tuple[int, int, Tokens]]:
    """SNVs, insertions, deletions and delins anywhere, some of them N."""
    found = []
    for _ in range(count):
        ref_len, inserted = rng.choice([(1, 1), (0, 1), (1, 0), (0, 7), (12, 0), (3, 3), (5, 2), (2, 9), (30, 1)])
        found.append((int(rng.integers(0, size - ref_len)), int(ref_len), rng.integers(0, 5, inserted, dtype=np.uint8)))
    return found


@pytest.mark.parametrize(("flank", "count"), [(80, 40), (400, 20), (2000, 3)])
def test_alternatives_equal_whole_passes(tmp_path: Path, flank: int, count: int) -> None:
    """Also those across either end of the answers, at the ends of the window and far from the answers."""
    model, rng, half = ensemble(tmp_path, flank, 2 if flank == 80 else 1), np.random.default_rng(0), flank // 2
    for size, start, end in (
        (flank + 200, half + 70, half + 131),
        (half + 40, 20, 40),
        (flank + 300, -10, flank + 310),
    ):
        tokens = rng.integers(0, 5, size, dtype=np.uint8)
        middle = end - start - 4  # nothing is left of the answers but two
        given = [
            *changes(rng, size, count),
            (start, 0, encode("GT")),
            (end, 0, encode("A")),
            (start - 3, 6, encode("A")),
        ]
        given += [(end - 3, 6, encode("")), (start - half, 1, encode("C")), (end + half - 1, 1, encode("C"))]
        given += [
            (start + 1, middle, encode("AC")),
            (start - 1, end - start + 2, encode("ACG")),
            (start, 3, encode("")),
        ]
        given = [one for one in given if one[0] >= 0 and one[0] + one[1] <= size]
        given = [one for one in given if start - half <= one[0] and one[0] + one[1] <= end + half]
        given = [one for one in given if end - start + len(one[2]) >= one[1]]
        reference, alternatives = window(model, tokens, start, end, given)
        assert reference.dtype == np.float32
        assert np.abs(reference - whole(model, tokens, start, end)).max() < 1e-6
        for one, found in zip(given, alternatives, strict=True):
            expected = whole(model, haplotype(tokens, *one), start, end + len(one[2]) - one[1])
            assert found.shape == expected.shape
            assert np.abs(found - expected).max(initial=0) < 1e-6
        _, (alone,) = window(model, tokens, start, end, given[-1:])
        assert np.abs(alone - found).max(initial=0) < 1e-6


def test_alternatives_that_leave_no_answer(tmp_path: Path) -> None:
    _, (found,) = window(ensemble(tmp_path, 80), np.zeros(200, dtype=np.uint8), 90, 100, [(88, 10, encode(""))])
    assert found.shape == (0, 3)


def test_the_widest_network(tmp_path: Path) -> None:
    """Whose convolutions go by their spectra, together and alone."""
    model, rng = ensemble(tmp_path, 10000, members=1), np.random.default_rng(0)
    tokens = rng.integers(0, 4, 10_500, dtype=np.uint8)
    given = [Alternative(5200, 1, encode("N"), 5150, 5251), Alternative(5302, 4, encode("CC"), 5252, 5353)]
    given += [Alternative(5210, 1, encode("N"), 5160, 5261)]
    found = score_alternatives(model, tokens, given)
    assert np.abs(found[0].reference - whole(model, tokens, 5150, 5251)).max() < 1e-6
    for one, answers in zip(given[:2], found, strict=False):
        expected = whole(model, haplotype(tokens, one.at, one.ref_len, one.letters), one.start, one.end + one.shift)
        assert np.abs(answers.alternative - expected).max() < 1e-6
        assert np.abs(answers.alternative - answers.reference[: len(expected)]).max() > 1e-4
    _, (alone,) = window(model, tokens, 5252, 5353, [(5302, 4, encode("CC"))])
    assert np.abs(alone - expected).max() < 1e-6


def stretch(rng: np.random.Generator, size: int, count: int) -> tuple[Tokens, list[Alternative]]:
    tokens = rng.integers(0, 5, size, dtype=np.uint8)
    given = [(*one, int(rng.integers(0, 20)), int(rng.integers(1, 50))) for one in changes(rng, size, count)]
    return tokens, [Alternative(at, gone, new, at - less, at + gone + more) for at, gone, new, less, more in given]


def test_a_stretch_equals_whole_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, batches and parts, from any order."""
    monkeypatch.setattr(incremental, "BLOCK", 150)
    monkeypatch.setattr(incremental, "BATCH", 3)
    model, rng = ensemble(tmp_path, 400, members=1), np.random.default_rng(1)
    tokens, given = stretch(rng, 3000, 40)
    given = [one for one in given if not 800 < one.at < 1900]
    given += [Alternative(at, 1, encode(letter), at - 20, at + 21) for at in (90, 2000) for letter in "ACGTN"]
    parts = incremental._runs(given, model)
    assert len(parts) > 1
    assert sorted(number for part in parts for number in part) == list(range(len(given)))
    for one, found in zip(given, score_alternatives(model, tokens, given), strict=True):
        expected = whole(model, haplotype(tokens, one.at, one.ref_len, one.letters), one.start, one.end + one.shift)
        assert found.alternative.shape == expected.shape
        assert np.abs(found.reference - whole(model, tokens, one.start, one.end)).max() < 1e-6
        assert np.abs(found.alternative - expected).max(initial=0) < 1e-6


def test_what_cannot_differ_is_reference_to_the_bit(tmp_path: Path) -> None:
    """Beyond the flank, and everywhere in a haplotype that is REF, however it is written."""
    model, rng = ensemble(tmp_path, 80), np.random.default_rng(2)
    tokens = rng.integers(0, 4, 500, dtype=np.uint8)
    tokens[200:210] = encode("ACGTTTTACG")
    for at, ref_len, letters in (
        (200, 1, encode("T")),
        (200, 3, encode("")),
        (203, 0, encode("GGAG")),
        (200, 4, encode("T")),
    ):
        reference, (found,) = window(model, tokens, 50, 450, [(at, ref_len, letters)])
        shift = len(letters) - ref_len
        assert np.array_equal(found[: at - 50 - 40], reference[: at - 50 - 40])
        behind = at + ref_len + 40 - 50
        assert np.array_equal(found[behind + shift :], reference[behind:])
        assert not np.array_equal(found[at - 60 : at - 40], reference[at - 60 : at - 40])
    same = [(200, 0, encode("")), (200, 1, encode("A")), (200, 10, tokens[200:210])]
    reference, found_same = window(model, tokens, 50, 450, same)
    assert all(np.array_equal(one, reference) for one in found_same)
    answers = score_alternatives(model, tokens, [Alternative(*one, 190, 230) for one in same])
    assert all(np.array_equal(*one) for one in answers)
    alike = [(204, 1, encode("")), (200, 8, encode("ACGTTTA")), (206, 1, encode(""))]
    _, (plain, long, far) = window(model, tokens, 50, 450, alike)
    assert np.abs(plain - long).max() < 1e-6
    assert np.abs(plain - far).max() < 1e-6


def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Taps times positions of every convolution to come."""
    done: list[int] = []
    plain = Dilated.__call__

    def counted(self: Dilated, x: torch.Tensor) -> torch.Tensor:
        out = plain(self, x)
        done.append(self.width * out.shape[0] * out.shape[1])
        return out

    monkeypatch.setattr(Dilated, "__call__", counted)
    return done


def test_only_what_can_differ_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ensemble(tmp_path, 2000, members=1)
    tokens = np.random.default_rng(0).integers(0, 4, 6000, dtype=np.uint8)
    done = work(monkeypatch)
    one = Alternative(3000, 1, encode("N"), 2950, 3051)
    score_alternatives(model, tokens, [one])
    layers = [
        (width, (width - 1) * dilation // 2) for width, dilation in ((11, 1), (11, 4), (21, 10)) for _ in range(8)
    ]
    a, reference, alternative = 0, [], []
    for width, radius in layers:
        a += radius
        reference.append(width * (101 + 2 * (1000 - a)))
        alternative.append(width * (1 + 2 * min(a, 1050 - a)))
    assert done == reference + alternative
    del done[:]
    score_alternatives(model, tokens, [one, Alternative(3050, 1, encode("N"), 3000, 3101)])
    assert sum(done) == sum(reference) + 50 * sum(width for width, _ in layers) + 2 * sum(alternative)


def test_memory_does_not_grow_with_the_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of REF depends on the block alone."""
    monkeypatch.setattr(incremental, "BLOCK", 200)
    model, most = ensemble(tmp_path, 400, members=1), []
    plain = _Trace.read_on

    def watched(self: _Trace, letters: torch.Tensor) -> torch.Tensor:
        out = plain(self, letters)
        most[-1] = max(most[-1], sum(len(kept.rows) for kept in (*self.x, *self.h)))
        return out

    monkeypatch.setattr(_Trace, "read_on", watched)
    for size in (2000, 8000):
        most.append(0)
        tokens = np.zeros(size, dtype=np.uint8)
        score_alternatives(
            model, tokens, [Alternative(at, 1, encode("C"), at - 9, at + 9) for at in range(20, size - 20, 50)]
        )
    assert most[1] < min(1.02 * most[0], 16 * 1300)


def test_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As near to float32 as the ensemble's own whole pass in bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    model, exact = ensemble(tmp_path, 400, precision="bfloat16"), ensemble(tmp_path, 400)
    tokens = np.random.default_rng(0).integers(0, 4, 600, dtype=np.uint8)
    _, (found,) = window(model, tokens, 250, 351, [(300, 1, encode("N"))])
    changed = haplotype(tokens, 300, 1, encode("N"))
    assert 1e-6 < np.abs(found - whole(exact, changed, 250, 351)).max() < 0.02
    assert np.abs(found - whole(model, changed, 250, 351)).max() < 0.02


def test_what_is_refused(tmp_path: Path) -> None:
    model, tokens = ensemble(tmp_path, 80, members=1), np.zeros(300, dtype=np.uint8)
    with pytest.raises(InputError, match=r"answers at \[60, 60\) are none"):
        window(model, tokens, 60, 60, [(60, 1, encode("C"))])
    with pytest.raises(
        InputError, match=r"letters are int64 of shape \(300,\); they must be uint8 \(L\) tokens from 0 to 4"
    ):
        score_alternatives(model, tokens.astype(np.int64), [])
    with pytest.raises(InputError, match="they must be uint8"):
        window(model, tokens, 100, 120, [(110, 1, np.full(1, 5, dtype=np.uint8))])
    with pytest.raises(InputError, match=r"letters \[299, 301\) are not in a window of 300; give a wider one"):
        window(model, tokens, 100, 120, [(299, 2, encode("C"))])
    with pytest.raises(
        InputError, match=r"24 letters less leave none of the answers \[100, 120\); ask for more of them"
    ):
        window(model, tokens, 100, 120, [(98, 24, encode(""))])
    for at in (58, 161):
        with pytest.raises(
            InputError, match=rf"\[{at}, {at + 1}\) are further than the flank of 40 from the answers \[100, 120\)"
        ):
            score_alternatives(model, tokens, [Alternative(at, 1, encode("C"), 100, 120)])
    with pytest.raises(InputError, match=r"answers at \[9, 8\) are none"):
        score_alternatives(model, tokens, [Alternative(8, 1, encode("C"), 9, 8)])
    with pytest.raises(InputError, match="they must be uint8"):
        score_alternatives(model, tokens.reshape(2, -1), [])
