"""SpliceAI, CI-SpliceAI and Pangolin as base models: made-up weights against a plain network, real ones where given.

The real files are those of the distributions, which are looked for where `METALAYER_TEST_PEERS` says:
`pip install --no-deps --target FOLDER spliceai==1.3.1 cispliceai==1.2.2 bipangolin==0.5.0`. Pangolin's own are in the
folder `pangolin` beside them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from metalayer import cli
from metalayer.base import load_base_model, protocol
from metalayer.base.cispliceai import read_graph
from metalayer.base.dilated import Ensemble
from metalayer.base.graph_def import float_constants
from metalayer.base.origin import ORIGINS
from metalayer.base.pangolin import read_probe
from metalayer.base.protocol import is_built_in
from metalayer.base.spliceai import read_keras
from metalayer.base.weight_files import installed_files
from metalayer.data.nucleotide_scores import base_models_in
from metalayer.errors import ConfigError, ModelError
from metalayer.files import sha256
from metalayer.genome import decode, encode, reverse_complement
from metalayer.integrity import unsealed
from metalayer.schema import BASE_SCORES, MARK_COLUMNS, SPLICED_SCORE
from metalayer.settings.sections import BaseConfig
from metalayer.workflows.base_run import base_run
from metalayer.workflows.own_data import contents
from tests.peer_weights import (
    GRAPH,
    HALF,
    LAYERS,
    PANGOLIN,
    Plain,
    Probe,
    install,
    keras_names,
    node,
    pangolin_network,
    spliceai_network,
    tensor,
    write_bipangolin,
    write_graph,
    write_h5,
    write_pangolin,
    write_probe,
)

Scores = NDArray[np.float32]


@pytest.fixture(scope="module")
def letters() -> tuple[str, torch.Tensor]:
    """60 letters with what is around them, and the same one-hot (1, 4, 10060)."""
    tokens = np.random.default_rng(0).integers(0, 5, 60 + 2 * HALF).astype(np.uint8)
    return decode(tokens), torch.eye(5, 4)[torch.from_numpy(tokens.astype(np.int64))].T.unsqueeze(0)


def score(model: protocol.BaseModel, text: str) -> Scores:
    return model.score(text[HALF:-HALF], text[:HALF], text[-HALF:])


def of_networks(networks: list[Plain], onehot: torch.Tensor) -> Scores:
    """Mean of plain networks, in our order."""
    return torch.stack([network.head(onehot, 1) for network in networks]).mean(0)[[2, 1, 0]].T.numpy()


@pytest.fixture(scope="module")
def five() -> list[Plain]:
    return [spliceai_network(seed) for seed in range(5)]


@pytest.mark.parametrize("installed", [False, True])
def test_spliceai(
    five: list[Plain],
    letters: tuple[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
) -> None:
    folder = tmp_path / "spliceai" / "models"
    folder.mkdir(parents=True)
    for number, network in enumerate(five, 1):
        write_h5(folder / f"spliceai{number}.h5", keras_names(network))
    options = {} if installed else {"weights": folder}
    if installed:
        install(tmp_path, "spliceai", folder.iterdir())
        monkeypatch.syspath_prepend(tmp_path)
    model = load_base_model("spliceai", device="cpu", **options)
    assert isinstance(model, Ensemble)
    assert (model.name, model.flank_bp, model.columns) == ("spliceai", 5000, BASE_SCORES)
    assert model.weights == {path.name: sha256(path) for path in folder.iterdir()}
    assert np.abs(score(model, letters[0]) - of_networks(five, letters[1])).max() < 1e-5


@pytest.mark.parametrize("given", ["file", "folder", "installed"])
def test_cispliceai(
    five: list[Plain], letters: tuple[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    path = tmp_path / "cispliceai" / "data" / GRAPH
    path.parent.mkdir(parents=True)
    write_graph(path, map(keras_names, five))
    options = {"file": {"weights": path}, "folder": {"weights": path.parent}, "installed": {}}[given]
    if given == "installed":
        install(tmp_path, "cispliceai", [path])
        monkeypatch.syspath_prepend(tmp_path)
    model = load_base_model("cispliceai", device="cpu", **options)
    assert isinstance(model, Ensemble)
    assert (model.name, model.flank_bp, model.weights) == ("cispliceai", 5000, {GRAPH: sha256(path)})
    assert model.origin.unseen_chroms == ()
    assert np.abs(score(model, letters[0]) - of_networks(five, letters[1])).max() < 1e-5


@pytest.fixture(scope="module")
def pangolin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Plain]]:
    folder = tmp_path_factory.mktemp("pangolin")
    return folder, write_pangolin(folder)


def without_bipangolin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metalayer.base.pangolin.installed_files", lambda *_: {})


def test_pangolin_without_probes(
    pangolin: tuple[Path, dict[str, Plain]],
    letters: tuple[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, networks = pangolin
    heads = [network.head(letters[1], PANGOLIN[name] + 1)[1] for name, network in networks.items()]
    expected = torch.stack(heads).mean(0).numpy()
    model = load_base_model("pangolin_spliced", weights=folder, device="cpu")
    assert (model.name, model.flank_bp, model.columns) == ("pangolin_spliced", 5000, (SPLICED_SCORE,))
    found = score(model, letters[0])
    assert found.shape == (60, 1)
    assert np.abs(found[:, 0] - expected).max() < 1e-5
    without_bipangolin(monkeypatch)
    same = load_base_model("pangolin", weights=folder, device="cpu")
    assert "bipangolin, which tells donors from acceptors, is not installed (pip install" in caplog.text
    assert same.name == "pangolin_spliced"
    assert np.array_equal(score(same, letters[0]), found)


def with_probes(networks: dict[str, Plain], probes: dict[str, Probe], onehot: torch.Tensor, factor: float) -> Scores:
    """As biPangolin answers, in our order."""
    given = [probes[name](onehot, network.layers(onehot)) for name, network in networks.items()]
    mean = torch.stack(given).mean(0)
    corrected = mean * torch.tensor([factor, 1.0, 1.0])[:, None]
    return (corrected / corrected.sum(0))[[2, 1, 0]].T.numpy()


def test_pangolin_with_probes(
    pangolin: tuple[Path, dict[str, Plain]],
    letters: tuple[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, networks = pangolin
    probes = write_bipangolin(tmp_path, 7.5)
    monkeypatch.syspath_prepend(tmp_path)
    model = load_base_model("pangolin", weights=folder, device="cpu")
    assert isinstance(model, Ensemble)
    assert (model.name, model.flank_bp, model.columns) == ("pangolin", 5000, BASE_SCORES)
    assert len(model.weights) == 12 + 12 + 1
    found = score(model, letters[0])
    assert np.abs(found - with_probes(networks, probes, letters[1], 7.5)).max() < 1e-5
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6


def gene(folder: Path) -> dict[str, Path]:
    """Two short genes of two strands with an intron each, on two chromosomes."""
    letters = [decode(np.random.default_rng(seed).integers(0, 4, 90).astype(np.uint8)) for seed in range(2)]
    first, other = (f"{text[:30]}GT{text[32:58]}AG{text[60:]}" for text in letters)
    (folder / "a.fa").write_text(f">chr1\n{first}\n>chr2\n{decode(reverse_complement(encode(other)))}\n")
    lines = [
        f'{chrom}\tx\texon\t{start}\t{end}\t.\t{strand}\t.\tgene_id "{chrom}g"; transcript_id "t{chrom}";'
        for chrom, strand in (("chr1", "+"), ("chr2", "-"))
        for start, end in ((11, 30), (61, 80))
    ]
    (folder / "a.gtf").write_text("\n".join(lines) + "\n")
    return {"fasta": folder / "a.fa", "annotation": folder / "a.gtf", "output": folder / "out"}


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the real distributions are."""
    folder = os.environ.get("METALAYER_TEST_PEERS")
    if not folder:
        pytest.skip("METALAYER_TEST_PEERS does not say where the real distributions are")
    monkeypatch.syspath_prepend(folder)
    return Path(folder)


def test_real_probes(pangolin: tuple[Path, dict[str, Plain]], letters: tuple[str, torch.Tensor], real: Path) -> None:
    """On networks of random weights."""
    folder, networks = pangolin
    files = installed_files("bipangolin", "probe.")
    probes = {name: Probe(0) for name in networks}
    for name, probe in probes.items():
        (file,) = (path for known, path in files.items() if known.startswith(f"probe.{name}."))
        probe.steps.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["state_dict"])
    correction = json.loads(installed_files("bipangolin", "optimal")["optimal_correction.json"].read_text())
    factor = correction["empirical_sweep"]["best_k"]
    assert round(factor, 3) == 108.135
    model = load_base_model("pangolin", weights=folder, device="cpu")
    assert np.abs(score(model, letters[0]) - with_probes(networks, probes, letters[1], factor)).max() < 1e-5


@pytest.mark.parametrize("name", ["cispliceai", "spliceai"])
def test_a_pass_with_a_real_distribution(tmp_path: Path, real: Path, name: str) -> None:
    files = gene(tmp_path)
    given = [f"--{option}={path}" for option, path in files.items()]
    assert cli.main(["base", "run", "--model", name, "--device", "cpu", *given]) == 0
    manifest = unsealed((files["output"] / f"base_layer_{name}.json").read_text())
    assert manifest["origin"]["licence"].startswith("CC BY")
    assert manifest["sites"] == {"donor": 2, "acceptor": 2}
    assert len(manifest["weights_sha256"]) == (1 if name == "cispliceai" else 5)


def real_letters(shared: Path, window: str) -> str:
    """Of a window of `golden/peers/nucleotides.npz`, with real letters around it."""
    name = window.removesuffix("_Nflank")
    windows = json.loads((shared / "golden" / "peers" / "nucleotides.json").read_text())["windows"]
    (found,) = (one for one in windows if one["name"] == name)
    with gzip.open(shared / "real" / "genome" / "hg19_slices.fa.gz", "rt") as file:
        records = dict(part.split("\n", 1) for part in file.read().split(">")[1:])
    chrom = next(text for head, text in records.items() if head.split()[0] == found["chrom"]).replace("\n", "")
    text = chrom[found["start"] - 1 - HALF : found["end"] + HALF].upper()
    text = decode(reverse_complement(encode(text))) if found["strand"] == "-" else text
    assert hashlib.sha256(text.encode()).hexdigest() == found["sha256_with_flank"]
    return "N" * HALF + text[HALF:-HALF] + "N" * HALF if window != name else text


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["spliceai", "cispliceai"])
@pytest.mark.parametrize("window", ["KLHL40", "KLHL40_Nflank", "HHATL", "SS18L2", "LYZL4", "DMTF1_part", "TMEM243"])
def test_real_answers(shared: Path, real: Path, tool: str, window: str) -> None:
    expected = np.load(shared / "golden" / "peers" / "nucleotides.npz")[f"{tool}/{window}"][:, [2, 1, 0]]
    model = load_base_model(tool, device="cpu")
    assert np.abs(score(model, real_letters(shared, window)) - expected).max() < 1e-5


@pytest.mark.slow
def test_a_real_member(shared: Path, real: Path) -> None:
    expected = np.load(shared / "golden" / "peers" / "nucleotides.npz")["spliceai_member1/KLHL40"][:, [2, 1, 0]]
    member = read_keras(real / "spliceai" / "models" / "spliceai1.h5")
    model = Ensemble("member", [member], {}, "cpu", ORIGINS["spliceai"])
    assert np.abs(score(model, real_letters(shared, "KLHL40")) - expected).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("window", ["KLHL40", "KLHL40_Nflank"])
def test_real_pangolin(shared: Path, real: Path, window: str) -> None:
    weights = real / "pangolin"
    if not weights.is_dir():
        pytest.skip(f"Pangolin's own files are not in {weights}")
    golden = np.load(shared / "golden" / "peers" / "nucleotides.npz")
    text = real_letters(shared, window)
    spliced = score(load_base_model("pangolin_spliced", weights=weights, device="cpu"), text)
    assert np.abs(spliced[:, 0] - golden[f"pangolin_p/{window}"].mean(axis=1)).max() < 1e-5
    found = score(load_base_model("pangolin", weights=weights, device="cpu"), text)
    assert np.abs(found - golden[f"bipangolin/{window}"][:, [2, 1, 0]]).max() < 1e-5


def test_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("spliceai", "cispliceai"):
        monkeypatch.setattr(f"metalayer.base.{module}.installed_files", lambda *_: {})
    message = (
        r"spliceai, which is not installed, lacks spliceai1.h5, .*none after pip install --no-deps spliceai==1.3.1"
    )
    with pytest.raises(ConfigError, match=message):
        load_base_model("spliceai")
    with pytest.raises(
        ConfigError, match=r"not installed; give CI-SpliceAI.pb .*none after pip install --no-deps cisp"
    ):
        load_base_model("cispliceai")
    with pytest.raises(ConfigError, match=r"CI-SpliceAI.pb is no file; give"):
        load_base_model("cispliceai", weights=tmp_path)
    with pytest.raises(ConfigError, match=r"none, which is no folder; it holds spliceai1.h5 to spliceai5.h5"):
        load_base_model("spliceai", weights=tmp_path / "none")
    (tmp_path / "spliceai2.h5").touch()
    with pytest.raises(ConfigError, match=r"lacks spliceai1.h5, spliceai3.h5, spliceai4.h5, spliceai5.h5; give"):
        load_base_model("spliceai", weights=tmp_path)
    with pytest.raises(ConfigError, match=r"missing a required argument: 'weights'; its options are weights, device"):
        load_base_model("pangolin")
    with pytest.raises(ConfigError, match=r"none, which is no folder; it holds final.1.0.3.v2, "):
        load_base_model("pangolin_spliced", weights=tmp_path / "none")
    (tmp_path / "final.1.0.3.v2").touch()
    with pytest.raises(ConfigError, match=r"lacks final.1.2.3.v2, .*; the files are in .* Pangolin's repository"):
        load_base_model("pangolin_spliced", weights=tmp_path)


def test_models_that_need_files_are_not_built_in() -> None:
    assert [name for name in protocol.BASE_MODELS if is_built_in(name)] == ["pwm"]


KERAS = keras_names(spliceai_network(0))
CHANGES: list[tuple[Callable[[], dict[str, NDArray[np.generic]]], str]] = [
    (
        lambda: {name: value for name, value in KERAS.items() if "conv1d_39" not in name},
        r"2 tensors are not those of .*; conv1d_39/bias:0 missing \(expected \(3,\)\)",
    ),
    (
        lambda: KERAS | {"dense_1/bias:0": np.zeros(3, np.float32)},
        r"1 tensors .*dense_1/bias:0 \(3,\) \(expected none\)",
    ),
    (
        lambda: KERAS | {"conv1d_3/kernel:0": np.zeros((9, 32, 32), np.float32)},
        r"1 tensors .*conv1d_3/kernel:0 \(9, 32, 32\) \(expected \(11, 32, 32\)\)",
    ),
    (
        lambda: KERAS | {"conv1d_39/bias:0": np.full(3, np.nan, np.float32)},
        "1 tensors hold NaN or infinite weights, the first conv1d_39/bias:0",
    ),
]
"""Weights that are none of SpliceAI's, and what is said."""


@pytest.mark.parametrize(("arrays", "message"), CHANGES)
def test_keras_files_of_other_networks(
    tmp_path: Path, arrays: Callable[[], dict[str, NDArray[np.generic]]], message: str
) -> None:
    write_h5(tmp_path / "spliceai1.h5", arrays())
    with pytest.raises(ModelError, match=f"spliceai1.h5: {message}"):
        read_keras(tmp_path / "spliceai1.h5")


def test_keras_files_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "spliceai1.h5"
    write_h5(path, KERAS | {"conv1d_39/bias:0": np.array([b"a", b"b", b"c"])})
    with pytest.raises(ModelError, match=r"spliceai1.h5: no whole HDF5 file of numbers"):
        read_keras(path)
    write_h5(path, KERAS)
    whole = path.read_bytes()
    for cut in (0, 100, len(whole) // 2, -100):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=r"spliceai1.h5: no whole HDF5 file of numbers .*copy it again"):
            read_keras(path)
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/")
    with pytest.raises(ModelError, match="missing"):
        read_keras(path)


@pytest.mark.parametrize(("arrays", "message"), CHANGES)
def test_graphs_of_other_networks(
    tmp_path: Path, arrays: Callable[[], dict[str, NDArray[np.generic]]], message: str
) -> None:
    path = tmp_path / GRAPH
    write_graph(path, [KERAS, KERAS, KERAS, arrays(), KERAS])
    with pytest.raises(ModelError, match=f"{GRAPH}, network 4 of 5: {message}"):
        read_graph(path)


def test_graphs_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / GRAPH
    write_graph(path, [KERAS] * 4)
    with pytest.raises(ModelError, match=r"holds the weights of 4 networks; the graph of CI-SpliceAI .* has 5"):
        read_graph(path)
    path.write_bytes(node("a", "Const", value=tensor(np.ones(3, np.float32))))
    assert [array.tolist() for array in float_constants(path).values()] == [[1.0, 1.0, 1.0]]
    with pytest.raises(ModelError, match="holds the weights of 0 networks"):
        read_graph(path)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ModelError, match=r"no whole frozen TensorFlow graph \(it ends within a field\); copy it again"
        ):
            read_graph(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0b\x0c", "a field of kind 3"),
        (b"\xff" * 20, "a number of more than 64 bits"),
        (b"no graph but text of some length", "it ends within a field|a field of kind"),
        (node("a", "Const", value=tensor(np.ones(3, np.float32), content=b"abcd")), r"shape \(3,\) has 4 bytes"),
        (node("a", "Const", value=tensor(np.ones(3, np.float32))).replace(b"\x0a\x01a", b"\x0a\x01\xff"), "codec"),
    ],
)
def test_bytes_that_are_no_graph(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / GRAPH
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"{GRAPH}: no whole frozen TensorFlow graph .*({message})"):
        read_graph(path)


def test_pangolin_files_that_are_no_network(pangolin: tuple[Path, dict[str, Plain]], tmp_path: Path) -> None:
    for name in PANGOLIN:
        (tmp_path / name).symlink_to(pangolin[0] / name)
    path = tmp_path / "final.1.2.3.v2"
    state = pangolin_network(0).state_dict()
    for content, message in (
        ({name: value for name, value in state.items() if name != "convs.3.bias"}, "convs.3.bias missing"),
        (spliceai_network(0).state_dict(), r"conv_last1.bias \(3,\) \(expected \(2,\)\)"),
        (state | {"skip.bias": torch.full((32,), torch.nan)}, "NaN or infinite weights, the first skip.bias"),
        ([1], "holds a list; expected a state dict"),
    ):
        path.unlink()
        torch.save(content, path)
        with pytest.raises(ModelError, match=f"final.1.2.3.v2: .*{message}"):
            load_base_model("pangolin_spliced", weights=tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"final.1.2.3.v2: damaged"):
        load_base_model("pangolin_spliced", weights=tmp_path)


def test_probes_that_are_none(
    pangolin: tuple[Path, dict[str, Plain]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "probe.pt"
    write_probe(path, Probe(0), "final.1.0.3.v2")
    assert [part.shape for part in read_probe(path, "final.1.0.3.v2")[0]] == [(64, 196, 1), (64,)]
    with pytest.raises(ModelError, match=r"no probe of biPangolin for final.2.0.3.v2 that reads skip, resblock_15"):
        read_probe(path, "final.2.0.3.v2")
    given = torch.load(path, weights_only=True)
    for content, message in (
        ([1], "no probe of biPangolin"),
        (given | {"config": given["config"] | {"probe_layer": LAYERS[:-1]}}, "no probe of biPangolin"),
        (given | {"state_dict": {"0.bias": torch.zeros(64)}}, "3 tensors are not those of a probe of biPangolin"),
        ({"config": given["config"]}, "holds a NoneType; expected a state dict"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=f"probe.pt: .*{message}"):
            read_probe(path, "final.1.0.3.v2")

    write_bipangolin(tmp_path, 0.0)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ModelError, match=r"optimal_correction.json: empirical_sweep, best_k is 0.0; needed is a finite"
    ):
        load_base_model("pangolin", weights=pangolin[0])
    correction = tmp_path / "bipangolin" / "data" / "probes" / "optimal_correction.json"
    correction.write_text("{}")
    with pytest.raises(ModelError, match=r"no number at empirical_sweep, best_k .*pip install --no-deps bipangolin"):
        load_base_model("pangolin", weights=pangolin[0])
    record = next(tmp_path.glob("*.dist-info/RECORD"))
    record.write_text("".join(line for line in record.read_text().splitlines(True) if "final.3.6" not in line))
    with pytest.raises(ConfigError, match=r"distribution bipangolin has not one probe.final.3.6.3.v2.\*.pt; pip inst"):
        load_base_model("pangolin", weights=pangolin[0])


def test_a_pass_of_one_score(
    pangolin: tuple[Path, dict[str, Plain]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores alone, in a column of their own; what needs donors and acceptors does not choose and refuses them."""
    files = gene(tmp_path)
    model = load_base_model("pangolin_spliced", weights=pangolin[0], device="cpu")
    config = BaseConfig(model="pangolin_spliced", weights=pangolin[0], device="cpu", **files)
    manifest = base_run(config)
    assert unsealed((files["output"] / "base_layer_pangolin_spliced.json").read_text()) == manifest
    assert manifest["columns"] == [SPLICED_SCORE]
    assert manifest["sites"] == {"donor": 2, "acceptor": 2}
    assert not any(manifest["rows"].values())
    names = [f"nucleotide_scores/pangolin_spliced_chr{chrom}.parquet" for chrom in (1, 2)]
    assert sorted(manifest["files"]) == ["genes.tsv", *names]
    assert not (files["output"] / "data").exists()
    for name, strand in zip(names, "+-", strict=True):
        frame = pl.read_parquet(files["output"] / name)
        columns = ["gene_id", "chrom", "strand", "position", "base", SPLICED_SCORE, "label", *MARK_COLUMNS]
        assert frame.columns == columns
        letters = next(
            part.split()[1] for part in files["fasta"].read_text().split(">") if part.startswith(name[-12:-8])
        )
        assert "".join(frame["base"].cast(pl.String)) == letters[10:80]
        if strand == "-":
            sense, found = decode(reverse_complement(encode(letters))), frame[SPLICED_SCORE].to_numpy()[::-1]
            assert np.array_equal(model.score(sense[10:80], sense[:10], sense[80:])[:, 0], found)
    path = files["output"] / names[0]
    assert base_models_in(path) == ("pangolin_spliced",)
    assert dict(contents(files["output"]).bases) == {}
    train = ["train", "--scores", str(path), "--output-dir", str(tmp_path / "m"), "--base-model", "pangolin_spliced"]
    assert cli.main(train) == 2
    assert "given spliced_score alone, which does not tell donors from acceptors" in capsys.readouterr().err


def test_what_a_base_model_says_of_itself(five: list[Plain], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its licence, once in a process, and in the manifest of a pass, with what it was trained on."""
    files = gene(tmp_path)
    for number, network in enumerate(five, 1):
        write_h5(tmp_path / f"spliceai{number}.h5", keras_names(network))
    protocol._log_licence.cache_clear()
    with caplog.at_level(logging.INFO, protocol.__name__):
        manifest = base_run(BaseConfig(model="spliceai", weights=tmp_path, device="cpu", **files))
        load_base_model("spliceai", weights=tmp_path, device="cpu")
        load_base_model("pwm")
    lines = [record.getMessage() for record in caplog.records if record.name == protocol.__name__]
    licence = "CC BY NC 4.0 (academic and non-commercial use), as SpliceAI's LICENSE on GitHub says of its models"
    assert lines == [f"spliceai: its weights are under {licence}"]
    assert manifest["columns"] == list(BASE_SCORES)
    assert manifest["origin"] == {
        "licence": licence,
        "trained_on": "human genes of GENCODE v24lift37, without the test chromosomes",
        "unseen_chroms": ["1", "3", "5", "7", "9"],
    }
    assert unsealed((files["output"] / "base_layer_spliceai.json").read_text()) == manifest
    assert sum(manifest["rows"].values()) > 4
