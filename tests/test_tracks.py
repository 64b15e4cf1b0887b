"""The track encoder: shift-equivariant, as far as it says, the base until it has learned, and masked for rows."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from metalayer.errors import ConfigError
from metalayer.features import feature_matrix, gene_row_scores
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN, Gene
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model, save_model
from metalayer.models.meta import build_model
from metalayer.models.tracks import TrackEncoder, maxima
from metalayer.settings.encoders import StageOptions
from metalayer.settings.network import ModelConfig
from tests.dense import dense_rows, windowed_rows

NEAR = {"stages": 2, "channels": 8, "local_channels": 4, "distances": [1, 3, 10, 40]}
LETTERS = {"kernel_sizes": [5], "num_filters": 8, "output_dim": 8, "levels": 3}
PARTS = [
    {"sequence_encoder": "none", "score_encoder": False},
    {"sequence_encoder": "none", "score_encoder": True},
    {"sequence_encoder": "cnn", "sequence_encoder_config": LETTERS, "score_encoder": False},
    {"sequence_encoder": "cnn", "sequence_encoder_config": LETTERS, "fusion": "cross_attention"},
    {"sequence_encoder": "none", "score_encoder": False, "track_encoder_config": {**NEAR, "letters": True}},
    {"sequence_encoder": "none", "score_encoder": False, "track_encoder_config": {**NEAR, "both_ways": False}},
]


def build(parts: dict[str, object], **changes: object) -> MetaSpliceModel:
    torch.manual_seed(3)
    return MetaSpliceModel(
        **{"hidden_dim": 16, "track_encoder": "stages", "track_encoder_config": NEAR, **parts, **changes}
    )


def randomised(model: MetaSpliceModel) -> MetaSpliceModel:
    """As if trained: no layer is zero."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
        if model.tracks is not None and model.tracks.coding is not None:
            model.tracks.coding.hexamers.normal_()
    return model.eval()


def gene_track(length: int = 400, seed: int = 0) -> GeneTrack:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 4, length).astype(np.uint8)
    tokens[:7] = tokens[length // 2 : length // 2 + 30] = N_TOKEN
    scores = rng.dirichlet([0.05, 0.05, 1.0], length).astype(np.float32)
    return GeneTrack(Gene.from_table("g", "1", "-", 1, length), tokens, scores, np.full(length, 2, np.uint8))


def test_maxima_are_those_of_the_ranges() -> None:
    values = torch.randn(2, 2, 61)
    edges, spare = (1, 2, 5, 6, 13), 14
    found = maxima(values, edges, spare)
    n = 61 - 2 * spare
    expected = []
    for low, high in pairwise(edges):
        for offsets in (range(-high + 1, -low + 1), range(low, high)):
            expected.append(torch.stack([values[..., spare + o : spare + o + n] for o in offsets]).amax(dim=0))
    assert torch.equal(found, torch.cat(expected, dim=1))


@pytest.mark.parametrize("parts", PARTS)
def test_a_window_says_what_the_whole_gene_says(parts: dict[str, object]) -> None:
    model, track = randomised(build(parts)), gene_track()
    windowed = windowed_rows(model, track, np.arange(len(track)))
    np.testing.assert_allclose(windowed, dense_rows(model, track, block=97), atol=1e-5, rtol=0)
    assert windowed[:, :2].std(axis=0).min() > 0.02


@pytest.mark.parametrize("length", [1, 2, 40])
def test_genes_shorter_than_what_is_read(length: int) -> None:
    model = randomised(build(PARTS[3]))
    track = GeneTrack(
        Gene.from_table("g", "1", "+", 1, length),
        np.zeros(length, np.uint8),
        np.tile(np.float32([0.2, 0.1, 0.7]), (length, 1)),
        np.full(length, 2, np.uint8),
    )
    np.testing.assert_allclose(
        windowed_rows(model, track, np.arange(length)), dense_rows(model, track), atol=1e-5, rtol=0
    )
    answer = Predictor(model, {}, "").predict_gene_track(track)
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", ["openspliceai_10000_chr7", "openspliceai_80_chr3"])
def test_real_genes_by_window_and_whole(shared: Path, tmp_path: Path, name: str) -> None:
    """Both ends of real genes, and a run of N within."""
    from metalayer.data.score_files import ScoreFile

    file = ScoreFile.read([shared / "real" / "nucleotide_scores" / f"{name}.parquet"], tmp_path / "t.parquet", {})
    genes = sorted(file.store.genes().values(), key=len)[:2]
    model = randomised(build(PARTS[2], track_encoder_config={"letters": True}))
    for gene in genes:
        track = file.store.read(gene.gene_id)
        track.tokens[2000:2300] = N_TOKEN
        at = np.concatenate([np.arange(60), np.arange(1980, 2320, 7), np.arange(len(track) - 60, len(track))])
        np.testing.assert_allclose(windowed_rows(model, track, at), dense_rows(model, track)[at], atol=1e-5, rtol=0)


def test_it_sees_its_radius_and_no_further() -> None:
    encoder = TrackEncoder(StageOptions(**NEAR, both_ways=False))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(parameter.abs() + (20.0 if parameter.ndim == 1 else 0.0))  # no ReLU cuts anything off
            if "out.weight" in name:
                parameter.fill_(0.5)
    assert encoder.radius_bp == 2 * 39
    tracks = torch.tensor([1e-4, 1e-4, 1 - 2e-4], dtype=torch.float64).repeat(1, 2 * encoder.radius_bp + 41, 1)
    encoder.double()
    before = encoder(tracks)[1]
    tracks[0, 0] = torch.tensor([0.9, 0.05, 0.05])
    changed = (encoder(tracks)[1] != before).any(dim=2)[0]
    assert changed[0]
    assert not changed[1:].any()


def test_read_both_ways_a_mirror_is_answered_in_the_mirror() -> None:
    encoder = build({"sequence_encoder": "none", "score_encoder": False}).tracks
    assert encoder is not None
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.2)
    encoder.requires_grad_(False)
    tracks = torch.rand(6, 2 * encoder.radius_bp + 5, 3)
    swapped = tracks.flip(1)[..., [1, 0, 2]]
    encoder.eval()
    correction, back = encoder(tracks)[1], encoder(swapped)[1]
    torch.testing.assert_close(back.flip(1).flip(2), correction)
    encoder.both_ways = False
    one, other = encoder(tracks)[1], encoder(swapped)[1].flip(1).flip(2)
    assert (one - other).abs().max() > 0.01
    torch.testing.assert_close((one + other) / 2, correction)
    encoder.both_ways = True
    encoder.train()
    torch.manual_seed(0)
    read = encoder(tracks)[1]
    either = [min(float((read[i] - kind[i]).abs().max()) for kind in (one, other)) for i in range(len(tracks))]
    assert max(either) < 1e-6
    assert not torch.allclose(read, one) and not torch.allclose(read, other)


@pytest.mark.parametrize("parts", PARTS)
def test_an_untrained_model_equals_its_base(parts: dict[str, object]) -> None:
    track = gene_track()
    assert not dense_rows(build(parts).eval(), track).any()
    answer = Predictor(build(parts), {}, "").predict_gene_track(track)
    np.testing.assert_allclose(answer, track.scores / track.scores.sum(axis=1, keepdims=True), atol=1e-6)


def test_rows_without_tracks_are_answered_from_the_rest() -> None:
    track = gene_track()
    rows, windows = gene_row_scores(track.scores), np.full((len(track), 500), N_TOKEN, np.uint8)
    features = torch.from_numpy(feature_matrix(rows, windows))
    alone = randomised(build(PARTS[0]))
    assert not alone.correction(torch.from_numpy(windows), features).any()  # nothing else is read: the base
    fused = randomised(build(PARTS[1]))
    before = fused.correction(torch.from_numpy(windows), features)
    assert before.abs().max() > 0.1
    with torch.no_grad():
        fused.no_tracks += 1.0
    assert (fused.correction(torch.from_numpy(windows), features) != before).any()


def test_masking_in_training_masks_whole_crops() -> None:
    track = gene_track(300)
    model = randomised(build(PARTS[1], track_dropout=0.5, track_encoder_config={**NEAR, "both_ways": False})).train()
    reach = model.reach_bp
    tokens = torch.full((64, 20 + 2 * reach), 4, dtype=torch.uint8)
    tracks = torch.from_numpy(track.scores[: 20 + 2 * reach]).expand(64, -1, -1)
    torch.manual_seed(0)
    with torch.no_grad():
        rows, _ = model.correction_dense(tokens, torch.zeros(64, 20, 50), tracks)
    kinds = {tuple(np.round(crop, 4)) for crop in rows[:, :, 0].numpy()}
    assert len(kinds) <= 2 + 62  # dropout of the fused layer makes crops differ
    model.fuse[2].p = 0.0
    for layer in model.score_encoder.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    with torch.no_grad():
        rows, _ = model.correction_dense(tokens, torch.zeros(64, 20, 50), tracks)
    assert len({crop.numpy().tobytes() for crop in rows}) == 2


def test_options_travel_with_the_weights(tmp_path: Path) -> None:
    model = randomised(build(PARTS[3], context_bp=301))
    save_model(model, tmp_path / "m", {})
    loaded, _ = load_model(tmp_path / "m")
    assert loaded.options == model.options
    assert np.array_equal(dense_rows(model, gene_track()), dense_rows(loaded, gene_track()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"track_encoder": "stage"}, r"track_encoder: given 'stage'; did you mean 'stages'"),
        ({"track_encoder": "stages", "track_encoder_config": {"stage": 2}}, "did you mean 'stages'"),
        ({"track_encoder": "stages", "track_encoder_config": {"distances": [5, 5]}}, "ascending whole distances"),
        ({"track_encoder": "stages", "track_encoder_config": {"dropout": 1.0}}, "a share from 0 to below 1"),
        ({"track_encoder_config": {"stages": 2}}, "unknown option of encoder 'none'; it takes none"),
        ({"sequence_encoder": "none", "score_encoder": False}, "would read nothing"),
        ({"fusion": "gated", "score_encoder": False}, "the gate scales the score features"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**settings)


def test_a_context_too_narrow_is_refused() -> None:
    config = ModelConfig(track_encoder="stages", track_encoder_config=NEAR, context_bp=100)
    with pytest.raises(ConfigError, match=r"context_bp: given 100; .* 159 at least"):
        build_model(config)
    assert build_model(ModelConfig(track_encoder="stages", track_encoder_config=NEAR)).context_bp == 159


def test_single_options_are_checked_on_assignment() -> None:
    config = ModelConfig(track_encoder="stages")
    config.track_encoder_config["stages"] = 3
    with pytest.raises(ConfigError, match="stages: given 99"):
        config.track_encoder_config["stages"] = 99
    assert config.track_encoder_config == {"stages": 3}
    assert config.model_copy(deep=True).track_encoder_config == {"stages": 3}


def test_every_parameter_of_a_fused_model_has_a_gradient_where_nothing_is_masked() -> None:
    """As training in several processes asks of every step."""
    model, track = randomised(build(PARTS[1])).train(), gene_track(300)
    tracks = torch.from_numpy(track.scores[: 22 + 2 * model.reach_bp]).expand(2, -1, -1)
    tokens, base = torch.zeros(tracks.shape[:2], dtype=torch.uint8), tracks[:, :20]
    answer, exons = model(tokens, torch.zeros(2, 22, 50), tracks, base, with_exons=True)
    (answer[..., 0].sum() + exons.sum()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
