"""Evidence beside variants, in `metalayer gene` and over HTTP: that of REF holds for ALT; what is absent is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metalayer.base.pwm import PwmModel
from metalayer.client import MetaLayerClient
from metalayer.errors import ConfigError
from metalayer.inference import Predictor
from metalayer.inference.contributions import EVIDENCE, contributions
from metalayer.inference.predictor import sequence_track
from metalayer.models.bundle import load_model, save_model
from metalayer.release.contract import RequestError, parse_sequence
from metalayer.release.engine import Engine
from metalayer.release.folder import write_release
from metalayer.release.golden import made_up_golden, made_up_sequence, read_golden, write_golden_sequences
from metalayer.schema import DONOR
from metalayer.serving.arrow import read_sequence
from metalayer.serving.openapi import document, of_model
from metalayer.serving.settings import ServingSettings
from metalayer.variants.calls import Sources, opened
from metalayer.variants.scoring import META, Options
from metalayer.variants.whole_gene import find_genes, part_of, score_gene
from tests import variant_genomes as made
from tests.releases import make_bundle
from tests.test_evidence import bigwig
from tests.test_tracks import randomised

TEXT = made.letters()
READS: dict[str, Any] = {
    "sequence_encoder": "none",
    "track_encoder": "stages",
    "track_encoder_config": {"stages": 1, "channels": 8, "local_channels": 6, "distances": [1, 10, 40]},
    "evidence": ("a", "b"),
}
GONE = next(at for at in range(540, 600) if TEXT[at] != TEXT[at + 3])
"""Behind it are three bases whose deletion can be written in one way."""
Numbers = dict[str, dict[str, NDArray[np.float32]]]


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    """Evidence along the contig by name and strand: `a` of both strands alike, `b` of each."""
    rng = np.random.default_rng(4)
    found: Numbers = {name: {} for name in "ab"}
    for name, strand in (("a", "+"), ("b", "+"), ("b", "-")):
        values = rng.normal(0, 3, len(TEXT)).astype(np.float32)
        values[rng.random(len(TEXT)) < 0.3] = np.nan
        found[name][strand] = values
    found["a"]["-"] = found["a"]["+"]
    return found


@pytest.fixture(scope="module")
def evidence(numbers: Numbers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bigwigs")
    of = {
        f"{name}{strand}": str(bigwig(folder / f"{name}{strand}.bw", {"chr1": values.tolist()}))
        for name, by_strand in numbers.items()
        for strand, values in by_strand.items()
    }
    return {"a": of["a+"], "b": {"plus": of["b+"], "minus": of["b-"]}}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return strong_release(tmp_path_factory.mktemp("release"))


def strong_release(folder: Path, **options: Any) -> Path:
    """A release whose model corrects by what it reads in the tracks."""
    bundle, directory = make_bundle(folder / "weak", **READS, **options), folder / "release"
    model, info = load_model(bundle)
    save_model(randomised(model), folder / "bundle", info)
    directory.mkdir()
    golden = made_up_golden(folder / "bundle", folder / "golden.parquet")
    write_release(directory, folder / "bundle", golden, {"name": "m", "version": "1", "alias": "champion"})
    return directory


def sources(folder: Path, model: Path, evidence: dict[str, Any]) -> Sources:
    fasta, gtf = made.write(folder, TEXT)
    return Sources(fasta, gtf, ["pwm"], model=model, device="cpu", allow_introns=True, evidence=evidence)


def unlike(letter: str) -> str:
    return "A" if letter != "A" else "C"


def log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of donor and acceptor against neither: far from a site probabilities hardly change."""
    return np.log(probabilities[:, :2] / probabilities[:, 2:])


def whole_gene(predictor: Predictor, strand: str, letters: str, evidence: dict[str, NDArray[np.float32]]) -> Any:
    """Our probabilities of a gene, (L, 3), of letters and evidence in genome order, N around it."""
    turn = 1 if strand == "+" else -1
    sense = letters if strand == "+" else made.mirror(letters)
    scores = PwmModel().score(sense, "N" * 50, "N" * 50)
    track = sequence_track(sense, scores, {name: values[::turn].copy() for name, values in evidence.items()})
    return predictor.predict_gene_track(track)[::turn]


@pytest.mark.parametrize(
    ("position", "ref_bp", "alt", "kept"),
    [
        (560, 1, unlike(TEXT[560]), 1),  # the evidence of the base stays
        (GONE, 4, TEXT[GONE], 1),  # that of three bases goes
        (560, 1, TEXT[560] + unlike(TEXT[561]) + "ATCC" + unlike(TEXT[560]), 1),  # six have none
        (1200, 3, made.mirror(TEXT[1200:1203]) + "G", 3),
        (1240, 1, unlike(TEXT[1240]), 1),
    ],
    ids=["SNV", "deletion", "insertion", "both", "SNV of minus"],
)
def test_evidence_of_ref_holds_for_alt(
    position: int,
    ref_bp: int,
    alt: str,
    kept: int,
    numbers: Numbers,
    evidence: dict[str, Any],
    release: Path,
    tmp_path: Path,
) -> None:
    ref = TEXT[position : position + ref_bp]
    options = Options(distance=30, keep_tracks=True)
    with opened(sources(tmp_path, release, evidence), options) as loaded:
        predictor = loaded.predictor
        assert predictor is not None
        (allele,) = loaded.scorer.score("chr1", position, ref, [alt])
        gene = allele.genes[0]
        track = gene.tracks[META]
        strand, start, end = made.spans()[gene.gene_id]
        own = {name: by_strand[strand][start:end] for name, by_strand in numbers.items()}
        before = whole_gene(predictor, strand, TEXT[start:end], own)
        at, inserted = position - start, np.full(len(alt) - kept, np.nan, np.float32)
        other = TEXT[start:position] + alt + TEXT[position + ref_bp : end]
        moved = {
            name: np.concatenate([values[: at + kept], inserted, values[at + ref_bp :]]) for name, values in own.items()
        }
        after = whole_gene(predictor, strand, other, moved)
        without = whole_gene(predictor, strand, other, {name: np.full_like(of, np.nan) for name, of in moved.items()})
    left, right = slice(at - 30, at), slice(at + ref_bp, at + ref_bp + 20)
    far = (track.positions < position) & (track.inserted == 0)
    np.testing.assert_allclose(log_odds(track.reference[far][-30:]), log_odds(before[left]), atol=1e-3)
    np.testing.assert_allclose(log_odds(track.alternative[far][-30:]), log_odds(after[left]), atol=1e-3)
    behind = track.positions >= position + ref_bp
    shift = len(alt) - ref_bp
    np.testing.assert_allclose(log_odds(track.reference[behind][:20]), log_odds(before[right]), atol=1e-3)
    changed = after[right.start + shift : right.stop + shift]
    np.testing.assert_allclose(log_odds(track.alternative[behind][:20]), log_odds(changed), atol=1e-3)
    assert np.abs(log_odds(after) - log_odds(without))[at - 30 : at].max() > 0.03


def test_a_gene_is_looked_at_with_its_evidence(
    numbers: Numbers, evidence: dict[str, Any], release: Path, tmp_path: Path
) -> None:
    with opened(sources(tmp_path, release, evidence)) as loaded:
        assert loaded.predictor is not None
        for name in ("PLUS", "MINUS"):
            found = score_gene(find_genes(name, loaded.genes)[0], loaded)
            strand, start, end = made.spans()[name]
            own = {one: by_strand[strand][start:end] for one, by_strand in numbers.items()}
            expected = whole_gene(loaded.predictor, strand, TEXT[start:end], own)
            inner = slice(60, -60)  # the gene's ends see the letters around it
            np.testing.assert_allclose(found.stretch.scores["meta"][inner], expected[inner, :2], atol=1e-6)
            part = score_gene(find_genes(name, loaded.genes)[0], loaded, (start + 200, start + 260))
            np.testing.assert_allclose(part.stretch.scores["meta"], expected[200:260, :2], atol=1e-6)


def test_what_each_piece_of_evidence_adds_is_said(
    numbers: Numbers, evidence: dict[str, Any], release: Path, tmp_path: Path
) -> None:
    with opened(sources(tmp_path, release, evidence)) as loaded:
        assert loaded.predictor is not None
        one = find_genes("PLUS", loaded.genes)[0]
        track = part_of(one, loaded, one.gene.interval.start, one.gene.interval.end)
        found = contributions(loaded.predictor, track, 200, DONOR)
        added = {piece.of: piece.without for piece in found.inputs if piece.name == EVIDENCE}
        assert set(added) == {"a", "b"}
        for name, probability in added.items():
            missing = {**track.evidence, name: np.full_like(track.evidence[name], np.nan)}
            without = loaded.predictor.predict_gene_track(replace(track, evidence=missing))
            assert probability == pytest.approx(without[200, DONOR], rel=1e-4)


def test_variants_without_the_evidence_of_the_model_are_refused(
    evidence: dict[str, Any], release: Path, tmp_path: Path
) -> None:
    for given, message in (
        ({}, "evidence: no a, b; this model reads a, b"),
        ({**evidence, "c": evidence["a"]}, "evidence: given c; this model reads a, b"),
        ({**evidence, "a": "column"}, "evidence: given 'column', but no per-nucleotide scores are read here"),
    ):
        with pytest.raises(ConfigError, match=message), opened(sources(tmp_path, release, given)):
            pass
    with opened(sources(tmp_path, release, {**evidence, "a": "none"})) as loaded:
        assert loaded.scorer.score("chr1", 560, TEXT[560], [unlike(TEXT[560])])[0].genes
        assert loaded.facts()["evidence"]["a"] == []


def body(letters: str = "ACGT" * 30, **fields: Any) -> bytes:
    numbers = [0.5] * len(letters)
    usual: dict[str, Any] = {"sequence": letters, "evidence.a": numbers, "evidence.b": [None, *numbers[1:]]}
    return json.dumps({name: of for name, of in {**usual, **fields}.items() if of != "absent"}).encode()


def test_a_request_brings_evidence_or_says_that_there_is_none(release: Path) -> None:
    engine = Engine(release)
    assert engine.describe()["evidence_fields"] == ["evidence.a", "evidence.b"]
    given = parse_sequence(body())
    answers = np.concatenate(list(engine.score_sequence(given)))
    expected = sequence_track(given.sequence, PwmModel().score(given.sequence), given.evidence)
    np.testing.assert_array_equal(answers[:, 3:], engine.predictor.predict_gene_track(expected))
    assert np.isnan(given.evidence["b"]).tolist() == [True] + [False] * 119
    assert "evidence a, b included" in engine.answered("positions", given)["note"]
    without = parse_sequence(body(**{"evidence.b": None}))
    masked = np.concatenate(list(engine.score_sequence(without)))
    assert np.abs(log_odds(masked[:, 3:]) - log_odds(answers[:, 3:])).max() > 0.03
    assert engine.answered("positions", without)["note"].endswith("; evidence b is missing: answered without it")


@pytest.mark.parametrize(
    ("fields", "field", "given"),
    [
        ({"evidence.a": "absent"}, "evidence.a", "missing"),
        ({"evidence.c": None}, "evidence.c", "evidence of that name"),
        ({"evidence.a": [0.5]}, "evidence.a", "1 values"),
        ({"evidence.a": 3}, "evidence.a", 3),
        ({"evidence.a": [float("nan")] * 120}, "evidence.a", "NaN"),
        ({"evidence.a": [1e39] * 120}, "evidence.a", 1e39),
        ({"evidence.a": [True] * 120}, "evidence.a", True),
        ({"evidence.": [1] * 120}, "evidence.", "an unknown field"),
    ],
)
def test_evidence_that_breaks_the_contract_is_named(
    release: Path, fields: dict[str, Any], field: str, given: Any
) -> None:
    engine = Engine(release)
    with pytest.raises(RequestError) as refused:
        list(engine.score_sequence(parse_sequence(body(**fields))))
    assert refused.value.status == 422
    assert (refused.value.details[0]["field"], refused.value.details[0]["given"]) == (field, given)


def test_a_model_that_does_not_answer_without_evidence_says_so(tmp_path: Path) -> None:
    engine = Engine(strong_release(tmp_path, evidence_dropout=0.0))
    with pytest.raises(RequestError, match=r"evidence: evidence.b; this model reads evidence.a, evidence.b") as refused:
        list(engine.score_sequence(parse_sequence(body(**{"evidence.b": None}))))
    assert refused.value.details == [
        {
            "row": None,
            "field": "evidence.b",
            "given": "null",
            "allowed": "a list of numbers, one a letter, null where there is none",
        }
    ]


def test_the_document_names_the_evidence_of_the_model(release: Path) -> None:
    settings = ServingSettings()
    found = of_model(document(settings), Engine(release), settings)
    request = found["components"]["schemas"]["SequenceRequest"]
    assert request["required"] == ["sequence", "evidence.a", "evidence.b"]
    content = found["paths"]["/v1/score_sequence"]["post"]["requestBody"]["content"]["application/json"]
    parse_sequence(json.dumps(content["example"]).encode())


def test_golden_sequences_hold_evidence(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "m", **READS)
    predictor = Predictor.load(bundle)
    one = made_up_sequence(predictor, "ACGT" * 20, np.random.default_rng(0))
    one.evidence["a"][:3] = np.nan
    write_golden_sequences(["made up"], [one], bundle, tmp_path / "golden.parquet")
    again = read_golden(tmp_path / "golden.parquet").sequences[0]
    np.testing.assert_array_equal(again.evidence["a"], one.evidence["a"])
    assert made_up_golden(bundle, tmp_path / "rows.parquet").is_file()


def test_a_servers_own_files_are_settings(evidence: dict[str, Any], tmp_path: Path) -> None:
    fasta, gtf = made.write(tmp_path, TEXT)
    text = f"a={evidence['a']};b={evidence['b']['plus']},{evidence['b']['minus']}"
    settings = ServingSettings(fasta=fasta, annotation=gtf, evidence=text)
    assert settings.evidence_sources == evidence
    settings.check_variant_files()
    assert settings.environment()["METALAYER_SERVE_EVIDENCE"] == text
    with pytest.raises(ConfigError, match=r"serve.evidence: given .*absent.bw, which is no file"):
        ServingSettings(fasta=fasta, annotation=gtf, evidence="a=absent.bw").check_variant_files()
    with pytest.raises(ConfigError, match="evidence: is for variants; give fasta and annotation too"):
        ServingSettings(evidence=text)
    with pytest.raises(ConfigError, match="evidence a: needed is NAME=PATH"):
        ServingSettings(fasta=fasta, annotation=gtf, evidence="a")


def test_the_clients_stream_is_read_as_json_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(MetaLayerClient, "_ask", lambda self, path, stream: sent.append(stream))
    scores, numbers = np.full((4, 3), 1 / 3, np.float32), np.float32([1.5, np.nan, -2, 0])
    with MetaLayerClient("http://127.0.0.1:1") as client:
        client.score_sequence("ACGT", scores, {"a": numbers, "b": np.full(4, np.nan)})
    given = read_sequence(sent[0], ServingSettings().limits)
    np.testing.assert_array_equal(given.evidence["a"], numbers)
    assert np.isnan(given.evidence["b"]).all()
    np.testing.assert_array_equal(given.bases[""], scores)
