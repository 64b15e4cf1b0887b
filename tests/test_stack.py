"""Several base models joined: the untrained mean, the stack that corrects it, and a model of it from file to answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from several import THREE, merge_three

from metalayer.cli import main
from metalayer.core import MetaLayerConfig
from metalayer.data.gene_table import genes_from_frame, read_gene_table
from metalayer.data.mean import untrained_mean
from metalayer.data.score_files import ScoreFile
from metalayer.data.tracks import TrackStore
from metalayer.errors import InputError, ModelError, TrainingError
from metalayer.evaluation.metrics import average_precision
from metalayer.gene_track import GeneTrack
from metalayer.genome import decode
from metalayer.inference import Predictor
from metalayer.integrity import write_json
from metalayer.models import stack as stacks
from metalayer.models.bundle import load_model
from metalayer.models.description import DESCRIPTION, content_of
from metalayer.models.stack import RANGES_BP, SITES, SiteWeights, Stack, feature_names, is_candidate, look
from metalayer.release.contract import RequestError, SequenceInput
from metalayer.release.engine import Engine
from metalayer.release.folder import write_release
from metalayer.release.golden import made_up_golden
from metalayer.schema import ACCEPTOR, DONOR, NEITHER, SPLICED_SCORE
from metalayer.training import stacking
from metalayer.training.stacking import fit_stack
from metalayer.workflows import fit
from metalayer.workflows.train_genes import train_on_scores


def probabilities(length: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet([0.02, 0.02, 1], length).astype(np.float32)


def bases(length: int) -> dict[str, NDArray[np.float32]]:
    left, right = probabilities(length, 1), probabilities(length, 2)
    return {"left": left, "right": right, "spliced": 1 - probabilities(length, 3)[:, NEITHER:]}


def test_the_mean_is_the_geometric_one() -> None:
    given = bases(400)
    floored = {name: np.maximum(scores.astype(np.float64), 1e-10) for name, scores in given.items()}
    pair = np.sqrt(floored["left"] * floored["right"])
    found = untrained_mean({name: given[name] for name in ("left", "right")})
    assert np.allclose(found, pair / pair.sum(axis=1, keepdims=True), atol=1e-6)
    # P(spliced) is divided as the two others divide it.
    share = pair[:, DONOR] / (pair[:, DONOR] + pair[:, ACCEPTOR])
    spliced = given["spliced"][:, 0].astype(np.float64)
    third = np.maximum(np.stack([spliced * share, spliced * (1 - share), 1 - spliced], axis=1), 1e-10)
    triple = np.cbrt(floored["left"] * floored["right"] * third)
    assert np.allclose(untrained_mean(given), triple / triple.sum(axis=1, keepdims=True), atol=1e-6)
    assert np.allclose(untrained_mean({"left": given["left"]}), given["left"], atol=1e-6)
    with pytest.raises(
        InputError, match="scores of base model spliced: given spliced_score alone, which does not tell"
    ):
        untrained_mean({"spliced": given["spliced"]})


def test_features_are_what_each_base_says_here_and_around() -> None:
    length = 6000
    given = bases(length)
    names = feature_names(tuple(given), ("left", "right"))
    at_all = np.flatnonzero(is_candidate(given, ACCEPTOR))
    seen = look(given, ACCEPTOR, untrained_mean(given), at_all)
    high = np.maximum.reduce([given["left"][:, ACCEPTOR], given["right"][:, ACCEPTOR], given["spliced"][:, 0]])
    assert np.array_equal(at_all, np.flatnonzero(high.astype(np.float64) >= stacks.CANDIDATE))
    assert seen.features.shape == (len(at_all), len(names)) == (len(at_all), 5 + 2 * 2 * (len(RANGES_BP) - 1))
    left, right, spliced = given["left"], given["right"], given["spliced"][:, 0]
    own = {
        "left: same": left[:, ACCEPTOR],
        "left: other": left[:, DONOR],
        "right: same": right[:, ACCEPTOR],
        "right: other": right[:, DONOR],
        "spliced: spliced": spliced,
    }
    assert names[:5] == list(own)
    highest = [np.maximum(np.maximum(left, right)[:, ACCEPTOR], spliced), np.maximum(left, right)[:, DONOR]]
    logs = [np.log(np.maximum(track, 1e-6)) for track in highest]
    for row in (0, len(at_all) // 2, len(at_all) - 1):
        at = at_all[row]
        expected = [logit(np.clip(float(track[at]), 1e-6, 1 - 1e-6)) for track in own.values()]
        for track in logs:
            for first, behind in pairwise(RANGES_BP):
                before = track[max(0, at - behind + 1) : max(0, at - first + 1)]
                after = track[at + first : at + behind]
                expected += [side.max() if len(side) else np.log(1e-6) for side in (before, after)]
        assert np.allclose(seen.features[row], expected, atol=1e-4)
    assert names[5:7] == ["highest same, before 1 to 1 bp", "highest same, behind 1 to 1 bp"]


def test_a_stack_that_learned_nothing_is_the_mean() -> None:
    given = bases(500)
    nothing = SiteWeights(1.0, 0.0, np.zeros(len(feature_names(tuple(given), ("left", "right")))))
    stack = Stack(tuple(given), ("left", "right"), "left", (nothing, nothing), 100.0)
    assert np.allclose(stack.scores(given), untrained_mean(given), atol=1e-6)
    assert np.array_equal(replace(stack, weights=None).scores(given), untrained_mean(given))
    again = Stack.of(json.loads(json.dumps(stack.described())))
    assert np.array_equal(again.scores(given), stack.scores(given))
    shuffled = {name: given[name] for name in ("spliced", "right", "left")}
    assert np.array_equal(stack.scores(shuffled), stack.scores(given))
    with pytest.raises(
        InputError, match=r"base scores of left \(donor_score.*; this model reads those of left .*right"
    ):
        stack.scores({"left": given["left"]})
    for damage in ({"features": ["left: same"]}, {"weights": [{}]}, {"bases": ["left"]}):
        with pytest.raises(ModelError, match="the description of the stack cannot be used"):
            Stack.of(stack.described() | damage)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given, rng = bases(9000), np.random.default_rng(3)
    count = len(feature_names(tuple(given), ("left", "right")))
    weights = tuple(SiteWeights(0.9, -0.1, rng.normal(size=count) / 50) for _ in SITES)
    stack = Stack(tuple(given), ("left", "right"), "left", weights, 100.0)
    whole = stack.scores(given)
    monkeypatch.setattr(stacks, "_BLOCK", 1000)
    assert np.abs(stack.scores(given) - whole).max() < 1e-6


def test_newton_finds_the_penalised_optimum() -> None:
    rng = np.random.default_rng(5)
    design = np.concatenate([rng.normal(size=(800, 6)), rng.normal(size=(800, 1)) * 3, np.ones((800, 1))], axis=1)
    truth = np.array([1.0, -0.5, 0, 0, 0, 0.2, 0.8, -1.0])
    positive = rng.random(800) < 1 / (1 + np.exp(-design @ truth))
    weigh, folds = rng.choice([1.0, 3.0], 800), []
    for part in (slice(0, 300), slice(300, 800)):
        fold = stacking._Fold()
        fold.design, fold.positive, fold.weights = design[part], positive[part], weigh[part]
        folds.append(fold)
    prior = np.array([0.0] * 6 + [1.0, 0.0])
    precision = np.array([10.0] * 7 + [1e-6])

    found = stacking._newton(folds, prior, 10.0, prior)
    residual = expit(design @ found) - positive
    assert (
        np.abs(design.T @ (weigh * residual) + precision * (found - prior)).max() < 1e-6
    )  # of a convex loss: its one minimum
    assert np.abs(found[:2] - truth[:2]).max() < 0.2
    elsewhere = stacking._newton(folds, prior, 10.0, prior + 1.0)
    assert np.abs(elsewhere - found).max() < 1e-6


@pytest.fixture(scope="module")
def merged(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return merge_three(simulation, tmp_path_factory.mktemp("several"))


def store_of(path: Path, folder: Path) -> TrackStore:
    return ScoreFile.read([path], folder / f"{path.stem}-canonical.parquet", {}).store


def precisions(store: TrackStore, scores: dict[str, list[NDArray[np.float32]]], gene_ids: Sequence[str]) -> dict:
    labels = np.concatenate([store.read(gene_id).labels for gene_id in gene_ids])
    return {
        name: min(average_precision(labels == site, np.concatenate(found)[:, site]) for site in SITES)
        for name, found in scores.items()
    }


def test_a_stack_finds_what_the_bases_know_together(merged: dict[str, Path], tmp_path: Path) -> None:
    store, test = (store_of(merged[part], tmp_path) for part in ("train", "test"))
    gene_ids = sorted(store.genes())
    fitted = fit_stack(store, gene_ids, [[gene_id] for gene_id in gene_ids], seed=0)
    scores: dict[str, list[NDArray[np.float32]]] = {"left": [], "mean": [], "stack": []}
    others = sorted(test.genes())
    for track in test.read_many(others):
        scores["left"].append(track.bases["left"])
        scores["mean"].append(track.scores)
        scores["stack"].append(fitted.stack.scores(track.bases))
    found = precisions(test, scores, others)
    assert found["stack"] > found["mean"] + 0.01 > found["left"] + 0.02, found
    assert fitted.losses[fitted.stack.penalty] < fitted.losses[None]
    again = fit_stack(store, gene_ids, [[gene_id] for gene_id in gene_ids], seed=0)
    assert again.stack.described() == fitted.stack.described()


def test_what_a_training_gene_is_answered_was_not_learned_from_it(
    merged: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(merged["train"], tmp_path)
    gene_ids = sorted(store.genes())[:12]
    groups = [gene_ids[i : i + 2] for i in range(0, 12, 2)]
    monkeypatch.setattr(stacking, "PENALTIES", (100.0,))
    before = fit_stack(store, gene_ids, groups, seed=0)
    other, own = gene_ids[0], gene_ids[1]
    read = TrackStore.read

    def turned(self: TrackStore, gene_id: str, base_model: str | None = None) -> GeneTrack:
        track = read(self, gene_id, base_model)
        if gene_id != own:
            return track
        swapped = np.select([track.labels == DONOR, track.labels == ACCEPTOR], [ACCEPTOR, DONOR], NEITHER)
        return replace(track, labels=swapped.astype(np.uint8))

    monkeypatch.setattr(TrackStore, "read", turned)
    after = fit_stack(store, gene_ids, groups, seed=0)
    for gene_id in (own, other):  # of one group
        assert np.array_equal(after.held_out(store.read(gene_id)), before.held_out(store.read(gene_id)))
    assert not np.array_equal(after.stack.scores(store.read(own).bases), before.stack.scores(store.read(own).bases))
    with pytest.raises(TrainingError, match=r"12 training genes form only 3 clusters .* set model.head to network"):
        fit_stack(store, gene_ids, [gene_ids[i : i + 4] for i in range(0, 12, 4)], seed=0)


def test_paralogs_are_in_one_fold(simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the gene table, through files to the folds, though paralogs neither overlap nor have the same letters."""
    table, files = simulation / "genes.tsv", sorted(simulation.glob("nucleotide_scores/*.parquet"))
    config = MetaLayerConfig.for_scores({"base_model": "pwm", "head": "stack", "gene_table": table}, separate=False)
    drawn: list[Sequence[Sequence[str]]] = []

    def fitted(store: object, gene_ids: object, groups: Sequence[Sequence[str]], *_: object, **__: object) -> NoReturn:
        drawn.append(groups)
        raise TrainingError("enough")

    monkeypatch.setattr(fit, "fit_stack", fitted)
    with pytest.raises(TrainingError, match="enough"):
        train_on_scores(files, [], config, tmp_path)
    group_of = {gene_id: number for number, group in enumerate(drawn[0]) for gene_id in group}
    paralogs: dict[str, list[str]] = {}
    for gene_id, gene in genes_from_frame(read_gene_table(table)).items():
        if gene.paralog_group and gene_id in group_of:
            paralogs.setdefault(gene.paralog_group, []).append(gene_id)
    several = [gene_ids for gene_ids in paralogs.values() if len(gene_ids) > 1]
    assert several
    assert all(len({group_of[gene_id] for gene_id in gene_ids}) == 1 for gene_ids in several)


def test_from_files_to_answers(merged: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, report = tmp_path / "model", tmp_path / "report.json"
    train = ["train", "--scores", str(merged["train"]), "--base-model", THREE, "--set", "head=stack"]
    assert main([*train, "--output-dir", str(output)]) == 0
    shown = capsys.readouterr().out
    assert f"metalayer evaluate --model {output} --scores FILE" in shown
    assert main(["evaluate", "--model", str(output), "--scores", str(merged["test"]), "--output", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "untrained mean of all" in shown
    found = json.loads(report.read_text())
    assert set(found["differences"]) == {"mean", "bases.left", "bases.right"}
    assert found["meta"]["ap_donor"] > found["mean"]["ap_donor"] > found["base"]["ap_donor"]
    model, info = load_model(output / "model")
    assert not list(model.parameters())
    content = content_of(output / "model")
    other = info["stack"] | {"penalty": 1.0}
    (tmp_path / "other").mkdir()
    write_json(tmp_path / "other" / DESCRIPTION, info | {"stack": other})
    assert content_of(tmp_path / "other") != content
    best = info["stack"]["best"]
    assert found["base"]["ap_donor"] == found[f"bases.{best}"]["ap_donor"]
    assert found["row_answers"] is None

    scored = tmp_path / "scored.parquet"
    assert main(["score", str(merged["test"]), "--model", str(output), "--output", str(scored)]) == 0
    store, predictor = store_of(merged["test"], tmp_path), Predictor.load(output)
    gene_id = min(store.genes())
    track = store.read(gene_id)
    rows = pl.read_parquet(scored).filter(pl.col("gene_id").cast(pl.String) == gene_id).sort("position")
    ours = predictor.predict_gene_track(track)
    written = rows.select("donor", "acceptor", "neither").to_numpy()
    assert np.array_equal(written if track.gene.strand == "+" else written[::-1], ours)
    with pytest.raises(InputError, match="this model reads base scores around a position"):
        predictor.predict_rows(np.full((1, 7), 1 / 3, np.float32), np.zeros((1, 500), np.uint8))
    assert predictor.ways()["rows"]["note"].startswith("not answered")
    with pytest.raises(InputError, match=r"this model reads those of left .*, right .*, spliced \(spliced_score\)"):
        predictor.predict_gene_track(replace(track, several={"left": track.bases["left"]}))
    alone = merged["test"].with_name("test-left.parquet")
    assert main(["evaluate", "--model", str(output), "--scores", str(alone), "--output", str(report)]) == 2
    assert "left" in capsys.readouterr().err

    code = (
        "import sys, numpy as np, metalayer.inference.predictor as p\n"
        "p.has_torch = lambda: False\n"
        "from metalayer.data.tracks import TrackStore\n"
        "track = TrackStore(sys.argv[2]).read(sys.argv[3])\n"
        "np.save(sys.argv[4], p.Predictor.load(sys.argv[1]).predict_gene_track(track))\n"
    )
    light = tmp_path / "light.npy"
    canonical = tmp_path / f"{merged['test'].stem}-canonical.parquet"
    subprocess.run([sys.executable, "-c", code, str(output), str(canonical), gene_id, str(light)], check=True)
    assert np.abs(np.load(light) - ours).max() < 1e-6


def test_answers_without_a_base_model(
    merged: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """`base_dropout`: as a stack answers that was trained without it, and the answer says so."""
    sets = ["--set", "head=stack", "--set", "base_dropout=true"]
    train = ["train", "--scores", str(merged["train"]), "--base-model", THREE]
    assert main([*train, *sets, "--output-dir", str(tmp_path / "model")]) == 0
    predictor, store = Predictor.load(tmp_path / "model"), store_of(merged["test"], tmp_path)
    whole = predictor.stack
    assert whole is not None
    assert {name: stack.bases for name, stack in whole.without.items()} == {
        "left": ("right", "spliced"),
        "right": ("left", "spliced"),
        "spliced": ("left", "right"),
    }
    track = store.read(min(store.genes()))
    two = {name: track.bases[name] for name in ("left", "spliced")}
    assert np.array_equal(whole.scores(two), whole.without["right"].scores(two))
    with pytest.raises(InputError, match=r"or all but one of left, right, spliced"):
        whole.scores({"left": track.bases["left"]})

    folder = merged["test"].parent
    files = [f"{name}={folder / f'test-{name}.parquet'}" for name in two]
    assert main(["merge", *files, "--output", str(tmp_path / "two.parquet")]) == 0
    score = ["score", str(tmp_path / "two.parquet"), "--output", str(tmp_path / "scored.parquet")]
    assert main([*score, "--model", str(tmp_path / "model")]) == 0
    note = "base model right is missing: answered by a stack of the others"
    assert note in caplog.text
    assert note in str(pq.read_schema(tmp_path / "scored.parquet").metadata)
    other = tmp_path / "refuses"
    assert main([*train, "--set", "head=stack", "--output-dir", str(other)]) == 0
    assert main([*score, "--model", str(other)]) == 2
    assert "no scores of base model right" in capsys.readouterr().err
    two_only = ["train", "--scores", str(tmp_path / "two.parquet"), "--base-model", "left+spliced"]
    assert main([*two_only, *sets, "--output-dir", str(tmp_path / "fails")]) == 2
    assert "model.base_dropout: given true, and scores of left, spliced" in capsys.readouterr().err


def test_a_network_on_top_of_a_stack(merged: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "model"
    settings = ["head=both", "max_epochs=1", "track_encoder_config={stages: 1, channels: 4, distances: [1, 10]}"]
    sets = [word for setting in settings for word in ("--set", setting)]
    assert (
        main(["train", "--scores", str(merged["train"]), "--base-model", THREE, *sets, "--output-dir", str(output)])
        == 0
    )
    predictor, store = Predictor.load(output), store_of(merged["test"], tmp_path)
    track = store.read(min(store.genes()))
    predictor.model.calibrator("positions").set_shrinkage(0.0, 0.0)
    unchanged = np.exp(predictor.log_probabilities(track))
    assert predictor.stack is not None
    assert np.abs(unchanged - predictor.stack.scores(track.bases)).max() < 1e-6


def test_a_stack_of_one_base_reads_what_is_around(simulation: Path, tmp_path: Path) -> None:
    files = [str(path) for path in sorted(simulation.glob("nucleotide_scores/*.parquet"))]
    output, report = tmp_path / "model", tmp_path / "report.json"
    train = [
        "train",
        "--scores",
        *files[:-2],
        "--base-model",
        "pwm",
        "--set",
        "head=stack",
        "--output-dir",
        str(output),
    ]
    assert main(train) == 0
    assert main(["evaluate", "--model", str(output), "--scores", *files[-2:], "--output", str(report)]) == 0
    found = json.loads(report.read_text())
    assert not found["differences"]
    assert found["difference"]["pr_auc_splice"]["value"] > 0
    predictor = Predictor.load(output)
    track = ScoreFile.read([Path(files[-1])], tmp_path / "one.parquet", {}).store
    one = track.read(min(track.genes()))

    ours = predictor.predict_gene_track(one)
    assert np.array_equal(predictor.predict_tracks(decode(one.tokens), one.scores), ours)

    # Served, it takes the scores of its base with or without its name.
    release = tmp_path / "release"
    release.mkdir()
    golden = made_up_golden(output / "model", tmp_path / "golden.parquet")
    write_release(release, output / "model", golden, {"name": "metalayer-pwm", "version": "1"})
    engine = Engine(release)
    for name in ("", "pwm"):
        blocks = engine.score_sequence(SequenceInput(decode(one.tokens), {name: one.scores}))
        assert np.array_equal(np.concatenate(list(blocks)), np.concatenate([one.scores, ours], axis=1))
    with pytest.raises(RequestError, match="given scores of other; this model reads donor_score, acceptor_score"):
        list(engine.score_sequence(SequenceInput(decode(one.tokens), {"other": one.scores})))


@pytest.mark.slow
def test_real_bases_together_beat_the_best_of_them(shared: Path, tmp_path: Path) -> None:
    """All isoforms' donors of chr3 by a stack of three bases that was trained on chr1, chr5 and chr7."""
    real, paths = shared / "real" / "nucleotide_scores", {}
    for chrom in ("1", "3", "5", "7"):
        frame = pl.read_parquet(real / f"openspliceai_10000_chr{chrom}.parquet")
        tissues = pl.read_parquet(real / f"pangolin_chr{chrom}.parquet")
        spliced = tissues.select(pl.mean_horizontal("heart", "liver", "brain", "testis")).to_series()
        pangolin = tmp_path / f"pangolin_chr{chrom}.parquet"
        frame.drop("donor_score", "acceptor_score", "neither_score").with_columns(
            spliced.cast(pl.Float32).alias(SPLICED_SCORE)
        ).write_parquet(pangolin)
        given = [f"openspliceai_10000={real / f'openspliceai_10000_chr{chrom}.parquet'}", f"pangolin={pangolin}"]
        given += [f"spliceai={real / f'spliceai_chr{chrom}.parquet'}"]
        paths[chrom] = tmp_path / f"merged_chr{chrom}.parquet"
        assert main(["merge", *given, "--output", str(paths[chrom])]) == 0
    output, report = tmp_path / "model", tmp_path / "report.json"
    name = "openspliceai_10000+pangolin+spliceai"
    scores = [str(paths[chrom]) for chrom in ("1", "5", "7")]
    train = ["train", "--scores", *scores, "--base-model", name, "--set", "head=stack", "--output-dir", str(output)]
    assert main(train) == 0
    assert main(["evaluate", "--model", str(output), "--scores", str(paths["3"]), "--output", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["difference"]["ap_donor"]["low"] > 0
    assert found["differences"]["mean"]["ap_donor"]["low"] > -0.001
