"""Runs at set times: the manifests, the commands, and which runs before count for one that is to start."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from metalayer.errors import ConfigError
from metalayer.settings.run import RunConfig
from pipelines import commands, schedule, stacks
from pipelines.cluster import ClusterError
from tests import forked
from tests.fakes import FakeServer
from tests.manifests import K8S, VERSIONS, assert_restricted, kustomize, validate
from tests.test_pipeline import CONFIGS, ROOT, RUN
from tests.test_stacks import NAMESPACE, PLACES, SECRET, read_kubernetes, ready, server  # noqa: F401

MONDAYS = "0 3 * * 1"
CRON_JOBS = "/apis/batch/v1/namespaces/metalayer/cronjobs"
CONFIG_MAPS = "/api/v1/namespaces/metalayer/configmaps"
NAME = "metalayer-training-real-80"
KEPT = f"{NAME}-{hashlib.sha256((CONFIGS / 'real_80.yaml').read_bytes()).hexdigest()[:8]}"
MOUNTED = (
    f"{NAMESPACE}/secrets/metalayer-zenml",
    f"{NAMESPACE}/secrets/metalayer-s3",
    f"{NAMESPACE}/persistentvolumeclaims/metalayer-data",
)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> stacks.Stack:
    return read_kubernetes(monkeypatch)


@pytest.fixture
def run() -> schedule.ScheduledRun:
    return schedule.ScheduledRun("training", CONFIGS / "real_80.yaml", Path("/data"), ("train.max_epochs=2",))


@pytest.mark.parametrize("version", VERSIONS)
def test_schema(stack: stacks.Stack, run: schedule.ScheduledRun, version: str) -> None:
    for document in schedule.manifests(stack, run, MONDAYS, "Europe/Berlin"):
        validate(document, version)


def test_cron_job(stack: stacks.Stack, run: schedule.ScheduledRun) -> None:
    config_map, cron_job = schedule.manifests(stack, run, MONDAYS, "Europe/Berlin")
    assert (config_map["metadata"]["name"], cron_job["metadata"]["name"]) == (KEPT, NAME)
    spec = cron_job["spec"]
    assert (spec["schedule"], spec["timeZone"]) == (MONDAYS, "Europe/Berlin")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] > 0
    assert spec["successfulJobsHistoryLimit"] == spec["failedJobsHistoryLimit"] == 3
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert_restricted(pod)
    (container,) = pod["containers"]
    assert container["image"] == "127.0.0.1:1/metalayer-pipeline:1"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    assert sources[mounts["/data"]]["persistentVolumeClaim"] == {"claimName": "metalayer-data", "readOnly": True}
    assert sources[mounts["/config"]]["configMap"] == {"name": KEPT}
    assert yaml.safe_load(config_map["data"]["real_80.yaml"]) == yaml.safe_load(run.config.read_text())
    assert SECRET not in yaml.safe_dump(cron_job)
    plain = {variable["name"]: variable["value"] for variable in container["env"]}
    assert set(stacks.variables("kubernetes")) - set(plain) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    secrets = {source["secretRef"]["name"]: source["secretRef"].get("optional") for source in container["envFrom"]}
    assert secrets == {"metalayer-zenml": None, "metalayer-s3": None, "metalayer-mlflow": True}


def test_its_command_is_one_that_run_py_takes(stack: stacks.Stack, run: schedule.ScheduledRun) -> None:
    from pipelines import run as program

    _, cron_job = schedule.manifests(stack, run, MONDAYS, "Etc/UTC")
    python, script, *arguments = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert (python, script) == ("python", "pipelines/run.py")
    options = program._parser().parse_args(arguments)
    assert (options.stack, options.pipeline, options.if_changed) == ("kubernetes", "training", True)
    assert (options.config, options.data_root) == (Path("/config/real_80.yaml"), Path("/data"))
    assert options.overrides == ["train.max_epochs=2"]


def test_the_demo_needs_no_volume(stack: stacks.Stack) -> None:
    (cron_job,) = schedule.manifests(stack, schedule.ScheduledRun("training", None, None, ()), MONDAYS, "Etc/UTC")
    assert cron_job["metadata"]["name"] == "metalayer-training-demo"
    assert "persistentVolumeClaim" not in yaml.safe_dump(cron_job)


def test_its_account_is_in_the_manifests(stack: stacks.Stack, run: schedule.ScheduledRun) -> None:
    _, cron_job = schedule.manifests(stack, run, MONDAYS, "Etc/UTC")
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    there = {
        document["metadata"]["name"] for document in kustomize(K8S / "base") if document["kind"] == "ServiceAccount"
    }
    named = {pod["serviceAccountName"], stack.components["step_operator"]["service_account_name"]}
    assert named | {stack.components["orchestrator"]["step_pod_service_account_name"]} <= there


@pytest.mark.parametrize("cron", ["0 3 * * 1", "*/15 0-6,20 1 1-12/2 0,6"])
def test_times(stack: stacks.Stack, run: schedule.ScheduledRun, cron: str) -> None:
    assert schedule.manifests(stack, run, cron, "Etc/UTC")[1]["spec"]["schedule"] == cron


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "0 3 * *",
        "0 3 * * 1 2026",
        "60 3 * * 1",
        "0 3 0 * 1",
        "0 3 * * 0,7",
        "0 3 * * 5-7",
        "a b c d e",
        "5-1 * * * *",
    ],
)
def test_impossible_times(stack: stacks.Stack, run: schedule.ScheduledRun, cron: str) -> None:
    with pytest.raises(ConfigError, match=r"day of week \(0, Sunday, to 6\).* for Mondays at 3"):
        schedule.manifests(stack, run, cron, "Etc/UTC")


def test_impossible_time_zone(stack: stacks.Stack, run: schedule.ScheduledRun) -> None:
    with pytest.raises(ConfigError, match="Europe/Berlin"):
        schedule.manifests(stack, run, MONDAYS, "Mars/Olympus")


def test_a_stack_without_a_cluster(run: schedule.ScheduledRun) -> None:
    with pytest.raises(ConfigError, match="use --stack kubernetes"):
        schedule.manifests(stacks.read("local", PLACES), run, MONDAYS, "Etc/UTC")


# ---- against an API


@pytest.fixture
def api(ready: FakeServer) -> FakeServer:  # noqa: F811
    """With all that a run needs, and what its pods mount; no schedule."""
    ready.answers.update({f"GET {thing}": (200, {}) for thing in MOUNTED})
    ready.answers.update({f"POST {CRON_JOBS}": (201, {}), f"POST {CONFIG_MAPS}": (201, {})})
    return ready


def changes(api: FakeServer) -> list[str]:
    return [key for key, _ in api.asked if not key.startswith("GET ")]


def is_there(api: FakeServer, documents: list[dict[str, Any]]) -> None:
    """The schedule has been made."""
    conflict = (409, {"message": "already exists"})
    api.answers.update({f"POST {CRON_JOBS}": conflict, f"POST {CONFIG_MAPS}": conflict})
    api.answers.update({f"PATCH {CRON_JOBS}/{NAME}": (200, {}), f"PATCH {CONFIG_MAPS}/{KEPT}": (200, {})})
    api.answers[f"GET {CRON_JOBS}/{NAME}"] = (200, documents[-1])
    api.asked.clear()


def test_applied_and_renewed(api: FakeServer, run: schedule.ScheduledRun) -> None:
    stack = stacks.read("kubernetes", PLACES)
    first = schedule.manifests(stack, run, MONDAYS, "Etc/UTC")
    assert schedule.apply(stack, first) is False
    assert changes(api) == [f"POST {CONFIG_MAPS}", f"POST {CRON_JOBS}"]
    assert [body for key, body in api.asked if key.startswith("POST ")] == first
    is_there(api, first)
    assert schedule.apply(stack, schedule.manifests(stack, run, "0 4 * * 1", "Etc/UTC")) is True
    key, renewed = api.asked[-1]
    assert key == f"PATCH {CRON_JOBS}/{NAME}"
    assert renewed["spec"]["schedule"] == "0 4 * * 1"
    assert "suspend" not in renewed["spec"]
    api.answers[f"POST {CONFIG_MAPS}"] = (403, {"message": "configmaps is forbidden"})
    with pytest.raises(ClusterError, match="forbidden"):
        schedule.apply(stack, first)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"data_root": Path("/other")}, "--data-root /other"),
        ({"overrides": ("train.max_epochs=3",)}, "--set train.max_epochs=3"),
        ({"config": Path("real-80.yaml")}, "--config /config/real-80.yaml"),
    ],
)
def test_a_schedule_of_another_run_is_left_alone(
    api: FakeServer, run: schedule.ScheduledRun, change: dict[str, Any], text: str, tmp_path: Path
) -> None:
    stack = stacks.read("kubernetes", PLACES)
    is_there(api, schedule.manifests(stack, run, MONDAYS, "Etc/UTC"))
    if "config" in change:
        change = {"config": Path(shutil.copy(CONFIGS / "real_80.yaml", tmp_path / change["config"]))}
    other = dataclasses.replace(run, **change)
    assert other.name == NAME
    with pytest.raises(ConfigError, match=r"delete it .*schedule delete") as caught:
        schedule.apply(stack, schedule.manifests(stack, other, MONDAYS, "Etc/UTC"))
    _, there, given, _ = str(caught.value).splitlines()
    assert "--config /config/real_80.yaml --data-root /data --set train.max_epochs=2" in there
    assert text in given
    assert changes(api) == []


@pytest.mark.parametrize("thing", MOUNTED)
def test_what_its_pods_would_wait_for(
    api: FakeServer, run: schedule.ScheduledRun, thing: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Is named before anything is made; without the right to look it is said to be unchecked."""
    stack = stacks.read("kubernetes", PLACES)
    documents = schedule.manifests(stack, run, MONDAYS, "Etc/UTC")
    kind, name = thing.split("/")[-2:]
    how = f"kubectl -n metalayer create secret generic {name}" if kind == "secrets" else "make a PersistentVolumeClaim"
    api.answers[f"GET {thing}"] = (404, {"message": "not found"})
    with pytest.raises(ConfigError, match=f"{kind}/{name} -> {how}") as caught:
        schedule.apply(stack, documents)
    assert len(str(caught.value).splitlines()) == 2
    assert changes(api) == []
    api.answers[f"GET {thing}"] = (403, {"message": "you may not get it"})
    assert schedule.apply(stack, documents) is False
    assert caplog.messages == [f"unchecked: {kind}/{name}: you may not get it"]


def test_the_demo_needs_no_claim(api: FakeServer) -> None:
    del api.answers[f"GET {MOUNTED[-1]}"]
    stack = stacks.read("kubernetes", PLACES)
    run = schedule.ScheduledRun("training", None, None, ())
    assert schedule.apply(stack, schedule.manifests(stack, run, MONDAYS, "Etc/UTC")) is False


def test_commands(api: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    item: dict[str, Any] = {
        "metadata": {"name": NAME},
        "spec": {"schedule": MONDAYS, "timeZone": "Etc/UTC", "suspend": True},
        "status": {"lastScheduleTime": "2026-11-23T03:00:00Z"},
    }
    api.answers[f"GET {CRON_JOBS}"] = (200, {"items": [item]})
    api.answers[f"PATCH {CRON_JOBS}/{NAME}"] = (200, {})
    api.answers[f"DELETE {CRON_JOBS}/{NAME}"] = (200, {})
    api.answers[f"GET {CONFIG_MAPS}"] = (200, {"items": [{"metadata": {"name": KEPT}}]})
    api.answers[f"DELETE {CONFIG_MAPS}/{KEPT}"] = (200, {})
    assert commands.main(["schedule", "list"]) == 0
    assert capsys.readouterr().out == f"{NAME}  {MONDAYS}  Etc/UTC  suspended  last 2026-11-23T03:00:00Z\n"
    for word, suspended in (("suspend", True), ("resume", False)):
        assert commands.main(["schedule", word, NAME]) == 0
        assert api.asked[-1] == (f"PATCH {CRON_JOBS}/{NAME}", {"spec": {"suspend": suspended}})
    assert commands.main(["schedule", "delete", NAME]) == 0
    assert changes(api)[-2:] == [f"DELETE {CRON_JOBS}/{NAME}", f"DELETE {CONFIG_MAPS}/{KEPT}"]
    capsys.readouterr()
    assert commands.main(["schedule", "suspend", "nonesuch"]) == 1
    assert "nonesuch" in capsys.readouterr().out


ARGUMENTS = ["--stack", "kubernetes", "--config", str(CONFIGS / "real_80.yaml"), "--data-root", "/data"]
AT_TIMES = [*ARGUMENTS, "--schedule", MONDAYS, "--time-zone", "Asia/Tokyo"]


def test_scheduled_from_the_command_line(api: FakeServer, tmp_path: Path) -> None:
    done = forked.run([str(RUN), *AT_TIMES], os.environ, tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"scheduled {NAME}: {MONDAYS} Asia/Tokyo"
    key, made = api.asked[-1]
    assert key == f"POST {CRON_JOBS}"
    assert made["spec"]["timeZone"] == "Asia/Tokyo"
    assert not (tmp_path / "state" / "zenml").exists()


def schedule_it(*more: str) -> int:
    """As the command line does, in this process."""
    from pipelines import configuration
    from pipelines import run as program

    options = program._parser().parse_args([*AT_TIMES, *more])
    state = Path(os.environ["METALAYER_HOME"])
    settings = configuration.read(options, state)
    program._check(settings.config, options)
    return program._schedule(settings, options, state)


def test_says_that_it_renews(api: FakeServer, run: schedule.ScheduledRun, capsys: pytest.CaptureFixture[str]) -> None:
    stack = stacks.read("kubernetes", PLACES)
    is_there(api, schedule.manifests(stack, run, "0 4 * * 1", "Etc/UTC"))
    assert schedule_it("--set", "train.max_epochs=2") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"renewed {NAME}: {MONDAYS} Asia/Tokyo"


def test_not_where_its_runs_would_fail(api: FakeServer) -> None:
    api.answers["GET /v2/metalayer-pipeline/manifests/1"] = (404, {})
    with pytest.raises(ConfigError, match=r"metalayer-pipeline:1 is not in the registry"):
        schedule_it()
    assert not {f"POST {CRON_JOBS}", f"POST {CONFIG_MAPS}"} & set(changes(api))


@pytest.mark.parametrize(
    ("more", "text"),
    [(["--no-cache"], "--no-cache does not go with --schedule"), (["--schedule", "0 3 * * 7"], "given '0 3 * * 7'")],
)
def test_mistakes_are_told_before_anything_is_asked(api: FakeServer, more: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        schedule_it(*more)
    assert api.asked == []


# ---- what it starts

UNDER_WAY = """
import json, os, sys
from types import SimpleNamespace

sys.path.insert(0, {root!r})
from pipelines import environment, run
from pipelines.configuration import DEMO

environment.prepare()
from zenml import pipeline, step
from zenml.utils.source_utils import set_custom_source_root

set_custom_source_root(os.path.dirname(__file__))

from metalayer.settings.run import RunConfig

GIVEN = RunConfig.load(DEMO, [], None)
OTHER = RunConfig.load(DEMO, ["train.max_epochs=3"], None)


def stack(name, longest_s=3600):
    return SimpleNamespace(name=name, longest_s=longest_s)


def answers():
    here = {{"data_hash": "a", "code_hash": "c"}}
    asked = [
        (GIVEN, here, stack("kubernetes"), True),
        (GIVEN, here, stack("local"), True),
        (GIVEN, {{**here, "data_hash": "b"}}, stack("kubernetes"), True),
        (GIVEN, {{**here, "code_hash": "d"}}, stack("kubernetes"), True),
        (OTHER, here, stack("kubernetes"), True),
        (GIVEN, here, stack("kubernetes", -60), True),
        (GIVEN, here, stack("kubeflow"), True),
        (GIVEN, here, stack("kubernetes"), False),
    ]
    return [run._run_before("training", *given, there=there) for *given, there in asked]


@step
def ask() -> str:
    return json.dumps(answers())


@pipeline(name="training", enable_cache=False)
def training(config: RunConfig, data_hash: str, code_hash: str):
    ask()


if __name__ == "__main__":
    done = training.with_options(run_name="this")(config=GIVEN, data_hash="a", code_hash="c")
    print("FOUND", json.dumps([json.loads(done.steps["ask"].output.load()), answers()]))
"""


@pytest.mark.integration
def test_a_run_under_way_counts_for_a_time(tmp_path: Path) -> None:
    """Asked in a run, and after its end: of its data, settings and code, on this machine, of others, long after."""
    program = tmp_path / "program.py"
    program.write_text(UNDER_WAY.format(root=str(ROOT)))
    given = {**os.environ, "METALAYER_HOME": str(tmp_path / "state")}
    done = forked.run([str(program)], given, tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    during, after = json.loads(done.stdout.partition("FOUND")[2])
    busy = "nothing to start: run this, on these data with these settings, is under way"
    assert during == [busy, None, None, None, None, None, busy, busy]
    seen = "nothing new: run this has seen these data with these settings"
    assert after == [seen, seen, None, None, None, seen, seen, None]  # the last: what it wrote is gone


def test_configurations_can_be_scheduled() -> None:
    paths = [*CONFIGS.glob("*.yaml")]
    assert len(paths) > 1
    for path in paths:
        assert RunConfig.load(path, [], Path("/data")).data.data_root == Path("/data")
