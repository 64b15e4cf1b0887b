"""`--pipeline score` as a user runs it: shards that were made are not made again, whatever happened to the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from metalayer.data.scored import ScoredGenome
from metalayer.files import sha256
from metalayer.models.description import digest
from metalayer.settings.sections import DataConfig
from metalayer.workflows.score_genome import merge_shards, plan_shards, score_shard
from tests import forked
from tests.releases import make_bundle, make_golden
from tests.test_pipeline import ROOT, RUN, Ended, execute, execute_in_new_process, found

SHARDS = 4
STEPS = [f"score_shard_{number}" for number in range(1, SHARDS + 1)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models."""
    folder = tmp_path_factory.mktemp("score_pipeline")
    make_bundle(folder / "model")
    make_bundle(folder / "other", seed=1)
    return folder


def arguments(simulation: Path, *settings: str) -> list[str]:
    sets = (f"score.shards={SHARDS}", "score.threads=1", *settings)
    program = ["--pipeline", "score", "--data-root", str(simulation)]
    return [*program, *(part for setting in sets for part in ("--set", setting))]


def run(work: Path, simulation: Path, *settings: str) -> Ended:
    return execute(work / "state", [str(RUN), *arguments(simulation, *settings)])


def cached(ended: Ended) -> list[str]:
    assert ended.code == 0, ended.err
    return sorted(found(r"^cached +(.+)$", ended.out).split(", "))


def unsharded(simulation: Path, model: Path, folder: Path) -> Path:
    """The same genes scored by the library in one go."""
    plan = plan_shards(DataConfig(base_model="pwm", data_root=simulation), 1)
    manifest = score_shard(plan.shards[0], list(plan.files), model, folder / "one.parquet", threads=1)
    facts = {"base_model": "pwm", "genome_build": None, "model": {"digest": digest(model)}}
    merge_shards(plan.shards, [(folder / "one.parquet", manifest)], facts, folder / "whole.parquet")
    return folder / "whole.parquet"


@pytest.mark.integration
class TestRuns:
    """In order: each run leaves its state to the next."""

    def test_a_step_a_shard(self, work: Path, simulation: Path, tmp_path: Path) -> None:
        ended = run(work, simulation, "score.model=model", "score.output=out/genome.parquet")
        assert cached(ended) == ["no step"]
        assert [line.split()[1] for line in ended.err.splitlines() if line.startswith("[")] == [*STEPS, "merge_shards"]
        assert f"[{SHARDS + 1}/{SHARDS + 1}] merge_shards" in ended.err
        assert ended.out.endswith("exit status 0: scored\n")
        output = work / found(r"^wrote +(\S+)$", ended.out)
        told = json.loads(output.with_suffix(".json").read_text())
        assert told["sha256"] == sha256(output)
        assert told["model"] == {"digest": digest(work / "model"), "name": None, "version": None}
        assert [shard["shard"] for shard in told["shards"]] == list(range(1, SHARDS + 1))
        assert pq.read_table(output).equals(pq.read_table(unsharded(simulation, work / "model", tmp_path)))
        assert not (work / "state" / "work").exists()

    def test_the_same_again_computes_nothing(self, work: Path, simulation: Path) -> None:
        assert cached(run(work, simulation, "score.model=model", "score.output=again.parquet")) == [
            "merge_shards",
            *STEPS,
        ]
        assert sha256(work / "again.parquet") == sha256(work / "out" / "genome.parquet")

    def test_what_the_store_has_lost_is_named(self, work: Path, simulation: Path) -> None:
        """A bucket may expire its objects; the cache does not know."""
        merged = work / "state" / "artifacts" / "merge_shards"
        merged.rename(work / "lost")
        lost = run(work, simulation, "score.model=model", "score.output=lost.parquet")
        (work / "lost").rename(merged)
        assert lost.code == 1
        assert "failed  after the last step" in lost.err
        assert f"cause   {merged}/" in lost.err
        assert "is gone from the artifact store" in lost.err
        assert "run again with --no-cache" in lost.err
        assert not (work / "lost.parquet").exists()

    def test_a_killed_shard_is_the_only_one_made_again(self, work: Path, simulation: Path, tmp_path: Path) -> None:
        program = forked.command([str(RUN), *arguments(simulation, "score.model=other", "score.output=killed.parquet")])
        environment = {**os.environ, "METALAYER_HOME": str(work / "state")}
        with subprocess.Popen(program, env=environment, cwd=work, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if f"shard {SHARDS} of {SHARDS}: " in line:  # it has begun to score
                    process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (work / "killed.parquet").exists()
        after = run(work, simulation, "score.model=other", "score.output=killed.parquet")
        assert cached(after) == STEPS[:-1]
        assert pq.read_table(work / "killed.parquet").equals(
            pq.read_table(unsharded(simulation, work / "other", tmp_path))
        )

    def test_a_shard_that_fails_stops_no_other(self, work: Path, simulation: Path) -> None:
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pipelines import environment, run; environment.prepare()\n"
            "from metalayer.workflows import score_genome\n"
            "whole = score_genome.score_shard\n"
            "def broken(shard, *given, **named):\n"
            "    if shard.number == 2: raise OSError(28, 'No space left on device')\n"
            "    return whole(shard, *given, **named)\n"
            "score_genome.score_shard = broken\n"
            "sys.exit(run.main(sys.argv[2:]))\n"
        )
        settings = ("score.model=model", "score.device=cpu", "score.output=failed.parquet")
        failed = execute(work / "state", ["-c", program, str(ROOT), *arguments(simulation, *settings)])
        assert failed.code == 1
        assert "failed  step score_shard_2" in failed.err
        assert failed.err.count("trying again") == 2
        assert not (work / "failed.parquet").exists()
        made = cached(run(work, simulation, *settings))
        assert [name for name in made if name in STEPS] == [STEPS[0], *STEPS[2:]]
        assert sha256(work / "failed.parquet") == sha256(work / "out" / "genome.parquet")

    def test_the_champion_scores_by_default(self, work: Path, simulation: Path) -> None:
        from metalayer.registry import line, registration

        none = run(work, simulation)
        assert none.code == 2
        assert "metalayer-pwm has no champion to score with" in none.err
        golden = make_golden(work / "other", work / "golden.parquet")
        uri = f"sqlite:///{work / 'state' / 'mlflow.db'}"
        for name, promoted in (("other", True), ("model", False)):
            golden = make_golden(work / name, work / "golden.parquet")
            registration.register(work / name, golden, base_model="pwm", promoted=promoted, tracking_uri=uri)
        line.move(line.read("metalayer-pwm", uri), [1], uri)
        champion = run(work, simulation)
        assert cached(champion) == STEPS  # of the same weights in a directory
        model = f"metalayer-pwm version 1, digest {digest(work / 'other')[:12]}"
        assert found(r"^model +(.+)$", champion.out) == model
        assert ScoredGenome(work / "state" / "scores" / "pwm.parquet").manifest["model"]["version"] == 1
        named = run(work, simulation, "score.model=2")
        assert found(r"^model +(.+)$", named.out).startswith("metalayer-pwm version 2, ")
        absent = run(work, simulation, "score.model=9")
        assert absent.code == 2
        assert "metalayer-pwm has no version 9; there are: 1, 2" in absent.err

    def test_nothing_new(self, work: Path, simulation: Path) -> None:
        same = execute(work / "state", [str(RUN), *arguments(simulation, "score.model=2"), "--if-changed"])
        assert "nothing new" in same.out
        other = execute(work / "state", [str(RUN), *arguments(simulation, "score.model=other"), "--if-changed"])
        assert other.code == 0
        assert "nothing new" not in other.out
        # The file is another model's by now: a finished run is not enough.
        again = execute(work / "state", [str(RUN), *arguments(simulation, "score.model=2"), "--if-changed"])
        assert cached(again) == ["merge_shards", *STEPS]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["score.shards=0"], "score.shards: given 0"),
        (["score.shards=45"], "score.shards: given 45, but there are 44 genes to score"),
        (["score.shard=2"], "score.shard: unknown key; did you mean 'shards'"),
        (["score.output=scores.csv"], "the name must end in .parquet"),
        (["score.output=/proc/version/scores.parquet"], "score.output: /proc/version cannot be written: File exists"),
        (["score.model=absent"], "absent, which is no folder; name a model directory"),
        (["data.base_model=spliceai"], "no spliceai_*.parquet in"),
    ],
)
def test_mistakes_are_told_before_zenml_is_imported(
    simulation: Path, tmp_path: Path, settings: list[str], message: str
) -> None:
    ended = execute_in_new_process(tmp_path / "state", [str(RUN), *arguments(simulation, *settings)])
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "state" / "zenml").exists()


@pytest.mark.integration
def test_a_model_of_another_base_model_is_refused(simulation: Path, work: Path, tmp_path: Path) -> None:
    scores = tmp_path / "nucleotide_scores"
    scores.mkdir()
    for path in (simulation / "nucleotide_scores").iterdir():
        (scores / path.name.replace("pwm_", "spliceai_")).symlink_to(path)
    settings = ("data.base_model=spliceai", f"score.model={work / 'model'}")
    ended = execute_in_new_process(tmp_path / "state", [str(RUN), *arguments(tmp_path, *settings)])
    assert ended.code == 2
    assert "recalibrates 'pwm', but the scores are of 'spliceai'" in ended.err
    assert not (tmp_path / "state" / "zenml").exists()


@pytest.mark.integration
def test_there_is_no_schedule(simulation: Path, tmp_path: Path) -> None:
    program = [str(RUN), *arguments(simulation), "--stack", "kubernetes", "--schedule", "0 3 * * 1"]
    ended = execute(tmp_path / "state", program)
    assert ended.code == 2
    assert "--pipeline score writes its scores where it is started" in ended.err
