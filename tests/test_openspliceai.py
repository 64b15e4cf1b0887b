"""OpenSpliceAI networks: against a plain implementation, and against the published ensembles where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.base import load_base_model
from metalayer.errors import ConfigError, InputError, ModelError
from metalayer.genome import decode


def member(folder: Path, flank: int, seed: int) -> PlainSpliceAI:
    """A random network whose normalisations do something, saved as a user's weights are."""
    torch.manual_seed(seed)
    network = PlainSpliceAI(flank).eval()
    for name, value in network.state_dict().items():
        if "batchnorm" in name and "num" not in name:
            value.copy_(torch.rand_like(value) + 0.5)
    torch.save(network.state_dict(), folder / f"model_{flank}nt_rs{seed}.pt")
    return network


@pytest.mark.parametrize("flank", [80, 400, 2000])
def test_it_equals_the_plain_network(tmp_path: Path, flank: int) -> None:
    networks = [member(tmp_path, flank, seed) for seed in (1, 2)]
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, 700 + flank).astype(np.uint8)
    letters = torch.eye(5, 4)[torch.from_numpy(tokens.astype(np.int64))].T.unsqueeze(0)
    with torch.inference_mode():
        expected = torch.stack([network(letters) for network in networks]).mean(0)[0, [2, 1, 0]].T.numpy()
    model = load_base_model("openspliceai", weights=tmp_path, device="cpu")
    assert (model.name, model.flank_bp) == (f"openspliceai_{flank}", flank // 2)
    text, half = decode(tokens), flank // 2
    found = model.score(text[half:-half], text[:half], text[-half:])
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(model.score_tokens(tokens, block=97) - expected).max() < 1e-5
    missing = model.score(text[half:-half], upstream=text[half - 10 : half])
    assert np.array_equal(missing, model.score(text[half:-half], "N" * half + text[half - 10 : half], "N"))


@pytest.mark.parametrize("flank", [80, pytest.param(10000, marks=pytest.mark.slow)])
def test_published_ensembles(shared: Path, flank: int) -> None:
    golden = shared / "golden" / "openspliceai-mane"
    expected = np.load(golden / "expected.npz")
    model = load_base_model("openspliceai", weights=golden / f"{flank}nt", device="cpu")
    half = flank // 2
    for k in (0, 1):
        text = str(expected[f"flank{flank}_{k}_sequence"])
        found = model.score(text[half : len(text) - half], text[:half], text[len(text) - half :])
        assert np.abs(found - expected[f"flank{flank}_{k}_scores_per_model"].mean(0)[:, [2, 1, 0]]).max() < 1e-5


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which is no folder"):
        load_base_model("openspliceai", weights=tmp_path / "none")
    with pytest.raises(ConfigError, match="flanks there: none"):
        load_base_model("openspliceai", weights=tmp_path)
    member(tmp_path, 80, 1)
    member(tmp_path, 400, 1)
    with pytest.raises(ConfigError, match=r"several flanks: 80 \(1 files\), 400 \(1 files\)"):
        load_base_model("openspliceai", weights=tmp_path)
    with pytest.raises(ConfigError, match="of flank 2000; flanks there: 80"):
        load_base_model("openspliceai", weights=tmp_path, flank=2000)
    model = load_base_model("openspliceai", weights=tmp_path, flank=80, device="cpu")
    with pytest.raises(InputError, match="letter 'R'"):
        model.score("ACGR")
    (tmp_path / "model_400nt_rs1.pt").rename(tmp_path / "model_2000nt_rs1.pt")
    with pytest.raises(ModelError, match=r"not those of a network of flank 2000.*missing"):
        load_base_model("openspliceai", weights=tmp_path, flank=2000)
    (tmp_path / "model_2000nt_rs1.pt").rename(tmp_path / "model_123nt_rs1.pt")
    with pytest.raises(ConfigError, match="known networks see 80, 400, 2000, 10000 nt"):
        load_base_model("openspliceai", weights=tmp_path, flank=123)
    (tmp_path / "model_80nt_rs1.pt").write_bytes(b"not a network")
    with pytest.raises(ModelError, match="damaged"):
        load_base_model("openspliceai", weights=tmp_path, flank=80)
    torch.save([Path()], tmp_path / "model_80nt_rs1.pt")
    with pytest.raises(ModelError, match="more than tensors"):
        load_base_model("openspliceai", weights=tmp_path, flank=80)
