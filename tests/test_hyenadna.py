"""HyenaDNA as published: golden vectors, the checkpoint layout, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metalayer.errors import ModelError
from metalayer.models.hyenadna import HyenaConfig, HyenaDna, load_hyenadna
from tests.checkpoints import TINY, hyenadna

LAYER = "hyena.backbone.layers.1.mixer.filter_fn."


@pytest.mark.parametrize("positions", [None, 501])
def test_golden_vectors(shared: Path, positions: int | None) -> None:
    golden = shared / "golden" / "hyenadna-tiny-random"
    expected = np.load(golden / "expected.npz")
    model = load_hyenadna(golden, positions)
    with torch.inference_mode():
        found = model(torch.from_numpy(expected["input_ids"])).numpy()
    np.testing.assert_allclose(found, expected["last_hidden_state"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("d_model", "n_layer", "max_seq_len", "published"),
    [(128, 2, 1026, 438_144), (256, 4, 32_770, 3_281_664), (256, 8, 160_002, 6_554_624)],
)
def test_as_many_parameters_as_published(d_model: int, n_layer: int, max_seq_len: int, published: int) -> None:
    model = HyenaDna(HyenaConfig(d_model, n_layer, max_seq_len, 4 * d_model), positions=10)
    head = 16 * d_model  # the language model's, which is not read
    assert sum(p.numel() for p in model.parameters()) + head == published


def test_it_is_causal(tmp_path: Path) -> None:
    model = load_hyenadna(hyenadna(tmp_path))
    ids = torch.randint(7, 12, (1, 60))
    with torch.no_grad():
        before = model(ids)
        ids[0, 30] = 11 if ids[0, 30] != 11 else 7
        after = model(ids)
    assert torch.allclose(before[:, :30], after[:, :30], atol=1e-5)
    assert (before[:, 30:] - after[:, 30:]).abs().amax(dim=-1).min() > 1e-4


def test_random_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    model = HyenaDna(HyenaConfig(d_model=128, n_layer=8, max_seq_len=100, d_inner=512))
    weights = {name: value.detach() for name, value in model.named_parameters()}
    assert weights["layers.3.mlp.fc1.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert weights["layers.3.mlp.fc2.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert weights["layers.3.mixer.out_proj.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert weights["layers.3.mixer.filter_fn.bias"].std().item() == pytest.approx(1.0, rel=0.3)
    assert not weights["layers.3.mixer.in_proj.bias"].any()
    assert (weights["layers.3.mixer.filter_fn.freq"] == 10).all()


def test_gradient_checkpointing_gives_the_same_gradients(tmp_path: Path) -> None:
    model = load_hyenadna(hyenadna(tmp_path)).train()
    ids = torch.randint(7, 12, (2, 50))
    gradients = []
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        model(ids).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(model.parameters()))
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again, atol=1e-7)


def test_the_long_convolution_stays_float32_under_autocast(tmp_path: Path) -> None:
    model = load_hyenadna(hyenadna(tmp_path))
    seen = []
    convolution = model.layers[0].mixer.filter_fn
    convolution.register_forward_hook(lambda module, given, out: seen.append((given[0].dtype, out.dtype)))
    ids = torch.randint(7, 12, (2, 300))
    with torch.inference_mode():
        exact = model(ids)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = model(ids)
    assert seen[1] == (torch.bfloat16, torch.float32)
    assert reduced.dtype == torch.float32
    assert 0 < (exact - reduced).abs().max() < 0.1


def test_freq_may_be_stored_under_any_index(tmp_path: Path) -> None:
    one = load_hyenadna(hyenadna(tmp_path / "a"))
    freq = one.layers[1].mixer.filter_fn.freq.detach()
    first, third = LAYER + "implicit_filter.1.freq", LAYER + "implicit_filter.3.freq"
    other = load_hyenadna(hyenadna(tmp_path / "b", **{first: None, third: freq.clone()}))
    assert torch.equal(other.layers[1].mixer.filter_fn.freq, freq)
    with pytest.raises(ModelError, match=r"extra: .*implicit_filter\.3\.freq"):
        load_hyenadna(hyenadna(tmp_path / "c", **{third: freq + 1}))


def test_a_freq_that_is_not_trained_is_not_stored(tmp_path: Path) -> None:
    config = replace(TINY, train_freq=False, activation_freq=7)
    without = {f"hyena.backbone.layers.{i}.mixer.filter_fn.implicit_filter.1.freq": None for i in (0, 1)}
    freq = load_hyenadna(hyenadna(tmp_path, config, **without)).layers[1].mixer.filter_fn.freq
    assert (freq == 7).all()
    assert not freq.requires_grad


def test_all_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    changes = {
        LAYER + "bias": None,
        "hyena.backbone.ln_f.weight": torch.ones(9),
        "hyena.backbone.layers.2.norm1.weight": torch.ones(8),
        "score.weight": torch.ones(1),
    }
    with pytest.raises(ModelError) as caught:
        load_hyenadna(hyenadna(tmp_path, **changes), positions=20)
    told = str(caught.value)
    for part in (
        f"missing: {LAYER}bias (8,)",
        "hyena.backbone.ln_f.weight: of shape (9,), not (8,)",
        "extra: hyena.backbone.layers.2.norm1.weight",
        "extra: score.weight",
    ):
        assert part in told
    assert len(told.splitlines()) == 5


def test_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_hyenadna(tmp_path)
    path = hyenadna(tmp_path / "x")
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_hyenadna(path)
    for change, message in (
        ({"model_type": "bert"}, "not of model_type 'hyenadna'"),
        ({"hyena_order": 3}, "hyena_order 3; only 2"),
    ):
        (path / "config.json").write_text(json.dumps({**vars(TINY), "model_type": "hyenadna", **change}))
        with pytest.raises(ModelError, match=message):
            load_hyenadna(path)
    (path / "config.json").write_text(json.dumps({"model_type": "hyenadna", "d_model": 8}))
    with pytest.raises(ModelError, match="n_layer"):
        load_hyenadna(path)
    with pytest.raises(ModelError, match="401 positions asked of a model of 400"):
        HyenaDna(TINY, 401)
