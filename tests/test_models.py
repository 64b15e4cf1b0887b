from pathlib import Path

import numpy as np
import pytest
import torch

from metalayer.base import load_base_model
from metalayer.device import resolve_device
from metalayer.errors import ConfigError, InputError, ModelError, SchemaError
from metalayer.features import feature_matrix, gene_row_scores
from metalayer.gene_track import GeneTrack
from metalayer.genome import Gene
from metalayer.inference import Predictor
from metalayer.integrity import unsealed, write_json
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model, save_model
from metalayer.models.meta import to_exon_bases
from metalayer.models.scores import FeatureNormaliser
from metalayer.schema import FEATURES
from tests.dense import dense_rows
from tests.options import build_encoder


def perturbed(model: MetaSpliceModel, seed: int = 0) -> MetaSpliceModel:
    """A model whose last layers are not zero, as if trained."""
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    model.calibrator("positions").scale.fill_(0.9)
    return model.eval()


def gene_track(length: int = 700, seed: int = 0, n_run: bool = True) -> GeneTrack:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 4, length).astype(np.uint8)
    if n_run:
        tokens[300:340] = 4
    scores = rng.dirichlet([0.05, 0.05, 1.0], length).astype(np.float32)
    return GeneTrack(Gene.from_table("g", "1", "+", 1, length), tokens, scores, np.full(length, 2, np.uint8))


def windows_of(track: GeneTrack, width: int = 500) -> np.ndarray:
    padded = np.full(len(track) + width, 4, dtype=np.uint8)
    padded[width // 2 : width // 2 + len(track)] = track.tokens
    return np.lib.stride_tricks.sliding_window_view(padded, width)[: len(track)].copy()


def predictor(model: MetaSpliceModel) -> Predictor:
    return Predictor(model, {}, "digest")


def test_an_untrained_model_equals_its_base() -> None:
    track = gene_track()
    rows = gene_row_scores(track.scores)
    answers = predictor(MetaSpliceModel()).predict_rows(rows, windows_of(track))
    expected = rows[:, :3] / rows[:, :3].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    dense = predictor(MetaSpliceModel()).predict_gene_track(track)
    np.testing.assert_allclose(dense, track.scores / track.scores.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("encoder", ["cnn", "none"])
def test_windows_and_whole_gene_agree_also_at_ends_and_in_n_runs(encoder: str) -> None:
    track = gene_track()
    model = perturbed(MetaSpliceModel(sequence_encoder=encoder))
    rows, windows = gene_row_scores(track.scores), windows_of(track)
    with torch.inference_mode():
        features = torch.from_numpy(feature_matrix(rows, windows))
        windowed = model.correction(torch.from_numpy(windows), features).numpy()
    dense = dense_rows(model, track)
    np.testing.assert_allclose(windowed, dense, atol=1e-5)
    assert np.abs(dense).max() > 0.1  # it does say something of its own


def test_blocks_do_not_show() -> None:
    track = gene_track()
    model = perturbed(MetaSpliceModel())
    whole = predictor(model).log_probabilities(track)
    in_blocks = predictor(model)
    in_blocks.position_block = 97
    np.testing.assert_allclose(in_blocks.log_probabilities(track), whole, atol=1e-5)


def test_a_row_gives_the_same_bytes_whatever_it_is_batched_with() -> None:
    track = gene_track()
    model = perturbed(MetaSpliceModel())
    rows, windows = gene_row_scores(track.scores), windows_of(track)
    together = predictor(model).predict_rows(rows[:100], windows[:100])
    for i in (0, 31, 32, 77):
        alone = predictor(model).predict_rows(rows[i : i + 1], windows[i : i + 1])
        assert alone.tobytes() == together[i : i + 1].tobytes()


def test_the_encoder_sees_its_radius_and_no_further() -> None:
    encoder = build_encoder("cnn", {"levels": 3, "kernel_sizes": [5]})
    radius = encoder.radius_bp
    assert radius == 2 + 7
    tokens = torch.zeros((1, 2 * radius + 1 + 20), dtype=torch.uint8)
    before = encoder.dense(tokens)
    tokens[0, 0] = 3
    changed = (encoder.dense(tokens) != before).any(dim=-1)[0]
    assert changed[0]
    assert not changed[1:].any()  # the first letter reaches the first base only
    edge = torch.zeros((1, 2 * radius + 1), dtype=torch.uint8)
    one = encoder(edge)
    edge[0, -1] = 2
    assert (encoder(edge) != one).any()


def test_padding_on_the_right_does_not_move_the_centre() -> None:
    track = gene_track(n_run=False)
    model = perturbed(MetaSpliceModel())
    rows, windows = gene_row_scores(track.scores), windows_of(track)
    features = torch.from_numpy(feature_matrix(rows[-1:], windows[-1:]))
    with torch.inference_mode():
        last = model.correction(torch.from_numpy(windows[-1:]), features).numpy()
    np.testing.assert_allclose(last[0], dense_rows(model, track)[-1], atol=1e-5)


def test_exon_bases_take_donor_from_downstream_and_acceptor_from_upstream() -> None:
    rows = np.zeros((6, 3), dtype=np.float32)
    rows[3] = (5.0, 0.0, -1.0)
    rows[1] = (0.0, 4.0, 1.0)
    padded = torch.from_numpy(np.pad(rows, ((1, 1), (0, 0))))  # a row beyond the gene corrects nothing
    out = to_exon_bases(padded[None])[0]
    assert out[2].tolist() == [6.0, 3.0, 0.0]  # donor row 3 and acceptor row 1 are exon base 2
    assert out[4].tolist() == [0.0, 1.0, 0.0]  # row 3 is also the acceptor row of exon base 4
    assert out[0].tolist() == [-1.0, 0.0, 0.0]  # row 1
    assert out[5].tolist() == [0.0, 0.0, 0.0]


def test_unknown_encoders_and_options_name_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'hyenadna'.*allowed are cnn, hyenadna, huggingface, none"):
        MetaSpliceModel(sequence_encoder="hyena")
    with pytest.raises(ConfigError, match="did you mean 'kernel_sizes'"):
        MetaSpliceModel(sequence_encoder_config={"kernel_size": [3]})
    with pytest.raises(ConfigError, match="odd widths"):
        MetaSpliceModel(sequence_encoder_config={"kernel_sizes": [4]})
    with pytest.raises(ConfigError, match="sees 2052 bp"):
        MetaSpliceModel(sequence_encoder_config={"levels": 11})
    with pytest.raises(ConfigError, match="feature schema has"):
        MetaSpliceModel(num_score_features=43)


def test_encoder_options_reach_the_model() -> None:
    model = MetaSpliceModel(sequence_encoder_config={"kernel_sizes": [3, 5, 7], "num_filters": 8, "output_dim": 16})
    assert [tuple(conv.weight.shape) for conv in model.encoder.motifs] == [(8, 4, 3), (8, 4, 5), (8, 4, 7)]  # type: ignore[union-attr]
    assert model.encoder.output_dim == 16


def test_a_huge_ratio_does_not_flatten_a_column() -> None:
    features = np.random.default_rng(0).random((1000, len(FEATURES))).astype(np.float32)
    ratio = FEATURES.index("donor_surge_ratio")
    features[:, ratio] *= 10
    features[0, ratio] = 1e12
    normaliser = FeatureNormaliser()
    normaliser.fit(features)
    out = normaliser(torch.from_numpy(features)).numpy()
    assert out[1:, ratio].std() > 0.3
    assert np.abs(out).max() <= 8.0


def test_constant_and_flag_columns_stay_finite() -> None:
    features = np.zeros((100, len(FEATURES)), dtype=np.float32)
    features[:2, FEATURES.index("has_gt")] = 1
    normaliser = FeatureNormaliser()
    normaliser.fit(features)
    assert torch.isfinite(normaliser(torch.from_numpy(features))).all()


def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    track = gene_track()
    model = perturbed(MetaSpliceModel(hidden_dim=32))
    model.normaliser.fit(np.random.default_rng(1).random((100, len(FEATURES))).astype(np.float32))
    before = predictor(model).predict_gene_track(track)
    save_model(model, tmp_path / "m", {"base_model": "pwm"})
    loaded = Predictor.load(tmp_path / "m")
    assert np.array_equal(loaded.predict_gene_track(track), before)
    assert loaded.info["base_model"] == "pwm"
    assert len(loaded.digest) == 64


def test_damaged_and_foreign_models_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    with pytest.raises(ModelError, match=r"model\.json"):
        load_model(directory)
    save_model(MetaSpliceModel(hidden_dim=32), directory, {})
    path = directory / "model.json"
    description = unsealed(path.read_text())

    def rewrite(**changes: object) -> None:
        write_json(path, description | changes)

    rewrite(schema_hash="0" * 16)
    with pytest.raises(SchemaError, match="train again"):
        load_model(directory)
    rewrite(format_version=99)
    with pytest.raises(ModelError, match="format version 99"):
        load_model(directory)
    rewrite(model=description["model"] | {"hidden_dim": 64})
    with pytest.raises(ModelError, match="does not fit"):
        load_model(directory)
    path.write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_model(directory)
    rewrite()
    path.write_text(path.read_text().replace('"hidden_dim": 32', '"hidden_dim": 33'))
    with pytest.raises(ModelError, match=r"model\.json is damaged"):
        load_model(directory)
    rewrite()
    weights = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(directory)


def test_an_absent_device_names_those_there() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"there is .*cpu"):
            resolve_device("cuda")


def test_the_model_calibrates_as_the_calibration_says() -> None:
    from metalayer.evaluation.calibration import Calibration

    calibration = Calibration(scale=0.8, bias=(-0.7, 0.3, 0.0))
    model = MetaSpliceModel(hidden_dim=32)
    model.calibrator("positions").set_calibration(calibration.scale, calibration.bias)
    probabilities = np.random.default_rng(0).dirichlet([0.1, 0.1, 1.0], 200) + 1e-9
    answers = model.calibrate(torch.from_numpy(np.log(probabilities)), "positions").numpy()
    np.testing.assert_allclose(answers, calibration.apply(probabilities), atol=1e-6)


def test_tracks_given_as_text_and_scores() -> None:
    rng = np.random.default_rng(3)
    sequence = "".join(rng.choice(list("ACGTN"), 400))
    scores = rng.dirichlet([0.1, 0.1, 1.0], 400)
    predictor = Predictor(MetaSpliceModel(hidden_dim=16), {}, "")
    torch.nn.init.normal_(predictor.model.head.weight, std=0.3)
    answer = predictor.predict_tracks(sequence, scores)
    assert answer.shape == (400, 3)
    assert np.allclose(answer.sum(axis=1), 1.0, atol=1e-6)
    pwm = load_base_model("pwm")
    assert np.array_equal(
        predictor.predict_gene(sequence, pwm, upstream="ACGT"),
        predictor.predict_tracks(sequence, pwm.score(sequence, "ACGT")),
    )
    with pytest.raises(InputError, match=r"shape \(399, 3\) for a sequence of 400"):
        predictor.predict_tracks(sequence, scores[1:])
    with pytest.raises(InputError, match="base scores of 1 letters, the first at 7"):
        predictor.predict_tracks(sequence, np.where(np.arange(400)[:, None] == 7, 0.9, scores))
    with pytest.raises(InputError, match="letter 'R'"):
        predictor.predict_tracks("R" + sequence[1:], scores)
