"""Language models as encoders: chunks, offsets, strands, what learns, and where the weights come from."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metalayer.data.dataset import RowLoader
from metalayer.errors import ConfigError, MetalayerError, ModelError
from metalayer.genome import N_TOKEN, encode
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model, save_model
from metalayer.models.hyenadna import load_hyenadna
from metalayer.models.hyenadna_encoder import _SHORT, PUBLISHED
from metalayer.models.language import LanguageEncoder
from metalayer.settings.encoders import HYENADNA_SIZES
from metalayer.settings.sections import TrainConfig
from metalayer.training.trainer import Trainer
from tests import checkpoints
from tests.dense import dense_rows
from tests.options import build_encoder, check_encoder_options
from tests.test_models import gene_track, perturbed
from tests.test_training import planted

CHUNKS = {"chunk_bp": 48, "stride_bp": 16, "output_dim": 12}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Encoder name and options of one small checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("checkpoints")
    places = {
        "hyenadna": checkpoints.hyenadna(folder / "hyenadna"),
        "letters": checkpoints.bert(folder / "letters", "ACGTN"),
        "esm": checkpoints.esm(folder / "esm", "ACGTN"),
        "side by side": checkpoints.esm(folder / "side", [*checkpoints.kmers(3), *"ACGTN"]),
        "overlapping": checkpoints.bert(folder / "over", checkpoints.kmers(3)),
        "bpe": checkpoints.bpe_bert(folder / "bpe"),
    }
    return {
        kind: {
            "sequence_encoder": "hyenadna" if kind == "hyenadna" else "huggingface",
            "sequence_encoder_config": {"model_size" if kind == "hyenadna" else "model": str(path), **CHUNKS},
        }
        for kind, path in places.items()
    }


KINDS = ["hyenadna", "letters", "esm", "side by side", "overlapping", "bpe"]


def encoder(place: dict[str, Any], **options: Any) -> LanguageEncoder:
    torch.manual_seed(0)
    built = build_encoder(place["sequence_encoder"], {**place["sequence_encoder_config"], **options})
    assert isinstance(built, LanguageEncoder)
    return built.eval()


def model(place: dict[str, Any], **options: Any) -> MetaSpliceModel:
    torch.manual_seed(0)
    given = {**place["sequence_encoder_config"], **options}
    built = MetaSpliceModel(place["sequence_encoder"], sequence_encoder_config=given, hidden_dim=16)
    return perturbed(built)


def stretch(length: int, radius: int, seed: int = 0) -> torch.Tensor:
    """A gene (1, length + 2 * radius) with N at its ends and within."""
    tokens = np.random.default_rng(seed).integers(0, 4, length + 2 * radius).astype(np.uint8)
    tokens[:radius] = tokens[length + radius :] = N_TOKEN
    tokens[radius + 40 : radius + 60] = N_TOKEN
    return torch.from_numpy(tokens)[None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_gene_is_windows_read_at_the_same_chunks_and_offsets(places: dict[str, Any], kind: str) -> None:
    it = encoder(places[kind])
    tokens = stretch(100, it.radius_bp)
    with torch.inference_mode():
        dense = it.dense_states(tokens)[0]
        windows = tokens[0].unfold(0, 2 * it.radius_bp + 1, 1)
        windowed = it.states_at(windows, it.margin_bp + torch.arange(100) % it.stride_bp)
    torch.testing.assert_close(windowed, dense, atol=1e-5, rtol=0)
    assert dense.std(dim=0).min() > 1e-3


@pytest.mark.parametrize("kind", ["hyenadna", "bpe"])
def test_blocks_do_not_show(places: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    track = gene_track(300)
    it = model(places[kind])
    whole = dense_rows(it, track)
    np.testing.assert_allclose(dense_rows(it, track, block=64), whole, atol=1e-5)
    monkeypatch.setattr("metalayer.models.language._LETTERS_AT_ONCE", 100)
    np.testing.assert_allclose(dense_rows(it, track, block=32), whole, atol=1e-5)
    predictor = Predictor(it, {}, "")
    answers = predictor.log_probabilities(track)
    predictor.position_block = 128
    np.testing.assert_allclose(predictor.log_probabilities(track), answers, atol=1e-5)
    assert np.abs(whole).max() > 0.05


def test_every_stride_divides_the_blocks_of_the_predictor() -> None:
    from metalayer.inference.predictor import GPU_POSITION_BLOCK, POSITION_BLOCK

    assert GPU_POSITION_BLOCK % POSITION_BLOCK == 0
    for stride in range(1, POSITION_BLOCK + 2):
        if not check_encoder_options("hyenadna", {"stride_bp": stride, "chunk_bp": stride}):
            assert POSITION_BLOCK % stride == 0


def test_training_draws_offsets_of_the_inner_part_and_evaluation_has_one(
    places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = encoder(places["hyenadna"])
    seen: list[torch.Tensor] = []

    def note(windows: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        seen.append(offsets)
        return torch.zeros(len(windows), it.states_dim)

    monkeypatch.setattr(it, "states_at", note)
    windows = torch.zeros((3000, 2 * it.radius_bp + 1), dtype=torch.uint8)
    it(windows)
    it.train()(windows)
    assert seen[0].unique().tolist() == [24]
    assert seen[1].unique().tolist() == list(range(16, 32))  # the offsets at which genes are read, all of them


def test_hyenadna_reads_both_strands(places: dict[str, Any]) -> None:
    it = encoder(places["hyenadna"])
    plain = load_hyenadna(it.checkpoint["source"])
    text = "ACGTTGCAATNGGCATTACG"
    ids = {letter: 7 + i for i, letter in enumerate("ACGTN")}
    other = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
    with torch.inference_mode():
        states = it.states(torch.from_numpy(encode(text))[None])
        forward, backward = (plain(torch.tensor([[ids[letter] for letter in t]])) for t in (text, other))
    torch.testing.assert_close(states, torch.cat([forward, backward.flip(1)], dim=-1), atol=1e-5, rtol=0)


EXPECTED_TOKENS = {
    "letters": (["[CLS]", *"ACGTAN", "[SEP]"], [1, 2, 3, 4, 5, 6]),
    "esm": (["<cls>", *"ACGTAN", "<eos>"], [1, 2, 3, 4, 5, 6]),
    "side by side": (["<cls>", "ACG", "T", "A", "N", "<eos>"], [1, 1, 1, 2, 3, 4]),
    "overlapping": (["[CLS]", "ACG", "CGT", "GTA", "[UNK]", "[SEP]"], [1, 1, 2, 3, 4, 4]),
}


@pytest.mark.parametrize("kind", EXPECTED_TOKENS)
def test_each_letter_has_the_token_that_covers_it(places: dict[str, Any], kind: str) -> None:
    tokens = encoder(places[kind]).tokens  # type: ignore[union-attr]
    ids, mask, at = tokens(torch.from_numpy(encode("ACGTAN"))[None])
    expected, covers = EXPECTED_TOKENS[kind]
    assert tokens._tokenizer.convert_ids_to_tokens(ids[0].tolist()) == expected  # type: ignore[union-attr]
    assert at[0].tolist() == covers
    assert mask.all()


def test_pieces_of_other_lengths_are_padded_and_aligned(places: dict[str, Any]) -> None:
    tokens = encoder(places["bpe"]).tokens  # type: ignore[union-attr]
    texts = ["".join(np.random.default_rng(i).choice(list("ACGTN"), 48, p=[0.24] * 4 + [0.04])) for i in range(8)]
    ids, mask, at = tokens(torch.from_numpy(np.stack([encode(text) for text in texts])))
    lengths = set()
    for row, text in enumerate(texts):
        pieces = tokens._tokenizer.convert_ids_to_tokens(ids[row][mask[row].bool()].tolist())  # type: ignore[union-attr]
        assert "".join(pieces) == text
        assert at[row].tolist() == [i for i, piece in enumerate(pieces) for _ in piece]
        lengths |= {len(piece) for piece in pieces}
    assert len(lengths) > 1
    assert not mask.all()


def test_padding_does_not_change_states(places: dict[str, Any]) -> None:
    it = encoder(places["bpe"])
    chunks = stretch(400, 0)[0, :384].reshape(8, 48)
    with torch.inference_mode():
        together = it.states(chunks)
        alone = torch.cat([it.states(chunk[None]) for chunk in chunks])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_gives_the_same_bytes_whatever_it_is_batched_with(places: dict[str, Any], kind: str) -> None:
    predictor = Predictor(model(places[kind]), {}, "")
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 5, (40, 500)).astype(np.uint8)
    scores = np.concatenate([rng.dirichlet([1, 1, 1], 40), rng.random((40, 4))], axis=1).astype(np.float32)
    together = predictor.predict_rows(scores, windows)
    for i in (0, 7, 33):
        assert predictor.predict_rows(scores[i : i + 1], windows[i : i + 1]).tobytes() == together[i].tobytes()


@pytest.mark.parametrize("kind", ["hyenadna", "esm", "overlapping"])
def test_a_frozen_backbone_stays_as_it_is(places: dict[str, Any], kind: str) -> None:
    it = model(places[kind], freeze=True).train()
    windows = torch.randint(0, 5, (4, 500), dtype=torch.uint8)
    it(windows, torch.rand(4, 50)).sum().backward()
    assert not it.encoder.backbone.training  # type: ignore[union-attr]
    assert all(p.grad is None for p in it.encoder.backbone.parameters())  # type: ignore[union-attr]
    assert it.encoder.project.weight.grad.abs().max() > 0  # type: ignore[union-attr]
    assert it.encoder.slow_parameters() == []


@pytest.mark.parametrize(("kind", "last"), [("hyenadna", "layers.1."), ("esm", "encoder.layer.1.")])
def test_the_last_blocks_learn_at_their_own_rate(places: dict[str, Any], kind: str, last: str) -> None:
    it = model(places[kind], unfreeze_layers=1, learning_rate_share=0.25)
    learning = [n for n, p in it.encoder.backbone.named_parameters() if p.requires_grad]  # type: ignore[union-attr]
    assert learning
    assert all(name.startswith(last) for name in learning)
    rows = planted(40, 0)
    loader = RowLoader(rows, 8, shuffle=True)
    config = TrainConfig(device="cpu", max_epochs=1, threads=1, learning_rate=1e-2, warmup_fraction=0.0)
    trainer = Trainer(it, loader, loader, config)
    before = {name: value.clone() for name, value in it.named_parameters()}
    trainer.train_on([next(iter(loader))])
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in it.named_parameters():
        if ".backbone." not in name:
            assert rates[id(parameter)] == pytest.approx(1e-2)
        elif parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(0.25e-2)
        else:
            assert id(parameter) not in rates
            assert torch.equal(parameter, before[name])
    assert any(not torch.equal(p, before[n]) for n, p in it.named_parameters() if last in n)


def test_a_checkpoint_learns_slower_than_random_weights(places: dict[str, Any]) -> None:
    assert encoder(places["hyenadna"]).slow_share == 0.1
    assert encoder(places["hyenadna"], pretrained=False).slow_share == 1.0
    assert build_encoder("cnn", {}).slow_parameters() == []


def test_gradient_checkpointing_is_passed_on(places: dict[str, Any]) -> None:
    for kind in ("hyenadna", "esm"):
        gradients = []
        for on in (False, True):
            it = encoder(places[kind], gradient_checkpointing=on).train()
            windows = torch.randint(0, 4, (2, 2 * it.radius_bp + 1), generator=torch.Generator().manual_seed(0))
            for module in it.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            it._projected(it.states_at(windows.byte(), torch.tensor([20, 25]))).square().sum().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in it.parameters() if p.grad is not None]))
        torch.testing.assert_close(gradients[0], gradients[1])


def test_no_row_of_a_batch_is_no_trouble(places: dict[str, Any]) -> None:
    for kind in ("hyenadna", "esm"):
        it = model(places[kind]).train()
        out = it(torch.zeros((0, 500), dtype=torch.uint8), torch.zeros(0, 50))
        assert out.shape == (0, 3)
        out.sum().backward()
        assert it.encoder.slow_parameters()[0].grad is not None


def test_random_weights_are_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    options = {"model_size": "tiny", "pretrained": False, **CHUNKS}
    with caplog.at_level(logging.WARNING):
        it = MetaSpliceModel("hyenadna", sequence_encoder_config=options, hidden_dim=16)
    assert "random weights" in caplog.text
    assert it.encoder.backbone.config.d_model == 128  # type: ignore[union-attr]
    save_model(it, tmp_path / "m", {})
    caplog.clear()
    again, info = load_model(tmp_path / "m")
    assert "random weights" not in caplog.text  # they were trained
    told = info["model"]["encoder_checkpoint"]
    assert (told["pretrained"], told["source"]) == (False, "random hyenadna-tiny-1k-seqlen")
    assert_same(it, again)


def assert_same(one: MetaSpliceModel, other: MetaSpliceModel) -> None:
    track = gene_track(150)
    np.testing.assert_array_equal(dense_rows(one.eval(), track), dense_rows(other.eval(), track))
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_needs_its_checkpoint_no_more(places: dict[str, Any], kind: str, tmp_path: Path) -> None:
    (option,) = {"model", "model_size"} & places[kind]["sequence_encoder_config"].keys()
    here = tmp_path / "checkpoint"
    shutil.copytree(places[kind]["sequence_encoder_config"][option], here)
    it = model(places[kind], **{option: str(here)})
    save_model(it, tmp_path / "m", {})
    here.rename(tmp_path / "gone")
    again, info = load_model(tmp_path / "m")
    assert_same(it, again)
    told = info["model"]["encoder_checkpoint"]
    assert told["source"] == str(here)
    assert len(told["sha256"]) == 64


@pytest.mark.parametrize("kind", ["hyenadna", "esm"])
def test_a_saved_model_may_name_its_checkpoint(places: dict[str, Any], kind: str, tmp_path: Path) -> None:
    (option,) = {"model", "model_size"} & places[kind]["sequence_encoder_config"].keys()
    here = tmp_path / "checkpoint"
    shutil.copytree(places[kind]["sequence_encoder_config"][option], here)
    it = model(places[kind], freeze=True, bundle_encoder=False, **{option: str(here)})
    assert not any(".backbone." in name for name in it.state_dict())
    save_model(it, tmp_path / "m", {})
    again, _ = load_model(tmp_path / "m")
    assert_same(it, again)
    weights = here / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"the model was trained with .*bundle_encoder true"):
        load_model(tmp_path / "m")
    here.rename(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("bundle_encoder", [True, False])
def test_a_run_goes_on_without_its_checkpoint(places: dict[str, Any], tmp_path: Path, bundle_encoder: bool) -> None:
    here = tmp_path / "checkpoint"
    shutil.copytree(places["hyenadna"]["sequence_encoder_config"]["model_size"], here)
    it = model(places["hyenadna"], freeze=True, bundle_encoder=bundle_encoder, model_size=str(here))
    loader = RowLoader(planted(40, 0), 8, shuffle=True)
    config = TrainConfig(device="cpu", max_epochs=1, threads=1, weight_average=0.9)
    Trainer(it, loader, loader, config, tmp_path / "run").train()
    if bundle_encoder:
        here.rename(tmp_path / "gone")
    again = Trainer.from_checkpoint(tmp_path / "run" / "last_model.pt", loader, loader, max_epochs=2)
    assert len(again.train()) == 3
    assert torch.equal(again.model.encoder.backbone.ln_f.weight, it.encoder.backbone.ln_f.weight)  # type: ignore[union-attr]


def test_a_heads_weights_are_left_and_a_poolers(tmp_path: Path) -> None:
    path = checkpoints.bert(tmp_path / "masked", checkpoints.kmers(3), head=True)
    it = build_encoder("huggingface", {"model": str(path), **CHUNKS})
    assert it.backbone.pooler is None  # type: ignore[union-attr]


def damage(path: Path, kind: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    if kind == "missing":
        del tensors["encoder.layer.1.output.dense.weight"]
    elif kind == "extra":
        tensors["encoder.layer.2.output.dense.weight"] = torch.ones(2)
    elif kind == "shape":
        tensors["encoder.layer.0.output.dense.bias"] = torch.ones(9)
    elif kind == "pickled":
        torch.save(tensors, path / "pytorch_model.bin")
        (path / "model.safetensors").unlink()
        return
    elif kind == "code":
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    elif kind == "unknown":
        (path / "config.json").write_text(json.dumps({"model_type": "nobert"}))
    save_file(tensors, path / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"missing: encoder\.layer\.1\.output\.dense\.weight"),
        ("extra", r"extra: encoder\.layer\.2\.output\.dense\.weight"),
        ("shape", r"encoder\.layer\.0\.output\.dense\.bias"),
        ("pickled", "pickled weights are not read"),
        ("code", "code of its own"),
        ("unknown", "transformers cannot read it"),
    ],
)
def test_checkpoints_of_transformers_that_do_not_fit(tmp_path: Path, kind: str, message: str) -> None:
    path = checkpoints.esm(tmp_path / "c", "ACGTN")
    damage(path, kind)
    with pytest.raises(MetalayerError, match=message):
        build_encoder("huggingface", {"model": str(path), **CHUNKS})


def test_other_impossible_checkpoints(tmp_path: Path) -> None:
    path = checkpoints.bert(tmp_path / "words", ["hello", "world"])
    with pytest.raises(ModelError, match="covers no DNA letters"):
        build_encoder("huggingface", {"model": str(path), **CHUNKS})
    path = checkpoints.bert(tmp_path / "short", "ACGTN", positions=49)
    with pytest.raises(ConfigError, match="chunk_bp: given 48, up to 50 tokens; the model takes 49"):
        build_encoder("huggingface", {"model": str(path), **CHUNKS})
    with pytest.raises(ConfigError, match="model: missing"):
        build_encoder("huggingface", {})
    path = checkpoints.hyenadna(tmp_path / "hyenadna")
    with pytest.raises(ConfigError, match="chunk_bp: given 500; this HyenaDNA takes 400"):
        build_encoder("hyenadna", {"model_size": str(path), "chunk_bp": 500, "stride_bp": 2})
    with pytest.raises(ConfigError, match=r"unfreeze_layers: given 3; .* has 2"):
        build_encoder("hyenadna", {"model_size": str(path), **CHUNKS, "unfreeze_layers": 3})
    with pytest.raises(ConfigError, match="`chunk_bp`"):
        MetaSpliceModel(
            "hyenadna", sequence_encoder_config={"model_size": str(path), "chunk_bp": 374, "stride_bp": 128}
        )


@pytest.mark.parametrize("size", HYENADNA_SIZES)
def test_nothing_stands_in_for_a_checkpoint_that_is_not_here(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    published = PUBLISHED[_SHORT.get(size, size)]
    with pytest.raises(ConfigError) as caught:
        build_encoder("hyenadna", {"model_size": size})
    for part in (published.hub_id, published.revision, "config.json, model.safetensors", "hf download", "--local-dir"):
        assert part in str(caught.value)


def test_a_checkpoint_in_the_hubs_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = PUBLISHED["tiny-1k"]
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    repository = cache / ("models--" + published.hub_id.replace("/", "--"))
    checkpoints.hyenadna(repository / "snapshots" / published.revision)
    it = build_encoder("hyenadna", {"model_size": "tiny", **CHUNKS})
    assert it.checkpoint is not None
    assert (it.checkpoint["source"], it.checkpoint["revision"]) == (published.hub_id, published.revision)
    other = "0" * 40
    checkpoints.hyenadna(repository / "snapshots" / other)
    it = build_encoder("hyenadna", {"model_size": published.hub_id, "revision": other, **CHUNKS})
    assert it.checkpoint is not None
    assert it.checkpoint["revision"] == other


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hyenadna", {"model_size": "me/mine"}, "revision: missing; the hub id 'me/mine' needs the commit"),
        ("huggingface", {"model": "me/mine"}, "revision: missing"),
        ("huggingface", {"model": "me/mine", "revision": "main"}, "revision: given 'main'; needs the commit"),
        ("huggingface", {"model": "bert"}, "model: given 'bert'; needs a directory, or a hub id"),
        ("hyenadna", {"stride_bp": 96}, "stride_bp: given 96; needs a power of two"),
        ("hyenadna", {"chunk_bp": 129}, "chunk_bp: given 129 with stride_bp 128"),
        ("hyenadna", {"chunk_bp": 64}, "chunk_bp: given 64 with stride_bp 128"),
        ("hyenadna", {"freeze": True, "unfreeze_layers": 1}, "unfreeze_layers: given with freeze true"),
        ("hyenadna", {"unfreeze_layers": 0}, "unfreeze_layers: given 0; needs a whole number"),
        ("hyenadna", {"bundle_encoder": False}, "bundle_encoder: given false"),
        ("hyenadna", {"bundle_encoder": False, "freeze": True, "pretrained": False}, "bundle_encoder: given false"),
        ("hyenadna", {"learning_rate_share": 0}, "learning_rate_share: given 0; needs a share above 0"),
        ("huggingface", {"pretrained": False}, "pretrained: unknown option"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict[str, Any], message: str) -> None:
    (mistake,) = check_encoder_options(name, options)
    assert f"sequence_encoder_config.{message}" in mistake


def test_cross_attention_is_refused(places: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="read at the labelled base alone"):
        MetaSpliceModel(**places["hyenadna"], fusion="cross_attention")
