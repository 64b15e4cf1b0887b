"""OpenSpliceAI networks: against a plain implementation, and against the published ensembles where they are there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain_spliceai import PlainSpliceAI, Skip
from metalayer.base import load_base_model
from metalayer.base.convolution import Convolution, Dilated
from metalayer.base.dilated import Network
from metalayer.base.openspliceai import load_openspliceai, read_state_dict
from metalayer.base.weight_files import load_torch
from metalayer.errors import ConfigError, InputError, ModelError
from metalayer.genome import decode, encode


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


@pytest.mark.parametrize("flank", [80, 2000])
def test_blocks_do_not_change_scores(tmp_path: Path, flank: int) -> None:
    """Of one letter, of less and of more than a convolution reads, or of the whole sequence."""
    member(tmp_path, flank, 1)
    model = load_openspliceai(tmp_path, device="cpu")
    tokens = np.random.default_rng(0).integers(0, 5, 450 + flank).astype(np.uint8)
    whole = model.score_tokens(tokens)
    assert whole.shape == (450, 3)
    for block in (1, 7, 100, 449, 450):
        assert np.abs(model.score_tokens(tokens, block) - whole).max() < 1e-6


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("length", "width", "dilation"),
    [
        (40, 11, 1),
        (143, 11, 4),
        (1025, 41, 25),
        (1001, 41, 25),
        (1999, 41, 25),
        (2000, 41, 25),
        (3437, 41, 25),
        (1500, 21, 10),
    ],
)
def test_all_ways_are_the_same_convolution(batch: int, length: int, width: int, dilation: int) -> None:
    """In pieces also where the last one is not full, or is left to the sum over taps."""
    torch.manual_seed(0)
    weight = (torch.randn(32, 32, 1, width) / 10).contiguous(memory_format=torch.channels_last)
    convolution = Dilated(weight, torch.randn(32), dilation)
    x = torch.randn(batch, length, 32)
    given, exact = x.double().transpose(1, 2), weight[:, :, 0].double()
    expected = torch.conv1d(given, exact, convolution.bias.double(), dilation=dilation).transpose(1, 2)
    for way in (convolution.by_taps, convolution.by_copies, convolution):
        found = way(x)
        assert found.shape == (batch, length - (width - 1) * dilation, 32)
        assert (found - expected).abs().max() < 1e-4
    if width > 11:
        found = convolution.by_spectrum(x, 3)[:, : expected.shape[1]]
        assert (found - expected[:, : found.shape[1]]).abs().max() < 1e-4


@pytest.mark.parametrize("taps", [(), (2, 7)])
def test_a_head_of_several_convolutions_that_reads_inner_units(tmp_path: Path, taps: tuple[int, ...]) -> None:
    """With plain rectifiers, against all of it computed one by one."""
    plain = member(tmp_path, 400, 1)
    weights = read_state_dict(tmp_path / "model_400nt_rs1.pt", 400)
    torch.manual_seed(2)
    width = 32 + (32 * len(taps) + 4 if taps else 0)
    heads = [torch.nn.Conv1d(width, 8, 1), torch.nn.Conv1d(8, 2, 1)]
    given = replace(weights, last=tuple(Convolution(c.weight.data, c.bias.data) for c in heads), taps=taps)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 5, 800))
    letters = torch.eye(5, 4)[tokens].T.unsqueeze(0)
    with torch.inference_mode():
        x = plain.initial_conv(letters)
        skip, tapped, unit = plain.initial_skip.conv(x), [letters], 0
        for layer in plain.residual_units:
            if isinstance(layer, Skip):
                skip = skip + layer.conv(x)
                continue
            x = layer(x)
            if unit in taps:
                tapped.insert(0, x)
            unit += 1
        read = torch.cat([skip, *tapped], dim=1) if taps else skip
        expected = torch.softmax(heads[1](torch.relu(heads[0](read))), dim=1)[0, :, 200:-200]
        assert (Network(given, "cpu")(tokens, 150) - expected).abs().max() < 1e-5


def test_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bfloat16 is chosen, and refused, by what the CPU has; it moves scores a little, in every size of block alike."""
    member(tmp_path, 400, 1)
    tokens = np.random.default_rng(0).integers(0, 5, 700).astype(np.uint8)
    exact = load_openspliceai(tmp_path, device="cpu")
    assert exact.precision == "float32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert load_openspliceai(tmp_path, device="cpu", precision="auto").precision == "float32"
    with pytest.raises(ConfigError, match=r"'bfloat16' is not available on cpu here: it takes a CPU with AMX"):
        load_openspliceai(tmp_path, device="cpu", precision="bfloat16")
    with pytest.raises(ConfigError, match=r"precision 'half' is unknown; there are float32, bfloat16 and auto"):
        load_openspliceai(tmp_path, device="cpu", precision="half")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    found = load_base_model("openspliceai", weights=tmp_path, device="cpu", precision="auto")
    assert (found.precision, found.kernels) == ("bfloat16", "avx512_bf16")
    scores = found.score_tokens(tokens)
    assert 1e-6 < np.abs(scores - exact.score_tokens(tokens)).max() < 0.02
    assert np.abs(found.score_tokens(tokens, 37) - scores).max() < 1e-6
    assert np.abs(scores.sum(axis=1) - 1).max() < 1e-5
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert load_openspliceai(tmp_path, device="cpu", precision="bfloat16").kernels == "amx_bf16"


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
    (tmp_path / "model_400nt_rs1.pt").rename(tmp_path / "model_123nt_rs1.pt")
    with pytest.raises(ConfigError, match="known networks see 80, 400, 2000, 10000 nt"):
        load_base_model("openspliceai", weights=tmp_path, flank=123)
    with pytest.raises(ConfigError, match=r"missing a required argument: 'weights'; its options are weights, flank"):
        load_base_model("openspliceai")
    with pytest.raises(ConfigError, match=r"model_80nt_rs1.pt, which is no folder"):
        load_base_model("openspliceai", weights=tmp_path / "model_80nt_rs1.pt")


class Code:
    """What a pickle with code does when it is read without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def state_of(flank: int) -> dict[str, torch.Tensor]:
    return PlainSpliceAI(flank).state_dict()


def changed(name: str, value: object) -> dict[str, object]:
    """A state dict of flank 80 with one entry set, or taken out."""
    state: dict[str, object] = dict(state_of(80))
    state[name] = value
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: state_of(400), "not those of a network of flank 80, as the name says; it is one of flank 400: rename"),
        (lambda: changed("final_conv.bias", None), r"1 tensors .*final_conv.bias missing \(expected \(3,\)\)"),
        (lambda: changed("head.weight", torch.zeros(2)), r"head.weight \(2,\) \(expected none\)"),
        (lambda: changed("final_conv.weight", torch.zeros(2, 32, 1)), r"\(2, 32, 1\) \(expected \(3, 32, 1\)\)"),
        (lambda: changed("final_conv.bias", torch.full((3,), torch.nan)), "NaN or infinite weights, the first final_"),
        (lambda: torch.nn.Linear(4, 3).state_dict(), r"tensors are not those of a network .*bias \(3,\)"),
        (
            lambda: {"epoch": 3, "state_dict": state_of(80)},
            "holds a dict with epoch, state_dict; expected a state dict",
        ),
        (lambda: [torch.zeros(3)], "holds a list; expected a state dict"),
        (lambda: {}, "tensors are not those of"),
        (lambda: [Code()], "it holds more than tensors"),
        (lambda: PlainSpliceAI(80), "it holds more than tensors"),
    ],
)
def test_files_that_are_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    member(tmp_path, 80, 1)
    torch.save(content(), tmp_path / "model_80nt_rs2.pt")
    with pytest.raises(ModelError, match=f"model_80nt_rs2.pt: .*{message}"):
        load_base_model("openspliceai", weights=tmp_path, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_files_cut_short(tmp_path: Path, cut: int) -> None:
    member(tmp_path, 80, 1)
    path = tmp_path / "model_80nt_rs1.pt"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"rs1.pt: damaged"):
        load_base_model("openspliceai", weights=tmp_path)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "absent.pt", "No such file")):
        with pytest.raises(ModelError, match=rf"{path.name}: cannot be read \({why}.*; name a file of weights"):
            load_torch(path)


@pytest.mark.parametrize("length", [1, 2, 50])
def test_a_sequence_shorter_than_the_receptive_field(tmp_path: Path, length: int) -> None:
    """Every position is scored; letters that are not given are N."""
    network = member(tmp_path, 400, 1)
    model = load_base_model("openspliceai", weights=tmp_path, device="cpu")
    text = decode(np.random.default_rng(1).integers(0, 4, length).astype(np.uint8))
    given = torch.eye(5, 4)[torch.from_numpy(encode("N" * 200 + text + "ACG" + "N" * 197).astype(np.int64))]
    with torch.inference_mode():
        expected = network(given.T.unsqueeze(0))[0, [2, 1, 0]].T.numpy()
    found = model.score(text, downstream="ACG")
    assert found.shape == (length, 3)
    assert np.abs(found - expected).max() < 1e-5


class NoDoubles(TorchDispatchMode):
    """Fake: refuses float64 on the device `meta`, as Apple's MPS does on itself."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta" and tensor.dtype == torch.float64:
                raise TypeError("Cannot convert a tensor to float64: the device does not support it")
        return out


def test_a_device_without_float64(tmp_path: Path) -> None:
    member(tmp_path, 80, 1)
    with NoDoubles():
        with pytest.raises(TypeError, match="float64"):
            torch.ones(1, device="meta").double()
        network = Network(read_state_dict(tmp_path / "model_80nt_rs1.pt", 80), "meta")
        assert network(torch.empty(580, dtype=torch.long, device="meta"), 200).shape == (3, 500)
