"""The pipeline as a user runs it: a process, its output, its exit status and what it leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from metalayer.release.contract import parse_rows
from metalayer.schema import ERROR_COLUMNS
from metalayer.settings.run import RunConfig
from tests import forked

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "pipelines" / "run.py"
CONFIGS = ROOT / "pipelines" / "configs"
SMALL = ("train.max_epochs=2", "evaluate.n_bootstrap=100", "model.hidden_dim=32")
QUICK = (*SMALL, "model.dropout=0")
"""Without what is drawn while a model trains, runs in one process and in several end with the same metrics."""
PASSING = ("gate.min_pr_auc_splice=0", "gate.margin=1", "gate.require_better_than_base=false")
FAILING = ("gate.min_pr_auc_splice=1",)
CACHED = "load_artifacts, label, split, train"
OTHER_PROJECT = "active_project_id: null\nactive_stack_id: 11111111-2222-3333-4444-555555555555\n"
"""What ZenML keeps in the folder of another project, where the runs are started."""
END_LEFT = """
import sys
sys.path.insert(0, sys.argv[1])
from pipelines import environment, moved_state, unfinished
state, shared = environment.prepare(), sys.argv[2]
moved_state.follow(state, held=False)
from zenml.client import Client
from metalayer.registry import download, registration, tracking, versions
tracking.ensure_experiment(tracking_uri=shared)
left, *others = Client().list_pipeline_runs(in_progress=True).items
assert not others
with tracking.service(shared) as client:
    where = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    mine, other = (client.create_run(where, run_name=name).info.run_id for name in (left.name, "of-another-folder"))
unfinished.end(state, shared)
assert not Client().list_pipeline_runs(in_progress=True).items
with tracking.service(shared) as client:
    statuses = [client.get_run(one).info.status for one in (mine, other)]
print(left.name, Client().get_pipeline_run(left.id).status.value, *statuses)
"""
"""Ends what was left of a run that was killed, also in an MLflow that several state folders share."""
STEPS = (*CACHED.split(", "), "evaluate", "gate", "register", "package", "report", "promote")


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    out: str
    err: str


Runner = Callable[..., Ended]


def command(settings: tuple[str, ...], arguments: tuple[str, ...]) -> list[str]:
    """With the demo's settings, whatever the data."""
    if "--config" not in arguments:
        arguments = ("--config", str(CONFIGS / "demo.yaml"), *arguments)
    return [*arguments, *(part for setting in settings for part in ("--set", setting))]


def execute(state: Path, program: list[str]) -> Ended:
    done = forked.run(program, {**os.environ, "METALAYER_HOME": str(state)}, state.parent)
    return Ended(done.returncode, done.stdout, done.stderr)


def execute_in_new_process(state: Path, program: list[str]) -> Ended:
    """By a process that has imported nothing, for messages that come before it imports much."""
    environment = {**os.environ, "METALAYER_HOME": str(state)}
    done = subprocess.run(
        [sys.executable, *program],
        env=environment,
        cwd=state.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class First(Ended):
    """The first run of a state folder, promoted; other files compare theirs with it.

    Attributes:
        state: the folder, which the tests of this file go on with.
        metrics: what it has left in MLflow, but for the time that it took.
    """

    state: Path
    metrics: dict[str, float]


def metrics(uri: str, run: str) -> dict[str, float]:
    """What a pipeline run has left in MLflow, but for the time that it took."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("metalayer").experiment_id
    (logged,) = client.search_runs([experiment], f"tags.pipeline_run = '{run}'")
    return {name: value for name, value in logged.data.metrics.items() if name != "seconds"}


@pytest.fixture(scope="session")
def first(made_once: Callable[..., Path], simulation: Path) -> First:
    def make(folder: Path) -> None:
        (folder / ".zen").mkdir()
        (folder / ".zen" / "config.yaml").write_text(OTHER_PROJECT)
        (folder / "queue.py").write_text("raise SystemExit('a file of the current folder was run')")
        state = folder / "state"
        ended = execute(state, [str(RUN), *command((*QUICK, *PASSING), ("--data-root", str(simulation)))])
        assert ended.code == 0, ended.err
        name = Path(found(r"^report +(\S+)$", ended.out)).parent.name
        left = metrics(f"sqlite:///{state / 'mlflow.db'}", name)
        (folder / "first.json").write_text(json.dumps({**vars(ended), "metrics": left}))

    folder = made_once("pipeline", make)
    return First(**json.loads((folder / "first.json").read_text()), state=folder / "state")


@pytest.fixture(scope="session")
def state(first: First) -> Path:
    return first.state


@pytest.fixture(scope="module")
def run(state: Path, simulation: Path) -> Runner:
    """Runs on the small simulation, in one state folder."""

    def start(*settings: str, arguments: tuple[str, ...] = ()) -> Ended:
        chosen = command((*QUICK, *settings), ("--data-root", str(simulation), *arguments))
        return execute(state, [str(RUN), *chosen])

    return start


def champion_version(state: Path) -> int:
    from metalayer.registry import versions

    found = versions.find_champion("metalayer-pwm", f"sqlite:///{state / 'mlflow.db'}")
    assert found is not None
    return found.version


def assert_champion_again(ended: Ended, state: Path) -> None:
    """A run that trained the first run's model again: it is told so, and nothing was added or moved."""
    from metalayer.registry import versions

    assert found(r"^model +(.+)$", ended.out) == "metalayer-pwm version 1, alias champion"
    assert "again to the champion's own weights: nothing is registered, packaged or moved" in ended.out
    assert found(r"^Bento +(.+)$", ended.out) == "not packaged: the model is the champion's own"
    (only,) = versions.all_versions(f"sqlite:///{state / 'mlflow.db'}")
    assert (only.version, only.aliases) == (1, ("champion",))
    assert len(list((state / "bentoml" / "bentos").glob("*/*/bento.yaml"))) == 1
    assert len(list((state / "mlartifacts").rglob("model.safetensors"))) == 1


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match, text
    return match[1]


@pytest.mark.integration
class TestRuns:
    """In order: each run leaves its state to the next."""

    def test_promoted(self, first: Ended, state: Path) -> None:
        assert first.code == 0, first.err
        for metric in ("PR-AUC splice", "donor AP", "acceptor AP", "top-k donor", "ECE"):
            assert metric in first.out
        assert "gate: promoted" in first.out
        assert found(r"^model +(.+)$", first.out) == "metalayer-pwm version 1, alias champion"
        assert found(r"^cached +(.+)$", first.out) == "no step"
        assert first.out.endswith("exit status 0: promoted\n")
        tag = found(r"^Bento +(\S+)$", first.out)
        name, _, version = tag.partition(":")
        assert (state / "bentoml" / "bentos" / name / version / "bento.yaml").is_file()
        report = state.parent / found(r"^report +(\S+)$", first.out)
        assert "<html" in report.read_text("utf-8")
        assert report.with_name("drift.html").is_file()
        errors = report.with_name("errors.tsv").read_text("utf-8").splitlines()
        assert errors[0].split("\t") == list(ERROR_COLUMNS)
        assert not (state / "work").exists()

    def test_another_project_is_left_alone(self, first: Ended, state: Path) -> None:
        assert (state.parent / ".zen" / "config.yaml").read_text() == OTHER_PROJECT

    def test_query(self, first: Ended, state: Path) -> None:
        request = state.parent / found(r"--data @(\S+)$", first.out)
        assert request.parent.parent == state / "reports"
        assert request.read_bytes() == (state / "query.json").read_bytes()
        assert len(parse_rows(request.read_bytes())) == 3

    def test_a_copy_of_the_state_is_read_where_it_is(self, first: Ended, state: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(state, tmp_path / "copy"))
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pipelines import environment, moved_state\n"
            "moved_state.follow(environment.prepare(), held=False)\n"
            "from zenml.client import Client\n"
            "(run,) = Client().list_pipeline_runs(hydrate=True).items\n"
            "found = [one for step in run.steps.values() for outputs in step.outputs.values() for one in outputs]\n"
            "found[0].load()\n"
            "print()\n"
            "print(*(one.uri for one in found), Client().zen_store.url, sep='\\n')\n"
            "assert Client().zen_store.get_store_info().is_local()\n"
        )
        ended = execute(copy, ["-P", "-c", program, str(ROOT)])
        assert ended.code == 0, ended.err
        places = [line for line in ended.out.splitlines() if line.startswith(("/", "sqlite:"))]
        assert len(places) > len(STEPS)
        assert not [place for place in places if not place.removeprefix("sqlite:///").startswith(f"{copy}/")]

    def test_output_is_calm(self, first: Ended) -> None:
        assert "Traceback" not in first.out + first.err
        lines = first.err.splitlines()
        assert [line for line in lines if line.startswith("[")] == [
            f"[{i}/10] {step}"
            for i, step in enumerate(
                STEPS,
                1,
            )
        ]
        assert not [line for line in lines if "zenml" in line.lower() or "mlflow" in line.lower()]

    def test_facts_lead_back_to_the_data(self, first: Ended, state: Path, simulation: Path) -> None:
        import mlflow

        from metalayer.core import ArtifactLoader

        config = RunConfig.load(CONFIGS / "demo.yaml", data_root=simulation)
        data_hash = ArtifactLoader(config.data).fingerprint()
        client = mlflow.MlflowClient(f"sqlite:///{state / 'mlflow.db'}")
        version = client.get_model_version("metalayer-pwm", "1")
        logged = client.get_run(version.run_id)
        assert version.tags["data_hash"] == logged.data.tags["data_hash"] == data_hash
        assert logged.data.tags["decision"] == "promoted"
        assert "PR-AUC splice" in logged.data.tags["reasons"]
        assert logged.data.params["train.seed"] == "42"
        assert {"meta_pr_auc_splice", "base_ap_donor", "train_loss"} <= logged.data.metrics.keys()
        assert {"meta/pr_auc_splice", "base/ap_donor", "training/loss"} <= logged.data.metrics.keys()
        inputs = {one.dataset.name: one.dataset.digest for one in logged.inputs.dataset_inputs}
        assert data_hash.startswith(inputs["pwm, training files"])
        assert logged.data.tags["test_set"].startswith(inputs["pwm, test genes"])
        kept = {one.path for one in client.list_artifacts(logged.info.run_id)}
        assert {"report.html", "config.yaml", "plots"} <= kept
        assert "Gate: promoted" in logged.data.tags["mlflow.note.content"]
        assert "Gate: promoted" in version.description
        facts = zenml_facts(state)
        assert facts["data_hash"] == data_hash
        assert facts["git_commit"] == version.tags["git_commit"]
        assert facts["decision"] == "promoted"
        assert facts["config"]["train"]["max_epochs"] == 2
        assert facts["seed"] == 42
        assert facts["stage"] == "production"

    def test_second_run_with_run_wide_caching(self, first: Ended, state: Path, simulation: Path) -> None:
        """The cache answers for data and training alone, even where a run-wide setting asks for more."""
        settings = state.parent / "zenml.yaml"
        settings.write_text("enable_cache: true\n")
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pipelines import environment, run; environment.prepare()\n"
            "from pipelines import training\n"
            "training.training = training.training.with_options(config_path=sys.argv[2])\n"
            "sys.exit(run.main(sys.argv[3:]))\n"
        )
        arguments = command((*QUICK, *PASSING), ("--data-root", str(simulation)))
        second = execute(state, ["-P", "-c", program, str(ROOT), str(settings), *arguments])
        assert second.code == 0, second.err
        assert found(r"^cached +(.+)$", second.out) == CACHED
        assert "[4/10] train: cached" in second.err
        assert_champion_again(second, state)
        assert re.search(r"not (shown to be )?not worse than the champion|champion \(version 1\)", second.out)

    def test_failure_in_a_step_and_no_cache(self, first: Ended, state: Path, simulation: Path) -> None:
        """What was trained before is not lost by it, also where the cache does not answer for the training."""
        assert not checkpoints(state)  # runs that have finished leave none
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pipelines import environment, run; environment.prepare()\n"
            "from metalayer.workflows import evaluate\n"
            "def broken(*_): raise OSError(28, 'No space left on device')\n"
            "evaluate.evaluate_bundle = broken\n"
            "sys.exit(run.main(sys.argv[2:]))\n"
        )
        arguments = command((*QUICK, *PASSING), ("--data-root", str(simulation), "--no-cache"))
        failed = execute(state, ["-P", "-c", program, str(ROOT), *arguments])
        assert failed.code == 1, failed.err
        last = failed.err.splitlines()[-4:]
        assert last[0] == "failed  step evaluate"
        assert last[1].startswith("cause   No space left on device; free some space on the disk")
        log = state.parent / last[2].split()[1]
        assert "Traceback" in log.read_text("utf-8")
        assert last[3] == "exit status 1: failure"
        assert "Traceback" not in failed.err
        again = execute(state, [str(RUN), *arguments])
        assert again.code == 0, again.err
        assert "going on after epoch 2," in again.err
        assert found(r"^cached +(.+)$", again.out) == "no step"
        assert_champion_again(again, state)
        assert not checkpoints(state)

    def test_rejected(self, first: Ended, run: Runner, state: Path) -> None:
        before = champion_version(state)
        rejected = run("train.seed=3", *FAILING)
        assert rejected.code == 3, rejected.err
        assert "FAILED  PR-AUC splice" in rejected.out
        assert found(r"^cached +(.+)$", rejected.out) == CACHED.removesuffix(", train")
        assert found(r"^model .*alias (\w+)$", rejected.out) == "challenger"
        assert found(r"^Bento +(.+)$", rejected.out) == "not packaged: the gate rejected the model"
        assert f"champion, version {before}" in rejected.out
        assert "exit status 3: rejected" in rejected.out.splitlines()[-1]
        assert champion_version(state) == before

    def test_data_that_have_changed_never_past_the_gate(
        self, first: Ended, run: Runner, state: Path, simulation: Path, tmp_path: Path
    ) -> None:
        """As a schedule starts it."""
        again = run(*PASSING, arguments=("--if-changed",))
        assert again.code == 0, again.err
        assert re.search(r"nothing new: run \S+ has seen these data", again.out)
        assert "gate:" not in again.out
        before, data = champion_version(state), tmp_path / "data"
        shutil.copytree(simulation, data)
        (data / "manifest.json").unlink()  # the gene table is changed on purpose
        lines = (data / "genes.tsv").read_text().splitlines(keepends=True)
        (data / "genes.tsv").write_text("".join([lines[0], *reversed(lines[1:])]))
        arguments = command((*QUICK, *FAILING), ("--data-root", str(data), "--if-changed"))
        changed = execute(state, [str(RUN), *arguments])
        assert changed.code == 3, changed.err
        assert "load_artifacts" not in found(r"^cached +(.+)$", changed.out)
        assert champion_version(state) == before

    def test_no_champion_without_its_bento(self, first: Ended, run: Runner, state: Path) -> None:
        from metalayer.registry import promotion, versions

        before, uri = champion_version(state), f"sqlite:///{state / 'mlflow.db'}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BENTOML_HOME", str(state / "mlflow.db" / "bentoml"))
            failed = run("train.seed=3", *PASSING)
        assert failed.code == 2, failed.err
        assert "failed  step package" in failed.err
        newest = versions.all_versions(uri)[-1]
        assert (newest.tags["decision"], newest.aliases) == ("promoted", ())
        assert champion_version(state) == before < newest.version
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BENTOML_HOME", str(state / "bentoml"))
            move = promotion.promote("metalayer-pwm", newest.version, uri)
        assert (move.instead_of, champion_version(state)) == (before, newest.version)
        assert versions.all_versions(uri)[-1].tags["bento_tag"] == move.bento

    def test_bad_input_in_a_step(self, first: Ended, run: Runner) -> None:
        failed = run("split.test_chroms=[22]")
        assert failed.code == 2, failed.err
        last = failed.err.splitlines()[-4:]
        assert last[0] == "failed  step split"
        assert "the test part has no donor" in last[1]
        assert "Change split.test_chroms" in last[1]
        assert last[3] == "exit status 2: bad input or configuration"
        assert "Traceback" not in failed.err

    def test_a_killed_search_goes_on(self, first: Ended, state: Path, simulation: Path) -> None:
        settings = ("search.n_trials=3", "search.space={learning_rate: [0.001, 0.0001]}")
        arguments = command((*QUICK, *settings), ("--data-root", str(simulation), "--pipeline", "search"))
        environment = {**os.environ, "METALAYER_HOME": str(state)}
        with subprocess.Popen(
            forked.command([str(RUN), *arguments]), env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "trial 2: learning_rate" in line:
                    process.send_signal(signal.SIGKILL)
        assert checkpoints(state)
        again = execute(state, [str(RUN), *arguments])
        assert again.code == 0, again.err
        assert "going on after 2 of 3 trials" in again.err
        assert re.findall(r"trial (\d+): learning_rate", again.err) == ["2"]
        assert not checkpoints(state)

    def test_killed_run_leaves_a_usable_state(self, first: Ended, run: Runner, state: Path, simulation: Path) -> None:
        before = champion_version(state)
        arguments = command(("train.max_epochs=500", "train.patience=500"), ("--data-root", str(simulation)))
        environment = {**os.environ, "METALAYER_HOME": str(state)}
        with subprocess.Popen(
            forked.command([str(RUN), *arguments]), env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "epoch 1/" in line:
                    break
            beside = run(*PASSING)
            process.send_signal(signal.SIGKILL)
        assert beside.code == 1
        assert "another run" in beside.err
        assert champion_version(state) == before
        copy, shared = Path(shutil.copytree(state, state.parent / "copy")), f"sqlite:///{state.parent}/shared.db"
        for folder, ended in ((copy, "RUNNING"), (state, "KILLED")):
            looked = execute(folder, ["-P", "-c", END_LEFT, str(ROOT), shared])
            assert looked.code == 0, looked.err
            name, *statuses = looked.out.splitlines()[-1].split()
            assert name.startswith("demo-")
            assert statuses == ["stopped", ended, "RUNNING"]
            assert ("this state folder is a copy" in looked.out + looked.err) == (folder == copy)
        shutil.rmtree(copy)
        after = run(*FAILING)
        assert after.code == 3, after.err
        assert not (state / "work").exists()

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted_and_goes_on(self, number: int, code: int, first: Ended, state: Path, simulation: Path) -> None:
        """What the run before had trained is not trained again."""
        arguments = command(("train.max_epochs=500", "train.patience=500"), ("--data-root", str(simulation)))
        environment = {**os.environ, "METALAYER_HOME": str(state)}
        with subprocess.Popen(
            forked.command([str(RUN), *arguments]), env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            resumed = epoch = 0
            for line in process.stderr:
                if went_on := re.search(r"going on after epoch (\d+),", line):
                    resumed = int(went_on[1])
                if trained := re.search(r"epoch (\d+)/500: loss", line):
                    epoch = int(trained[1])
                    process.send_signal(number)
                    break
            rest = process.stderr.read()
        assert resumed >= 1
        assert epoch == resumed + 1
        assert process.returncode == code
        assert rest.rstrip().endswith("interrupted; run the same command again: finished steps come from the cache")


def checkpoints(state: Path) -> list[Path]:
    """What is kept of trainings and searches that were cut off."""
    return list((state / "artifacts" / "checkpoints").glob("*"))


def zenml_facts(state: Path) -> dict[str, object]:
    """Metadata and stage of version 1 of the ZenML model."""
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pipelines import environment; environment.prepare()\n"
        "from zenml.client import Client\n"
        "version = Client().get_model_version('metalayer-pwm', 1)\n"
        "facts = {name: value for name, value in version.run_metadata.items()}\n"
        "print('\\n' + json.dumps({**facts, 'stage': version.stage}, default=str))\n"
    )
    ended = execute(state, ["-P", "-c", program, str(ROOT)])
    assert ended.code == 0, ended.err
    facts: dict[str, object] = json.loads(ended.out.splitlines()[-1])
    return facts


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "train.max_epoch=1", "--set", "gate.margin=7"],
            r"did you mean 'max_epochs'\?\n.*gate.margin: given 7",
        ),
        (["--config", "absent.yaml"], "configuration file absent.yaml: No such file"),
        (["--data-root", "absent"], "given absent, which is not there; give a folder"),
    ],
)
def test_bad_input_is_told_before_zenml_is_imported(tmp_path: Path, arguments: list[str], message: str) -> None:
    ended = execute_in_new_process(tmp_path / "state", [str(RUN), *arguments])
    assert ended.code == 2
    assert re.search(message, ended.err)
    assert ended.err.splitlines()[-1] == "exit status 2: bad input or configuration"
    assert not (tmp_path / "state" / "zenml").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations(path: Path) -> None:
    RunConfig.load(path)
    text = path.read_text("utf-8")
    assert text.startswith("#")
    assert f"--config pipelines/configs/{path.name}" in text or path.stem == "demo"
