"""What inputs add to an answer: planted signals get the weight, others none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metalayer.base.pwm import PwmModel
from metalayer.errors import InputError
from metalayer.gene_track import GeneTrack
from metalayer.genome import decode, encode
from metalayer.inference import Predictor
from metalayer.inference.contributions import AROUND, BASE_MODEL, LETTERS, contributions, log_odds
from metalayer.inference.predictor import sequence_track
from metalayer.schema import ACCEPTOR, DONOR
from tests import test_crops as tracks
from tests import test_training as rows
from tests.releases import make_bundle

MOTIF, AT, SITE = "GATTACATTAG", 240, 300
"""Planted before the site, at `AT`."""


class Planted:
    """A model that adds 2 to the log-odds of a donor with the motif 40 to 80 letters before it, and 1 to one with an
    acceptor score of 0.5 or more within 100 bases before it."""

    def predict_stretch(self, track: GeneTrack, start: int, end: int) -> np.ndarray:
        text, answers = decode(track.tokens), []
        for at in range(start, end):
            odds = log_odds(float(track.scores[at, DONOR]))
            odds += 2.0 * (MOTIF in text[max(0, at - 80) : max(0, at - 40)])
            odds += 1.0 * bool((track.scores[max(0, at - 100) : at, ACCEPTOR] >= 0.5).any())
            donor = 1 / (1 + np.exp(-odds))
            answers.append((donor, 0.0, 1 - donor))
        return np.array(answers, np.float32)

    def best_base(self, track: GeneTrack) -> np.ndarray:
        return track.scores


def planted_track(*, motif: bool = True, acceptor: bool = True) -> GeneTrack:
    letters = list(decode(np.random.default_rng(4).integers(0, 4, 600).astype(np.uint8)))
    if motif:
        letters[AT : AT + len(MOTIF)] = MOTIF
    scores = np.tile(np.float32([0.0, 0.0, 1.0]), (600, 1))
    scores[SITE] = 0.3, 0.0, 0.7
    if acceptor:
        scores[SITE - 60] = 0.0, 0.9, 0.1
    return sequence_track("".join(letters), scores)


def planted() -> Any:
    return Planted()


def test_the_planted_motif_and_track_get_the_weight() -> None:
    found = contributions(planted(), planted_track(), SITE, DONOR)
    weights = {one.name: one.log_odds for one in found.inputs}
    assert weights == {LETTERS: pytest.approx(2.0, abs=1e-4), AROUND: pytest.approx(1.0, abs=1e-4)}
    assert found.base == pytest.approx(0.3)
    assert found.log_odds == pytest.approx(3.0, abs=1e-4)
    for one in found.letters:
        is_planted = one.start < AT + len(MOTIF) and one.end > AT
        assert one.log_odds == pytest.approx(2.0 if is_planted else 0.0, abs=1e-4)


@pytest.mark.parametrize(("motif", "acceptor"), [(True, False), (False, True), (False, False)])
def test_what_is_not_planted_gets_none(motif: bool, acceptor: bool) -> None:
    found = contributions(planted(), planted_track(motif=motif, acceptor=acceptor), SITE, DONOR)
    weights = {one.name: one.log_odds for one in found.inputs}
    assert (LETTERS in weights) == motif == bool(found.letters)
    assert weights[AROUND] == pytest.approx(float(acceptor), abs=1e-4)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(make_bundle(tmp_path_factory.mktemp("model") / "bundle"))


def test_a_stretch_is_answered_as_the_whole_and_a_part_explains_as_the_whole(predictor: Predictor) -> None:
    letters = decode(np.random.default_rng(2).integers(0, 4, 3000).astype(np.uint8))
    track = sequence_track(letters, PwmModel().score(letters))
    whole = predictor.predict_gene_track(track)
    np.testing.assert_allclose(predictor.predict_stretch(track, 900, 930), whole[900:930], atol=1e-6)
    at = int(track.scores[:, DONOR].argmax())
    found = contributions(predictor, track, at, DONOR)
    assert found.meta == pytest.approx(float(whole[at, DONOR]), abs=1e-6)
    hidden = track.tokens.copy()
    hidden[:] = encode("N")[0]
    without = predictor.predict_gene_track(sequence_track(decode(hidden), track.scores))[at, DONOR]
    assert found.inputs[0].without == pytest.approx(float(without), abs=1e-6)


def test_a_trained_model_names_the_motif_that_was_planted() -> None:
    """Rows whose letters tell donors, six of them 19 to 14 bases before the exon base; base scores say nothing."""
    trained, _ = rows.fit(rows.planted(800, 0), rows.planted(100, 1), epochs=5, learning_rate=6e-3)
    predictor, letters = Predictor(trained.model, {}, ""), list(decode(np.random.default_rng(9).integers(0, 4, 700)))
    even = np.full((700, 3), 1 / 3, np.float32)
    without = contributions(predictor, sequence_track("".join(letters), even), SITE, DONOR)
    letters[SITE - 19 : SITE - 13] = "GAAGAA"
    found = contributions(predictor, sequence_track("".join(letters), even), SITE, DONOR)
    assert found.meta > 0.8 > without.meta
    weights = {one.name: one.log_odds for one in found.inputs}
    assert weights[LETTERS] > 2
    assert weights[LETTERS] > 2 * abs(weights[AROUND])
    best = max(found.letters, key=lambda one: one.log_odds)
    assert best.start < SITE - 13 and best.end > SITE - 19
    others = [one for one in found.letters if one.end <= SITE - 30 or one.start > SITE + 12]
    assert best.log_odds > 1 > 5 * float(np.median([abs(one.log_odds) for one in others]))


def test_a_trained_model_names_the_track_that_was_planted() -> None:
    """Candidates alike by their own scores; true donors have an acceptor 99 bases before, and letters are not read."""
    trained = tracks.trainer(max_epochs=15)
    trained.train()
    predictor = Predictor(trained.model, {}, "")
    genes = tracks.planted(1, 7)
    track = sequence_track(decode(genes.tokens), genes.scores)
    candidates = genes.scores[:, DONOR] > 0.2
    right, wrong = (np.flatnonzero(candidates & mask) for mask in (genes.labels == DONOR, genes.labels != DONOR))
    added = []
    for there in (right, wrong):
        found = [contributions(predictor, track, int(at), DONOR) for at in there]
        assert all([one.name for one in each.inputs] == [AROUND] and not each.letters for each in found)
        added.append(float(np.median([each.inputs[0].log_odds for each in found])))
    assert added[0] > 0.8
    assert added[1] < 0


def test_several_base_models_are_left_out_one_by_one() -> None:
    track = planted_track()
    two = {"a": track.scores, "b": np.tile(np.float32([0.0, 0.0, 1.0]), (600, 1))}

    class OfA(Planted):
        def predict_stretch(self, track: GeneTrack, start: int, end: int) -> np.ndarray:
            return np.asarray(track.several["a"][start:end])

    found = contributions(OfA(), sequence_track(decode(track.tokens), two), SITE, DONOR)  # type: ignore[arg-type]
    weights = {one.of: one for one in found.inputs if one.name == BASE_MODEL}
    assert weights["a"].without == pytest.approx(0.0)
    assert weights["a"].log_odds > 10
    assert "b" not in weights


def test_a_position_outside(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="position 600 of 600"):
        contributions(planted(), planted_track(), 600, DONOR)
