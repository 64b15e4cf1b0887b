"""Evidence beside base scores: read, learned from, missed, and refused by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyBigWig
import pytest
import torch

from metalayer import cli
from metalayer.contigs import Contigs
from metalayer.core import MetaLayerConfig
from metalayer.data.tracks import TrackStore
from metalayer.errors import ConfigError, InputError
from metalayer.formats.evidence import Evidence
from metalayer.genome import Gene
from metalayer.inference import Predictor
from metalayer.models.evidence import EvidenceScale
from metalayer.models.meta import build_model
from metalayer.models.numpy_network import NumpyNetwork
from metalayer.settings.network import ModelConfig
from metalayer.settings.sections import DataConfig, EvaluateConfig
from metalayer.workflows.ablate import ablate, chosen_variants
from metalayer.workflows.score_genome import Shard, plan_shards, score_shard

PLUS, MINUS = Gene.from_table("P", "1", "+", 11, 20), Gene.from_table("M", "1", "-", 11, 20)


def bigwig(path: Path, values: dict[str, list[float]], lengths: dict[str, int] | None = None) -> Path:
    """Values of the first bases of contigs, NaN where there is none."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader([(name, (lengths or {}).get(name, len(of))) for name, of in values.items()])
        for name, of in values.items():
            at = [i for i, value in enumerate(of) if not np.isnan(value)]
            if at:
                file.addEntries([name] * len(at), at, ends=[i + 1 for i in at], values=[of[i] for i in at])
    return path


def numbers(n: int = 40) -> list[float]:
    """i at base i, without base 12, and 0 at base 13."""
    return [float("nan") if i == 12 else 0.0 if i == 13 else float(i) for i in range(n)]


def test_bases_of_a_gene_in_transcript_sense_and_missing_is_not_0(tmp_path: Path) -> None:
    path = bigwig(tmp_path / "a.bw", {"chr1": numbers()})
    expected = np.float32([10, 11, np.nan, 0, *range(14, 20)])
    evidence = Evidence({"a": str(path)})
    assert evidence.names == ("a",)
    np.testing.assert_array_equal(evidence.values(PLUS)["a"], expected)
    np.testing.assert_array_equal(evidence.values(MINUS)["a"], expected[::-1])
    np.testing.assert_array_equal(evidence.ascending(MINUS)["a"], expected)
    assert evidence.values(PLUS)["a"].dtype == np.float32


def test_a_file_a_strand(tmp_path: Path) -> None:
    plus = bigwig(tmp_path / "p.bw", {"1": numbers()})
    minus = bigwig(tmp_path / "m.bw", {"1": [-x for x in numbers()]})
    evidence = Evidence({"a": {"plus": str(plus), "minus": str(minus)}, "b": "none"})
    assert evidence.values(PLUS)["a"][0] == 10
    assert evidence.values(MINUS)["a"][-1] == -10
    assert np.isnan(evidence.values(PLUS)["b"]).all()


def test_parquet_is_read_as_bigwig_is(tmp_path: Path) -> None:
    table = pl.DataFrame({"chrom": ["chr1"] * 40, "position": range(1, 41), "value": numbers()})
    table.with_columns(pl.col("value").fill_nan(None)).write_parquet(tmp_path / "a.parquet")
    both = pl.concat([table.with_columns(strand=pl.lit("+")), table.with_columns(-pl.col("value"), strand=pl.lit("-"))])
    both.write_parquet(tmp_path / "b.parquet")
    path = bigwig(tmp_path / "a.bw", {"chr1": numbers()})
    found = Evidence({name: str(tmp_path / f"{name}.parquet") for name in "ab"} | {"c": str(path)}).values(MINUS)
    np.testing.assert_array_equal(found["a"], found["c"])
    np.testing.assert_array_equal(found["b"], -found["c"])


def test_files_that_cannot_be_of_these_genes_are_refused_by_name(tmp_path: Path) -> None:
    path = bigwig(tmp_path / "a.bw", {"chr2": numbers(), "chr3": numbers()})
    with pytest.raises(InputError, match=r"evidence a: gene P: .*a.bw: no contig 1; there are chr2, chr3"):
        Evidence({"a": str(path)}).values(PLUS)
    short = bigwig(tmp_path / "b.bw", {"chr1": numbers(15)})
    with pytest.raises(InputError, match=r"chr1 has 15 nt, but the gene lies at 11 to 20: it is of another genome"):
        Evidence({"a": str(short)}).values(PLUS)
    with pytest.raises(InputError, match=r"evidence a: .*: chr1 has 15 nt, but 40 in the reference"):
        Evidence({"a": str(short)}, lengths={"1": 40})
    infinite = bigwig(tmp_path / "c.bw", {"chr1": [float("inf")] * 40})
    with pytest.raises(InputError, match="evidence a: gene P: infinite numbers"):
        Evidence({"a": str(infinite)}).values(PLUS)
    whole = path.read_bytes()
    (tmp_path / "d.bw").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(InputError, match=r"evidence a: .*d.bw: not a whole BigWig"):
        Evidence({"a": str(tmp_path / "d.bw")}).values(PLUS)
    (tmp_path / "e.bw").write_text("chr1\t0\t10\t3\n")
    with pytest.raises(InputError, match=r"evidence a: .*e.bw is .*; needed is BigWig"):
        Evidence({"a": str(tmp_path / "e.bw")})
    with pytest.raises(InputError, match=r"f\.bw"):
        Evidence({"a": str(tmp_path / "f.bw")})
    pl.DataFrame({"chrom": ["1", "1"], "position": [12, 12], "value": [1.0, 2.0]}).write_parquet(tmp_path / "g.parquet")
    with pytest.raises(InputError, match="a position of 1 stands there twice"):
        Evidence({"a": str(tmp_path / "g.parquet")}).values(PLUS)
    pl.DataFrame({"chrom": ["1"], "start": [12]}).write_parquet(tmp_path / "h.parquet")
    with pytest.raises(InputError, match="no column position, value; needed are chrom, position"):
        Evidence({"a": str(tmp_path / "h.parquet")})


def test_other_names_of_contigs_meet_by_aliases(tmp_path: Path) -> None:
    aliases = tmp_path / "aliases.tsv"
    aliases.write_text("1\tNC_000001.11\n2\tNC_000002.12\n")
    path = bigwig(tmp_path / "a.bw", {"NC_000001.11": numbers()})
    assert Evidence({"a": str(path)}, Contigs.of(aliases)).values(PLUS)["a"][0] == 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a.bw", "needs names with a path each"),
        ({"a.b": "x.bw"}, "given the name 'a.b'; allowed are letters"),
        ({"a": 3}, r"evidence.a: given 3; needs a path, \{plus: PATH, minus: PATH\}"),
        ({"a": {"plus": "x.bw"}}, "needs a path"),
        ({"a": {"plus": "x.bw", "minus": "none"}}, "needs a path"),
        ({f"a{i}": "x.bw" for i in range(33)}, "given 33 names; 32 at most"),
    ],
)
def test_the_setting_says_what_it_takes(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(evidence=given)


def test_the_setting_reads_what_it_writes() -> None:
    config = DataConfig(evidence={"a": Path("x.bw"), "b": {"plus": "p.bw", "minus": "m.bw"}, "c": "column", "d": None})
    assert config.evidence == {"a": "x.bw", "b": {"plus": "p.bw", "minus": "m.bw"}, "c": "column", "d": "none"}
    assert DataConfig(**config.model_dump(mode="json")) == config


def test_scale_is_of_known_numbers_alone() -> None:
    scale = EvidenceScale(("a", "b", "c"), 0.0).eval()
    known = np.expm1(np.linspace(-1, 3, 2001)).astype(np.float32)
    evidence = np.stack([np.concatenate([known, np.full(9000, np.nan)]), np.full(11001, 7), np.full(11001, np.nan)], 1)
    scale.fit(evidence.astype(np.float32))
    assert scale.described()["a"]["centre"] == pytest.approx(np.log1p(np.expm1(1.0)), abs=1e-3)
    assert scale.scale.tolist()[1:] == [1.0, 1.0]
    given = torch.tensor([[[np.expm1(1.0), np.nan, 1e30, 0.0], [7, 7, 7, 7], [np.nan] * 4]], dtype=torch.float32)
    answer = scale(given, torch.tensor([[[True, True, True, False]]]))[0]
    assert answer[0].tolist() == pytest.approx([0.0, 0.0, 8.0, 0.0], abs=1e-3)  # the last is outside the gene
    assert answer[3:].tolist() == [[1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_each_piece_is_missing_in_a_share_of_crops_in_training() -> None:
    torch.manual_seed(0)
    scale = EvidenceScale(("a", "b"), 0.25).train()
    masks = scale(torch.ones(2000, 2, 3), torch.ones(2000, 1, 3, dtype=torch.bool))[:, 2:]
    assert (masks.amin(-1) == masks.amax(-1)).all()  # a crop has it or has it not
    dropped = 1 - masks[..., 0].mean(0)
    assert dropped.tolist() == pytest.approx([0.25, 0.25], abs=0.04)
    assert float((masks[:, 0, 0] - masks[:, 1, 0]).abs().mean()) == pytest.approx(2 * 0.25 * 0.75, abs=0.05)


SETTINGS = {
    "max_epochs": 6,
    "learning_rate": 5e-3,
    "threads": 1,
    "device": "cpu",
    "sequence_encoder": "none",
    "score_encoder": False,
    "track_encoder": "stages",
    "track_encoder_config": {"stages": 1, "channels": 8, "local_channels": 8, "distances": [1, 20, 60]},
    "crop_bp": 512,
}


SETTINGS_OF_A_VARIANT = {name: SETTINGS[name] for name in ("score_encoder", "track_encoder", "track_encoder_config")}


@pytest.fixture(scope="module")
def sources(simulation: Path) -> dict[str, str]:
    return {name: str(simulation / "evidence" / f"{name}.parquet") for name in ("conservation", "junctions")}


def options(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def files(simulation: Path) -> list[Path]:
    return sorted(simulation.glob("nucleotide_scores/*.parquet"))


@pytest.fixture(scope="module")
def trained(simulation: Path, sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads both pieces of planted evidence, and no letters."""
    folder = tmp_path_factory.mktemp("evidence") / "model"
    scores = files(simulation)
    command = ["train", "--scores", *map(str, scores[:-2]), "--valid-scores", str(scores[-2])]
    settings = options({**SETTINGS, "evidence": sources})
    assert cli.main([*command, "--output-dir", str(folder), *settings]) == 0
    return folder


def test_the_model_says_what_it_reads_and_how_that_is_scaled(trained: Path, sources: dict[str, str]) -> None:
    predictor = Predictor.load(trained)
    assert predictor.evidence == ("conservation", "junctions")
    assert predictor.info["model"]["evidence"] == ["conservation", "junctions"]
    described = predictor.info["evidence"]
    store = TrackStore(trained / "data" / "train_tracks.parquet")
    assert store.evidence == ("conservation", "junctions")
    known = np.concatenate([track.evidence["conservation"] for track in store.read_many(list(store.genes()))])
    known = known[~np.isnan(known)]
    assert described["conservation"]["centre"] == pytest.approx(np.median(np.sign(known) * np.log1p(np.abs(known))))
    assert described["conservation"]["dropout"] == 0.1
    assert "evidence conservation, junctions included" in predictor.note("positions")
    assert set(predictor.info["data_hash"]) >= {"conservation.parquet", "junctions.parquet"}


def held_out(trained: Path, simulation: Path, sources: dict[str, str], folder: Path) -> TrackStore:
    config = MetaLayerConfig(base_model="pwm", evidence=sources)
    from metalayer.workflows.train_genes import gene_names, read_file

    table, contigs = gene_names(config)
    return read_file(files(simulation)[-1:], folder / "tracks.parquet", table, contigs, config).store


def test_torch_and_numpy_answer_alike_whatever_the_block(
    trained: Path, simulation: Path, sources: dict[str, str], tmp_path: Path
) -> None:
    store = held_out(trained, simulation, sources, tmp_path)
    track = store.read(next(iter(store.genes())))
    torched, plain = Predictor.load(trained), Predictor(*NumpyNetwork.load(trained / "model"), "digest")
    expected = torched.predict_gene_track(track)
    np.testing.assert_allclose(plain.predict_gene_track(track), expected, atol=1e-6, rtol=0)
    plain.position_block = torched.position_block = 97
    np.testing.assert_allclose(torched.predict_gene_track(track), expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(plain.predict_gene_track(track), expected, atol=1e-6, rtol=0)
    none = {name: np.full(len(track), np.nan, np.float32) for name in track.evidence}
    from dataclasses import replace

    without = replace(track, evidence=none)
    assert np.abs(torched.predict_gene_track(without) - expected).max() > 0.1
    np.testing.assert_allclose(
        plain.predict_gene_track(without), torched.predict_gene_track(without), atol=1e-6, rtol=0
    )
    with pytest.raises(InputError, match=r"no evidence junctions, which the model reads"):
        torched.predict_gene_track(replace(track, evidence={"conservation": track.evidence["conservation"]}))


def test_evidence_is_asked_for_refused_and_masked_with_a_word(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor = Predictor.load(trained)
    with pytest.raises(
        ConfigError, match=r"no junctions; this model reads conservation, junctions\. Name a file of each, or"
    ):
        predictor.check_evidence({"conservation": "a.bw"})
    with pytest.raises(ConfigError, match="given phylop; this model reads conservation, junctions"):
        predictor.check_evidence({"conservation": "a.bw", "junctions": "b.bw", "phylop": "c.bw"})
    with caplog.at_level(logging.WARNING):
        predictor.check_evidence({"conservation": "a.bw", "junctions": "none"})
    assert "evidence junctions is missing: answered without it" in caplog.text
    predictor.model.evidence_dropout = 0.0
    with pytest.raises(ConfigError, match="trained with evidence_dropout 0"):
        predictor.check_evidence({"conservation": "a.bw", "junctions": "none"})


def test_training_refuses_evidence_that_it_cannot_read(simulation: Path, tmp_path: Path, capsys: Any) -> None:
    scores = [str(path) for path in files(simulation)[:3]]
    command = ["train", "--scores", *scores, "--output-dir", str(tmp_path / "m"), "--set", "max_epochs=1"]
    for more, message in (
        ({"evidence": {"a": "none"}}, "data.evidence.a: given 'none'; a model learns from numbers"),
        ({"evidence": {"a": "column"}}, "no column evidence.a"),
    ):
        assert cli.main([*command, *options(more)]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    for network in (ModelConfig(), ModelConfig(head="stack")):
        with pytest.raises(ConfigError, match="evidence: given a, b without a track encoder, which reads it"):
            build_model(network, ["a", "b"])


@pytest.fixture(scope="module")
def evaluated(
    trained: Path, simulation: Path, sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Reports on genes that the model has not seen: with its evidence, with shuffled evidence, and without."""
    folder = tmp_path_factory.mktemp("evaluated")
    given = {"planted": sources, "shuffled": shuffled(sources, folder), "without": dict.fromkeys(sources, "none")}
    found = {}
    for name, evidence in given.items():
        command = ["evaluate", "--model", str(trained), "--scores", str(files(simulation)[-1])]
        more = [word for one, path in evidence.items() for word in ("--evidence", f"{one}={path}")]
        assert cli.main([*command, *more, "--output", str(folder / f"{name}.json")]) == 0
        found[name] = json.loads((folder / f"{name}.json").read_text())
    return found


def shuffled(sources: dict[str, str], folder: Path) -> dict[str, str]:
    """The same numbers at other bases of the same contig and strand."""
    rng = np.random.default_rng(1)
    for name, path in sources.items():
        table = pl.read_parquet(path)
        order = [rng.permutation(len(table))]
        table.with_columns(value=table["value"].gather(order[0])).write_parquet(folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in sources}


def splice_ap(report: dict[str, Any], system: str = "meta") -> float:
    return float(report[system]["pr_auc_splice"])


def test_planted_evidence_is_found_and_of_wrong_bases_it_says_nothing(evaluated: dict[str, dict[str, Any]]) -> None:
    base = splice_ap(evaluated["planted"], "base")
    assert splice_ap(evaluated["planted"]) > base + 0.4
    assert splice_ap(evaluated["shuffled"]) < base + 0.01
    assert splice_ap(evaluated["without"]) > base - 0.05


def test_ablation_names_the_evidence_that_brings_something(
    simulation: Path, sources: dict[str, str], tmp_path: Path
) -> None:
    junctions = {"junctions": sources["junctions"]}
    chosen = chosen_variants(["tracks", "tracks-junctions"], None, junctions)
    variants = {name: {**SETTINGS_OF_A_VARIANT, **settings} for name, settings in chosen.items()}
    variants["noise"] = {**variants["tracks"], "evidence": {"junctions": shuffled(junctions, tmp_path)["junctions"]}}
    scores, alike = files(simulation), {"learning_rate": 0.01, "max_epochs": 4, "threads": 1, "device": "cpu"}
    report = ablate(
        scores[:3],
        scores[3:5],
        scores[5:7],
        MetaLayerConfig(training_unit="genes", crop_bp=512, evidence=junctions, **alike),
        tmp_path / "out",
        variants=variants,
        seeds=[1],
        evaluation=EvaluateConfig(n_bootstrap=200),
    )
    assert not any(variant["errors"] for variant in report["variants"])
    found = {variant["name"]: variant["compared"] for variant in report["variants"]}
    gains = {name: of["minus_base"]["pr_auc_splice"] for name, of in found.items()}
    print(gains)
    assert gains["tracks"]["low"] > 0.2
    assert found["tracks-junctions"]["minus_reference"]["pr_auc_splice"]["high"] < -0.2
    assert gains["noise"]["value"] < 0.05


def test_variants_of_an_ablation_leave_each_piece_out() -> None:
    chosen = chosen_variants([], None, {"a": "a.bw", "b": "b.bw"})
    assert list(chosen) == ["none", "cnn", "tracks", "cnn+tracks", "tracks-a", "tracks-b", "tracks-evidence"]
    assert chosen["tracks-a"] == {**chosen["tracks"], "evidence": {"b": "b.bw"}}
    assert chosen["tracks-evidence"]["evidence"] == {}
    with pytest.raises(ConfigError, match="variant 'tracks-c': unknown"):
        chosen_variants(["tracks-c"], None, {"a": "a.bw"})


def test_a_base_pass_writes_columns_that_are_read_as_the_files_are(
    trained: Path, simulation: Path, sources: dict[str, str], tmp_path: Path
) -> None:
    genome = simulation / "genome"
    given = [word for name, path in sources.items() for word in ("--evidence", f"{name}={path}")]
    command = ["base", "run", "--model", "pwm", "--fasta", str(genome / "simulated.fa")]
    out = tmp_path / "out"
    assert cli.main([*command, "--annotation", str(genome / "simulated.gff3"), *given, "--output", str(out)]) == 0
    theirs, ours = (sorted(folder.glob("nucleotide_scores/*.parquet"))[-1] for folder in (simulation, out))
    answers = []
    for path, more in ((theirs, given), (ours, [])):
        answers.append(tmp_path / f"{len(answers)}.parquet")
        score = ["score", str(path), "--model", str(trained), "--output", str(answers[-1])]
        assert cli.main([*score, *more]) == 0
    one, other = map(pl.read_parquet, answers)
    assert one.select("gene_id", "position", "donor", "acceptor").equals(
        other.select("gene_id", "position", "donor", "acceptor")
    )
    assert "evidence.junctions" in pl.read_parquet_schema(ours)
    manifest = json.loads((out / "base_layer_pwm.json").read_text())
    assert manifest["evidence"]["junctions"][0]["name"] == "junctions.parquet"


def test_scoring_refuses_evidence_that_is_not_there(
    trained: Path, simulation: Path, sources: dict[str, str], tmp_path: Path, capsys: Any
) -> None:
    score = ["score", str(files(simulation)[-1]), "--model", str(trained), "--output", str(tmp_path / "a.parquet")]
    for more, message in (
        ([], "--evidence: no conservation, junctions; this model reads conservation, junctions"),
        (["--evidence", "conservation"], "--evidence conservation: needed is NAME=PATH"),
        (["--evidence", "a=b", "--evidence", "a=c"], "--evidence a=c: is named twice"),
    ):
        assert cli.main([*score, *more]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "a.parquet").exists()


def test_shards_carry_their_evidence(trained: Path, simulation: Path, sources: dict[str, str], tmp_path: Path) -> None:
    config = DataConfig(base_model="pwm", data_root=simulation, evidence=sources)
    plan = plan_shards(config, 11)
    shard = min(plan.shards, key=lambda one: one.positions)
    assert set(plan.copied) == {*plan.files, *map(Path, sources.values())}
    assert plan.data_hash != plan_shards(config.model_copy(update={"evidence": {}}), 11).data_hash
    paths = [simulation / "nucleotide_scores" / name for name in shard.files]
    shard = Shard.model_validate_json(shard.model_dump_json())
    manifest = score_shard(shard, paths, trained / "model", tmp_path / "a.parquet", device="cpu", threads=1)
    assert manifest["evidence"] == sources
    none = shard.model_copy(update={"evidence": {}})
    with pytest.raises(ConfigError, match=r"data\.evidence: no conservation, junctions"):
        score_shard(none, paths, trained / "model", tmp_path / "b.parquet", device="cpu", threads=1)


def test_registering_asks_for_evidence_first(trained: Path, simulation: Path, capsys: Any) -> None:
    assert cli.main(["register", str(trained), "--scores", str(files(simulation)[-1])]) == 2
    message = "--evidence: no conservation, junctions; this model reads conservation, junctions"
    assert message in capsys.readouterr().err.replace("\n", " ")
