import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metalayer.errors import ConfigError, ModelError
from metalayer.features import feature_matrix, gene_row_scores
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN, Gene
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model, save_model
from metalayer.models.constants import ATTENTION_REACH_BP
from metalayer.models.encoders import ENCODERS
from metalayer.models.fusion import FUSIONS
from metalayer.models.meta import recalibrate
from metalayer.schema import FEATURES
from metalayer.settings.encoders import FUSION_NAMES, KINDS
from tests.dense import dense_rows
from tests.options import build_encoder, check_encoder_options, check_fusion
from tests.releases import rewrite

LIGHTWEIGHT = {"kernel_sizes": [3, 5, 7], "num_filters": 32, "output_dim": 128}
SHALLOW = {"levels": 0, "kernel_sizes": [5], "num_filters": 8, "output_dim": 16}  # sees less than its neighbourhood
COMBINATIONS = [
    pytest.param(fusion, encoder, options, id=f"{fusion}-{name}")
    for fusion in FUSION_NAMES
    for name, encoder, options in (
        ("cnn", "cnn", {}),
        ("lightweight", "cnn", LIGHTWEIGHT),
        ("shallow", "cnn", SHALLOW),
        ("none", "none", {}),
    )
    if (fusion, encoder) != ("cross_attention", "none")
]


def build(fusion: str, encoder: str = "cnn", options: dict[str, Any] | None = None, **more: Any) -> MetaSpliceModel:
    torch.manual_seed(0)
    return MetaSpliceModel(encoder, sequence_encoder_config=options, hidden_dim=32, fusion=fusion, **more).eval()


def randomised(model: MetaSpliceModel) -> MetaSpliceModel:
    """All weights random and the normalisation fitted, as if trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.head.weight.normal_(std=1.0)  # corrections of several nats, as trained models have
    model.normaliser.fit(np.random.default_rng(1).random((200, len(FEATURES))).astype(np.float32))
    return model


@pytest.fixture(scope="module")
def track() -> GeneTrack:
    """A gene of 600 bases with N runs inside and at its start."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 4, 600).astype(np.uint8)
    tokens[:9] = tokens[250:300] = tokens[420] = N_TOKEN
    scores = rng.dirichlet([0.05, 0.05, 1.0], 600).astype(np.float32)
    return GeneTrack(Gene.from_table("g", "1", "+", 1, 600), tokens, scores, np.full(600, 2, np.uint8))


@pytest.fixture(scope="module")
def rows(track: GeneTrack) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows (600, 500) and features (600, 50) of every base of the gene."""
    padded = np.full(len(track) + 500, N_TOKEN, dtype=np.uint8)
    padded[250 : 250 + len(track)] = track.tokens
    windows = np.lib.stride_tricks.sliding_window_view(padded, 500)[: len(track)].copy()
    features = feature_matrix(gene_row_scores(track.scores), windows)
    return torch.from_numpy(windows), torch.from_numpy(features)


Rows = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize(("fusion", "encoder", "options"), COMBINATIONS)
def test_an_untrained_model_equals_its_base_bit_for_bit(
    fusion: str, encoder: str, options: dict[str, Any], rows: Rows, track: GeneTrack
) -> None:
    model = build(fusion, encoder, options)
    base = rows[1][:, :3]
    with torch.inference_mode():
        assert torch.equal(model(*rows), recalibrate(base, torch.zeros_like(base)))
    assert not dense_rows(model, track).any()


@pytest.mark.parametrize(("fusion", "encoder", "options"), COMBINATIONS)
def test_a_window_says_what_the_whole_gene_says(
    fusion: str,
    encoder: str,
    options: dict[str, Any],
    rows: Rows,
    track: GeneTrack,
) -> None:
    model = randomised(build(fusion, encoder, options))
    with torch.inference_mode():
        windowed = model.correction(*rows).numpy()
    dense = dense_rows(model, track, block=157)  # blocks must not show either
    np.testing.assert_allclose(windowed, dense, atol=1e-5, rtol=0)
    assert windowed.std(axis=0).min() > 0.1


@pytest.mark.parametrize(("fusion", "encoder", "options"), COMBINATIONS)
def test_gradient_reaches_every_trainable_parameter(
    fusion: str, encoder: str, options: dict[str, Any], rows: Rows
) -> None:
    model = randomised(build(fusion, encoder, options)).train()
    labels = torch.arange(len(rows[0])) % 3
    torch.nn.functional.nll_loss(model(*rows), labels).backward()  # type: ignore[no-untyped-call]
    without = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-8]
    assert without == []


@pytest.mark.parametrize(("fusion", "encoder", "options"), COMBINATIONS)
def test_a_saved_model_answers_as_before(
    fusion: str, encoder: str, options: dict[str, Any], rows: Rows, tmp_path: Path
) -> None:
    model = randomised(build(fusion, encoder, options | {"freeze": True}))
    save_model(model, tmp_path / "m", {})
    loaded, info = load_model(tmp_path / "m")
    assert info["model"]["fusion"] == loaded.options["fusion"] == fusion
    assert not any(parameter.requires_grad for parameter in loaded.encoder.parameters())
    with torch.inference_mode():
        assert torch.equal(loaded(*rows), model(*rows))


@pytest.mark.parametrize("fusion", FUSION_NAMES)
def test_a_row_gives_the_same_bytes_whatever_it_is_batched_with(fusion: str, rows: Rows, track: GeneTrack) -> None:
    predictor = Predictor(randomised(build(fusion)), {}, "")
    scores, windows = gene_row_scores(track.scores)[:70], rows[0][:70].numpy()
    together = predictor.predict_rows(scores, windows)
    for i in (0, 31, 32, 69):
        assert predictor.predict_rows(scores[i : i + 1], windows[i : i + 1]).tobytes() == together[i].tobytes()


@pytest.mark.parametrize("fusion", FUSION_NAMES)
def test_a_frozen_encoder_keeps_its_weights_and_the_rest_learns(fusion: str, rows: Rows) -> None:
    model = build(fusion, options={"freeze": True}).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    for _ in range(2):  # the head is zero in the first step: nothing below it learns yet
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(model(*rows), torch.arange(len(rows[0])) % 3).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "encoder" not in changed
    assert {"score_encoder", "fuse", "head"} <= changed
    assert ("fusion" in changed) == (fusion != "concat")


def test_freeze_is_off_unless_asked_for_and_nothing_to_none() -> None:
    assert all(parameter.requires_grad for parameter in build_encoder("cnn", {}).parameters())
    assert all(parameter.requires_grad for parameter in build_encoder("cnn", {"freeze": False}).parameters())
    frozen = list(build_encoder("cnn", {"freeze": True}).parameters())
    assert frozen
    assert not any(parameter.requires_grad for parameter in frozen)
    assert build_encoder("none", {"freeze": True}).output_dim == 0


def changes(model: MetaSpliceModel, rows: Rows, offset: int) -> bool:
    """Whether the letter at `offset` from the labelled base of row 360 changes what the model says of it."""
    windows, features = rows[0][360:361].clone(), rows[1][360:361]
    before = model.correction(windows, features)
    windows[0, 250 + offset] = (windows[0, 250 + offset] + 1) % 4
    return bool((model.correction(windows, features) != before).any())


@torch.inference_mode()
def test_cross_attention_sees_its_neighbourhood_and_no_further(rows: Rows) -> None:
    concat, attention = (randomised(build(fusion, options=SHALLOW)) for fusion in ("concat", "cross_attention"))
    assert (concat.radius_bp, attention.radius_bp) == (2, ATTENTION_REACH_BP + 2)
    for side in (-1, 1):
        assert changes(concat, rows, 2 * side)
        assert not changes(concat, rows, 3 * side)
        assert changes(attention, rows, side * attention.radius_bp)
        assert not changes(attention, rows, side * (attention.radius_bp + 1))


def test_cross_attention_knows_which_offset_a_base_has() -> None:
    model = randomised(build("cross_attention", options=SHALLOW))
    around = torch.randn(1, 2 * ATTENTION_REACH_BP + 1, 16)
    scores, letters = torch.randn(1, 32), torch.randn(1, 16)
    with torch.inference_mode():
        answer, mirrored = (model.fusion(scores, letters, given) for given in (around, around.flip(1)))
    assert (answer - mirrored).abs().max() > 1e-3


def test_cross_attention_learns_a_letter_that_its_encoder_does_not_see() -> None:
    rng = np.random.default_rng(0)
    windows = torch.from_numpy(rng.integers(0, 4, (512, 500)).astype(np.uint8))
    labels = 2 * (windows[:, 250 - 12] == 2).long()  # neither where a G lies at offset -12, else donor
    features = torch.full((512, len(FEATURES)), 1 / 3)
    losses = {}
    for fusion in ("concat", "cross_attention"):
        model = build(fusion, options=SHALLOW, dropout=0.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(100):
            loss = torch.nn.functional.nll_loss(model(windows, features), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        losses[fusion] = loss.item()
    assert losses["cross_attention"] < 0.1 < 0.3 < losses["concat"]


def test_concat_is_what_it_was(rows: Rows) -> None:
    model = randomised(build("concat"))
    assert not [name for name in model.state_dict() if name.startswith("fusion.")]
    assert {name for name in model.state_dict() if name.startswith("fuse.")} == {"fuse.0.weight", "fuse.0.bias"}
    windows, features = rows
    with torch.inference_mode():
        radius = model.encoder.radius_bp
        letters = model.encoder(windows[:, 250 - radius : 250 + radius + 1])
        joined = torch.cat([model.score_encoder(model.normaliser(features)), letters], dim=-1)
        assert torch.equal(model.correction(windows, features), model.head(model.fuse(joined)))


def test_models_saved_before_there_were_fusions_load_as_concat(tmp_path: Path, rows: Rows) -> None:
    model = randomised(build("concat"))
    save_model(model, tmp_path / "m", {})
    path = tmp_path / "m" / "model.json"
    options = json.loads(path.read_text())["model"]
    del options["fusion"]
    rewrite(path, model=options)
    loaded, _ = load_model(tmp_path / "m")
    assert loaded.options["fusion"] == "concat"
    with torch.inference_mode():
        assert torch.equal(loaded(*rows), model(*rows))


def test_weights_of_another_fusion_are_refused(tmp_path: Path) -> None:
    save_model(build("gated"), tmp_path / "m", {})
    path = tmp_path / "m" / "model.json"
    rewrite(path, model={**json.loads(path.read_text())["model"], "fusion": "cross_attention"})
    with pytest.raises(ModelError, match=r"does not fit.*fusion\."):
        load_model(tmp_path / "m")


def test_both_spellings_of_cross_attention_are_one() -> None:
    assert build("cross-attention").options["fusion"] == "cross_attention"
    assert check_fusion("cross-attention", "cnn") == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("mean"), "fusion: given 'mean'; allowed are concat, gated, cross_attention"),
        (lambda: build("gate"), "did you mean 'gated'"),
        (lambda: build("cross-attention", "none"), "'none' has none. Use fusion 'concat' or 'gated'"),
        (lambda: build("cross_attention", options=SHALLOW, window_bp=36), "sees 18 bp on either side; a window of 36"),
    ],
)
def test_impossible_fusions_say_why(make: Callable[[], MetaSpliceModel], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)


def test_a_neighbourhood_just_fits_its_window() -> None:
    assert build("cross_attention", options=SHALLOW, window_bp=38).radius_bp == 18
    assert build("concat", options=SHALLOW, window_bp=36).radius_bp == 2


def test_the_registries_build_what_is_declared() -> None:
    assert tuple(FUSIONS) == FUSION_NAMES
    assert set(ENCODERS) == set(KINDS["sequence_encoder"].values())


@pytest.mark.parametrize(
    "options",
    [{}, LIGHTWEIGHT, {"kernel_sizes": (7, 11), "num_filters": 1, "output_dim": 4096, "levels": 12, "freeze": True}],
)
def test_possible_options_are_no_mistakes(options: dict[str, Any]) -> None:
    assert check_encoder_options("cnn", options) == []


@pytest.mark.parametrize(
    "widths", ["711", "7", 7, [], ["a"], ["7"], [7.9], [7.0], [True], [4], [7, 0], [-3], [501], None, {7: 1}, [None]]
)
def test_kernel_sizes_are_a_list_of_odd_widths(widths: Any) -> None:
    (mistake,) = check_encoder_options("cnn", {"kernel_sizes": widths})
    assert mistake.startswith(f"sequence_encoder_config.kernel_sizes: given {widths!r}; needs a list of odd widths")
    with pytest.raises(ConfigError, match="needs a list of odd widths"):
        build_encoder("cnn", {"kernel_sizes": widths})


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("cnn", {"num_filters": 0}, "num_filters: given 0; needs a whole number from 1 to 4096"),
        ("cnn", {"num_filters": 32.0}, "num_filters: given 32.0; needs a whole number"),
        ("cnn", {"output_dim": True}, "output_dim: given True; needs a whole number"),
        ("cnn", {"output_dim": "64"}, "output_dim: given '64'; needs a whole number"),
        ("cnn", {"levels": -1}, "levels: given -1; needs a whole number from 0 to 12"),
        ("cnn", {"freeze": "yes"}, "freeze: given 'yes'; needs true or false"),
        ("cnn", {"freeze": 1}, "freeze: given 1; needs true or false"),
        (
            "cnn",
            {"model_size": "small"},
            "unknown option of encoder 'cnn'; did you mean 'kernel_sizes'? allowed are kernel",
        ),
        ("none", {"output_dim": 3}, "output_dim: unknown option of encoder 'none'; allowed are freeze"),
        ("none", {"freeze": None}, "freeze: given None; needs true or false"),
        ("hyenadna", {"model_size": "huge"}, "model_size: given 'huge'; allowed are tiny, small"),
        ("hyenadna", {"pretrianed": True}, "did you mean 'pretrained'?"),
        ("hyena", {}, "given 'hyena'; did you mean 'hyenadna'? allowed are cnn, hyenadna, huggingface, none"),
    ],
)
def test_each_mistake_says_what_is_allowed(encoder: str, options: dict[str, Any], message: str) -> None:
    (mistake,) = check_encoder_options(encoder, options)
    assert message in mistake
    with pytest.raises(ConfigError) as caught:
        build_encoder(encoder, options)
    assert mistake in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    options = {"kernel_size": [3], "levels": 99, "num_filters": None, "output_dim": 8}
    assert len(check_encoder_options("cnn", options)) == 3
    with pytest.raises(ConfigError) as caught:
        build_encoder("cnn", options)
    for part in ("kernel_size: unknown", "did you mean 'kernel_sizes'", "levels: given 99", "num_filters: given None"):
        assert part in str(caught.value)


def test_options_are_checked_without_torch() -> None:
    code = "import sys, metalayer.settings.encoders; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
