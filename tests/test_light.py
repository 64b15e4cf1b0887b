"""Without torch: a model directory answers in numpy as it does in torch, and what needs torch says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metalayer import device as devices
from metalayer.errors import ConfigError, ModelError
from metalayer.features import feature_matrix, gene_row_scores
from metalayer.inference import Predictor
from metalayer.integrity import unsealed, write_json
from metalayer.models.bundle import load_model, save_model
from metalayer.models.description import DESCRIPTION
from metalayer.models.numpy_network import NumpyNetwork
from metalayer.schema import POSITIONS, ROWS
from tests.releases import make_bundle
from tests.test_models import windows_of
from tests.test_tracks import LETTERS, NEAR, PARTS, build, gene_track, randomised

ROUNDING = 1e-6
"""Of a probability, as between torch on two machines."""
TRACKLESS = {"track_encoder": "none", "track_encoder_config": {}}
NETWORKS: list[dict[str, Any]] = [
    *PARTS,
    {"sequence_encoder": "cnn", "fusion": "gated", **TRACKLESS},
    {"sequence_encoder": "cnn", "sequence_encoder_config": {**LETTERS, "kernel_sizes": [3, 9]}, **TRACKLESS},
    {"sequence_encoder": "cnn", "sequence_encoder_config": {"levels": 2}, "fusion": "cross_attention", **TRACKLESS},
    {"sequence_encoder": "none", "fusion": "gated", **TRACKLESS},
    {
        "sequence_encoder": "cnn",
        "sequence_encoder_config": LETTERS,
        "fusion": "gated",
        "track_encoder_config": {**NEAR, "stages": 3, "letters": True},
    },
]


def both(directory: Path) -> tuple[Predictor, Predictor]:
    """The model of a directory in torch and in numpy."""
    return Predictor.load(directory), Predictor(*NumpyNetwork.load(directory), "digest")


def saved(directory: Path, options: dict[str, Any]) -> Path:
    model = randomised(build(options))
    track = gene_track()
    model.normaliser.fit(feature_matrix(gene_row_scores(track.scores), windows_of(track)))
    for way in model.calibrators:
        model.calibrator(way).set_shrinkage(0.7, 0.6 if way == ROWS else 0.9)
        model.calibrator(way).set_calibration(0.8, [0.1, -0.2, 0.0])
    save_model(model, directory, {"base_model": "pwm"})
    return directory


@pytest.mark.parametrize("options", NETWORKS, ids=range(len(NETWORKS)))
def test_every_part_answers_as_in_torch(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torched, plain = both(saved(tmp_path / "m", options))
    plain.position_block = 97
    track, way = gene_track(), POSITIONS
    row_scores, windows = gene_row_scores(track.scores), windows_of(track)
    np.testing.assert_allclose(
        plain.predict_rows(row_scores, windows), torched.predict_rows(row_scores, windows), atol=ROUNDING, rtol=0
    )
    for way in (POSITIONS, ROWS):
        log_p, expected = plain.log_probabilities(track, way), torched.log_probabilities(track, way)
        np.testing.assert_allclose(np.exp(log_p), np.exp(expected), atol=ROUNDING, rtol=0)
        np.testing.assert_allclose(
            plain.calibrated(log_p, way), torched.calibrated(expected, way), atol=ROUNDING, rtol=0
        )
        assert plain.note(way) == torched.note(way)
    assert plain.ways() == torched.ways()
    np.testing.assert_allclose(
        plain.base_probabilities(track.scores), torched.base_probabilities(track.scores), atol=ROUNDING, rtol=0
    )
    assert np.abs(plain.predict_gene_track(track) - plain.base_probabilities(track.scores)).max() > 0.01


@pytest.mark.parametrize("options", [NETWORKS[i] for i in (3, 6, 8)], ids=["tracks", "gated", "attention"])
def test_a_row_is_the_same_to_the_bit_in_any_company(options: dict[str, Any], tmp_path: Path) -> None:
    plain, track = both(saved(tmp_path / "m", options))[1], gene_track()
    row_scores, windows = gene_row_scores(track.scores), windows_of(track)
    whole = plain.predict_rows(row_scores, windows)
    for part in (slice(70, 71), slice(65, 130)):
        assert plain.predict_rows(row_scores[part], windows[part]).tobytes() == whole[part].tobytes()


def test_what_corrects_nothing_is_its_base_to_the_bit(tmp_path: Path) -> None:
    save_model(build({"sequence_encoder": "none"}).eval(), tmp_path / "m", {"base_model": "pwm"})
    plain, track = both(tmp_path / "m")[1], gene_track()
    assert plain.predict_gene_track(track).tobytes() == plain.base_probabilities(track.scores).tobytes()


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    directory = make_bundle(tmp_path / "m")
    info = unsealed((directory / DESCRIPTION).read_text())
    info["model"]["hidden_dim"] = 16
    write_json(directory / DESCRIPTION, info)
    with pytest.raises(ModelError, match=r"does not fit model.json: fuse.0.bias, fuse.0.weight"):
        NumpyNetwork.load(directory)
    with pytest.raises(ModelError, match=r"does not fit model.json: fuse.0.bias, fuse.0.weight"):
        load_model(directory)
    info["model"]["hidden_dim"] = "wide"
    write_json(directory / DESCRIPTION, info)
    with pytest.raises(ModelError, match="describes no model that can be built"):
        NumpyNetwork.load(directory)


def test_without_torch_a_device_and_a_language_model_name_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    directory = make_bundle(tmp_path / "m")
    assert devices.resolve_device("auto") == "cpu"
    assert isinstance(Predictor.load(directory, "auto").model, NumpyNetwork)
    with pytest.raises(ConfigError, match=r"device 'cuda' needs torch.*metalayer\[training\]"):
        Predictor.load(directory, "cuda")
    info = unsealed((directory / DESCRIPTION).read_text())
    info["model"] |= {"sequence_encoder": "hyenadna", "sequence_encoder_config": {"pretrained": False}}
    write_json(directory / DESCRIPTION, info)
    with pytest.raises(ConfigError, match=r"language model hyenadna, which needs torch.*metalayer\[language\]"):
        Predictor.load(directory)


def test_all_tensors_are_read(tmp_path: Path) -> None:
    """A tensor more in the file is a part that numpy does not know."""
    directory = saved(tmp_path / "m", NETWORKS[-1])
    model, _ = load_model(directory)
    model.register_buffer("more", torch.zeros(2))
    save_model(model, directory, {})
    with pytest.raises(ModelError, match=r"does not fit model.json: more"):
        NumpyNetwork.load(directory)
