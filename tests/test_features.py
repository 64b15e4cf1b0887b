import math

import numpy as np
import pytest

from metalayer.features import (
    derived_features,
    feature_matrix,
    gene_feature_matrix,
    gene_row_scores,
    mismatched_columns,
)
from metalayer.genome import encode
from metalayer.schema import (
    ACCEPTOR,
    DERIVED_FEATURES,
    DONOR,
    FEATURES,
    IDENTITY_COLUMNS,
    LABEL_LEAKING_COLUMNS,
    RATIO_FEATURES,
    SCORE_FEATURES,
    FeatureSchema,
)


def column(matrix: np.ndarray, name: str) -> np.ndarray:
    return matrix[:, FEATURES.index(name)]


def random_tracks(length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.05, 0.05, 1.0], length).astype(np.float32), rng.integers(0, 5, length).astype(np.uint8)


def test_there_are_fifty_features_and_none_gives_the_label_away() -> None:
    assert len(SCORE_FEATURES) == 43
    assert len(FEATURES) == len(set(FEATURES)) == 50
    assert not set(FEATURES) & (LABEL_LEAKING_COLUMNS | IDENTITY_COLUMNS)
    assert set(DERIVED_FEATURES) >= RATIO_FEATURES - set(SCORE_FEATURES)


def test_derived_features_by_hand() -> None:
    donor, acceptor, neither, m2, m1, p1, p2 = 0.6, 0.1, 0.3, 0.0, 0.2, 0.04, 0.0
    out = {k: v[0] for k, v in derived_features(np.array([[donor, acceptor, neither, m2, m1, p1, p2]])).items()}
    assert set(out) == set(DERIVED_FEATURES)
    assert out["relative_donor_probability"] == pytest.approx(0.6 / 0.7)
    assert out["splice_neither_diff"] == pytest.approx(0.3 / 0.6)
    assert out["donor_acceptor_logodds"] == pytest.approx(math.log(6))
    assert out["context_neighbor_mean"] == pytest.approx(0.06)
    assert out["context_asymmetry"] == pytest.approx(0.16)
    assert out["donor_is_local_peak"] == 1.0
    assert out["acceptor_is_local_peak"] == 0.0
    assert out["donor_surge_ratio"] == pytest.approx(0.6 / 0.24)
    assert out["donor_weighted_context"] == pytest.approx(0.2 * 0.2 + 0.4 * 0.6 + 0.2 * 0.04)
    assert out["donor_second_derivative"] == pytest.approx(1.2 - 0.24)
    assert out["signal_strength_ratio"] == pytest.approx(0.54 / 0.04)
    assert out["probability_entropy"] == pytest.approx(-sum(p * math.log(p) for p in (0.6, 0.1, 0.3)), rel=1e-9)


def test_label_free_rule_reads_donor_before_and_acceptor_after() -> None:
    tracks = np.zeros((10, 3), dtype=np.float32)
    tracks[:, 2] = 1.0
    tracks[4] = (0.9, 0.0, 0.1)  # donor, last exonic base 4: its row is 5
    tracks[8] = (0.0, 0.8, 0.2)  # acceptor, first exonic base 8: its row is 7
    rows = gene_row_scores(tracks)
    assert rows[5, DONOR] == np.float32(0.9)
    assert rows[7, ACCEPTOR] == np.float32(0.8)
    assert rows[5, 2] == pytest.approx(0.1)
    # Context of row 6 (neither is larger: donor track): tracks around exon base 5 -> base 4 is its m1.
    assert rows[6, 3:].tolist() == pytest.approx([0.0, 0.9, 0.0, 0.0])
    # Row 9 reads its donor at 8 and its acceptor beyond the end: 0.
    assert rows[9, ACCEPTOR] == 0.0
    assert rows[0, DONOR] == 0.0


def test_neither_is_floored_at_zero() -> None:
    tracks = np.array([[0.9, 0.0, 0.1], [0.0, 0.0, 1.0], [0.0, 0.8, 0.2]], dtype=np.float32)
    assert gene_row_scores(tracks)[1].tolist()[:3] == pytest.approx([0.9, 0.8, 0.0])


def test_whole_gene_equals_its_windows_bit_for_bit() -> None:
    tracks, tokens = random_tracks(900)
    row_scores = gene_row_scores(tracks)
    padded = np.full(900 + 500, 4, dtype=np.uint8)
    padded[250:1150] = tokens
    windows = np.lib.stride_tricks.sliding_window_view(padded, 500)[:900]
    assert np.array_equal(gene_feature_matrix(row_scores, tokens), feature_matrix(row_scores, windows))


def test_sequence_features_see_dinucleotide_and_padding() -> None:
    window = np.full((2, 500), 4, dtype=np.uint8)
    window[0, 248:253] = encode("CAGTC")  # index 250 is G: AG ends there and GT begins
    window[1, 250] = encode("A")[0]
    out = feature_matrix(np.tile(np.float32([0.1, 0.1, 0.8, 0, 0, 0, 0]), (2, 1)), window)
    assert column(out, "has_gt").tolist() == [1.0, 0.0]
    assert column(out, "has_ag").tolist() == [1.0, 0.0]
    assert column(out, "gc_fraction")[0] == pytest.approx(3 / 5)
    assert column(out, "n_fraction")[0] == pytest.approx(495 / 500)


def test_certain_base_scores_stay_finite() -> None:
    rows = np.float32([[1, 0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]])
    assert np.isfinite(feature_matrix(rows, np.full((3, 500), 4, dtype=np.uint8))).all()


def test_mismatches_are_counted_and_null_disagrees() -> None:
    rows = np.random.default_rng(0).random((50, 7))
    present = derived_features(rows)
    assert mismatched_columns(rows, present) == {}
    present["context_max"] = present["context_max"].copy()
    present["context_max"][:3] += 1e-3
    present["donor_diff_m1"] = np.full(50, np.nan)
    assert mismatched_columns(rows, present) == {"context_max": 3, "donor_diff_m1": 50}


def test_schema_hash_changes_with_what_a_feature_means() -> None:
    assert FeatureSchema().hash == FeatureSchema().hash
    assert FeatureSchema(window_bp=400).hash != FeatureSchema().hash
    assert FeatureSchema(features=FEATURES[::-1]).hash != FeatureSchema().hash
