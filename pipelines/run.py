"""Run a pipeline: `python pipelines/run.py --stack local`, with `--pipeline` a search, a base-layer pass or scoring.

`python pipelines/run.py stack ...` applies and checks stacks, `... schedule ...` looks after schedules.

Exit status: 0 promoted, 3 rejected by the gate, 2 bad input or configuration, 1 failure,
130 or 143 interrupted by SIGINT or SIGTERM.
Configuration and data are checked before ZenML is imported, so a mistake in them is told at once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

sys.path[0] = str(Path(__file__).resolve().parents[1])  # `pipelines` and `steps`, from whatever directory this runs

import yaml

from metalayer.config import BaseConfig, RunConfig, ScoreConfig, Section
from metalayer.core import ArtifactLoader
from metalayer.errors import ConfigError, MetalayerError
from metalayer.files import only_one, publish_file
from metalayer.schema import ROW_SCORES
from pipelines import commands, console, environment, mlflow_service, pods, schedule, stack_check, stacks
from steps import inputs, workspace

if TYPE_CHECKING:
    from metalayer.workflows.score_genome import ScoringModel, ScoringPlan

AnySection = TypeVar("AnySection", bound=Section)

DEMO = environment.ROOT / "pipelines" / "configs" / "demo.yaml"
UNGATED = ("search", "base_layer", "score")
"""Pipelines beside training, which end without a decision."""
REJECTED = 3
_LOOKED_BACK = 50
"""Runs that `--if-changed` compares with."""

logger = logging.getLogger("pipelines.run")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pipeline; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in commands.NAMES:
        return commands.main(given)
    options = _parser().parse_args(given)
    state = environment.prepare(local=options.stack == "local")
    config_name = (options.config or DEMO).stem
    kind = "" if options.pipeline == "training" else f"{options.pipeline}-"
    run_name = f"{config_name}-{kind}{time.strftime('%Y%m%d-%H%M%S')}"
    log_file = state / "logs" / f"{run_name}.log"
    for number in (signal.SIGINT, signal.SIGTERM):  # the first process of a container gets neither by default
        signal.signal(number, _interrupted if options.stack == "local" else _left_alone)
    try:
        console.start(log_file, verbose=options.verbose)
        config = _config(options, state)
        if options.schedule:
            return _schedule(config, options, state)
        with _only_run(state):
            environment.drop_half_made(state)
            if _is_demo(options):
                _simulate(config)
            return _run(config, options, run_name, state, log_file)
    except Exception as error:  # noqa: BLE001  the last place: every error becomes its message and an exit status
        step, cause = _failed_step(run_name) or (None, error)
        if isinstance(error, pods.PodError) and step in (None, error.step):
            step, cause = error.step, error  # a pod that was killed has left no error with ZenML
        code = cause.exit_code if isinstance(cause, MetalayerError) else 1
        console.failure(cause, step=step, log_file=log_file, state=state, code=code)
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python pipelines/run.py",
        description="Train on base-layer artifacts, compare with the base, gate, register, package and promote.",
        epilog="Exit status: 0 promoted, 3 rejected by the gate, 2 bad input or configuration, 1 failure.",
    )
    parser.add_argument("--stack", default="local", choices=stacks.names(), help="where the steps run (default local)")
    parser.add_argument(
        "--pipeline", default="training", choices=("training", *UNGATED), help="what to run (default training)"
    )
    parser.add_argument("--config", type=Path, help="YAML of the run (default: the built-in demo)")
    parser.add_argument("--data-root", type=Path, help="folder with data/, genes.tsv and nucleotide_scores/")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting"
    )
    parser.add_argument("--if-changed", action="store_true", help="do nothing where a finished run saw the same data")
    parser.add_argument(
        "--schedule",
        metavar="CRON",
        help='run on the cluster at these times, as in "0 3 * * 1", where data have changed',
    )
    parser.add_argument("--time-zone", default="Etc/UTC", help="whose times these are (default Etc/UTC)")
    parser.add_argument("--no-cache", action="store_true", help="run every step, also those whose inputs are the same")
    parser.add_argument("--verbose", action="store_true", help="show all that is logged, and tracebacks")
    return parser


def _config(options: argparse.Namespace, state: Path) -> RunConfig:
    """The configuration with absolute paths: steps may run in another directory."""
    root = state / "demo" if _is_demo(options) else options.data_root
    config = RunConfig.load(options.config or DEMO, options.overrides, root)
    config.data = _absolute(config.data)
    config.score = _absolute(config.score)
    if options.pipeline == "base_layer":
        if config.base is None:
            raise ConfigError(
                "base: missing; --pipeline base_layer needs a configuration with this section: "
                + ", ".join(BaseConfig.model_fields)
            )
        if options.data_root:
            raise ConfigError(f"--data-root: given {options.data_root}; --pipeline base_layer writes to base.output")
        config.base = _absolute(config.base)
    if options.stack == "local":
        from metalayer.device import resolve_device

        resolve_device(config.score.device if options.pipeline == "score" else config.train.device)
    elif options.pipeline == "base_layer":
        raise ConfigError(f"--pipeline base_layer reads and writes files of one machine: given --stack {options.stack}")
    return config


def _absolute(section: AnySection) -> AnySection:
    return section.model_copy(update={name: value.resolve() for name, value in section if isinstance(value, Path)})


def _schedule(config: RunConfig, options: argparse.Namespace, state: Path) -> int:
    """Make or renew the CronJob that runs this; returns the exit status."""
    if options.pipeline == "score":
        raise ConfigError("--pipeline score writes its scores where it is started: --schedule does not go with it")
    stack = stacks.read(options.stack, _places(state))
    root = None if _is_demo(options) else config.data.data_root
    run = schedule.ScheduledRun(
        pipeline=options.pipeline, config=options.config, data_root=root, overrides=tuple(options.overrides)
    )
    name = schedule.apply(stack, run, options.schedule, options.time_zone)
    console.say(f"scheduled {name}: {options.schedule} {options.time_zone}")
    console.say(f"suspend, resume or delete it: python pipelines/run.py schedule suspend {name}")
    return 0


def _places(state: Path) -> dict[str, str]:
    """What `{state}` and `{tracking_uri}` in a stack's file stand for."""
    from metalayer.serving import registry

    return {"state": str(state), "tracking_uri": registry.default_tracking_uri()}


def _is_demo(options: argparse.Namespace) -> bool:
    """Whether the data are the built-in demo's: its configuration, and no other data named."""
    elsewhere = options.data_root or any(change.startswith("data.data_root") for change in options.overrides)
    demo = options.config is None or options.config.resolve() == DEMO
    return demo and not elsewhere and options.pipeline != "base_layer"


def _simulate(config: RunConfig) -> None:
    made_by = config.data.data_root.with_name("demo.code")
    code = environment.simulator_hash()
    if config.data.data_root.exists() and made_by.exists() and made_by.read_text(encoding="utf-8") == code:
        return
    from metalayer.workflows.simulate import simulate

    logger.info("simulating the demo's genes and scoring them with the built-in base model (once)")
    simulate(config.data.data_root)
    with publish_file(made_by) as draft:
        draft.write_text(code, encoding="utf-8")


def _run(config: RunConfig, options: argparse.Namespace, run_name: str, state: Path, log_file: Path) -> int:
    """Check the inputs, prepare the stack, run the pipeline, print the result."""
    settings: RunConfig | BaseConfig | ScoreConfig = config
    plan = None
    if options.pipeline == "base_layer":
        assert config.base is not None  # `_config` has seen to it
        settings, data_hash, cached = config.base, *_base_layer_inputs(config.base, run_name)
    elif options.pipeline == "score":
        plan = _scoring_plan(config, run_name, state)
        settings, data_hash, cached = config.score, plan.data_hash, True
    else:
        data_hash, cached = _artifact_inputs(config, run_name), True
    stack = stacks.read(options.stack, _places(state))
    code_hash, git_commit = environment.code_hash(), environment.git_commit()
    logger.info("preparing the %s stack", options.stack)
    import zenml

    console.take_over()
    from zenml.client import Client
    from zenml.enums import ExecutionMode

    from metalayer.serving import registry

    recipe = importlib.import_module(f"pipelines.{options.pipeline}")
    shard_steps = recipe.shard_steps(config.score) if plan else ()
    console.expect_steps(len(recipe.STEPS) + len(shard_steps))
    if options.stack != "local":
        stack_check.require(stack)
    tracking_uri = mlflow_service.prepare()
    step_options = stack.step_options((*recipe.GPU_STEPS, *(recipe.gpu_steps(config.score) if plan else ())))
    if options.no_cache or not cached:
        for name in (*recipe.CACHED, *shard_steps):
            step_options.setdefault(name, {})["enable_cache"] = False
    local = options.stack == "local"
    with mlflow_service.access(tracking_uri, local=local) as credentials:
        stacks.apply(stack, {"experiment_tracker": credentials})
        environment.mark_made(state)
        scorer = _scorer(config, tracking_uri, state) if plan else None
        if scorer:
            data_hash = hashlib.sha256(f"{data_hash} {scorer.digest}".encode()).hexdigest()
        if options.if_changed and (seen := _finished_run(options.pipeline, settings, data_hash)):
            console.say(f"nothing new: run {seen} has seen these data with these settings")
            console.say("exit status 0: skipped")
            return 0
        store = Client().active_stack.artifact_store
        if "://" in store.path:
            copied = inputs.put_files(plan.files, store) if plan else inputs.stage(config.data, data_hash, store)
            logger.info("%d input files copied to the artifact store", copied)
        model = zenml.Model(name=registry.registered_name(config.data.base_model), save_models_to_registry=False)
        given = {"config": settings, "data_hash": data_hash, "code_hash": code_hash}
        if plan and scorer:
            given |= recipe.given(plan, scorer, code_hash)
        prepared = getattr(recipe, options.pipeline).with_options(
            run_name=run_name,
            model=None if options.pipeline in ("base_layer", "score") else model,
            extra={"data_hash": data_hash, "code_hash": code_hash, "git_commit": git_commit},
            # A report that fails stops no promoted model from being packaged.
            execution_mode=ExecutionMode.CONTINUE_ON_FAILURE,
            settings=stack.settings,
            steps=step_options,
            secrets=[mlflow_service.SECRET] if mlflow_service.credentials() and not local else [],
        )
        with pods.watched(stack, run_name):
            prepared(**given)
        if stack.only_compiles:
            from pipelines.kubeflow import package_file

            console.compiled(package_file(run_name))
            return 0
        run = Client().get_pipeline_run(run_name)
        if options.pipeline == "search":
            return _finish_search(run, config, options.stack, state, log_file)
        if isinstance(settings, BaseConfig):
            return _finish_base_layer(run, settings, options, log_file)
        if plan:
            return _finish_score(run, config, state, log_file)
        return _finish(run, tracking_uri, state, log_file)


def _finished_run(pipeline: str, settings: RunConfig | BaseConfig | ScoreConfig, data_hash: str) -> str | None:
    """The newest run of a pipeline that finished, whatever its gate said, on the same data with the same settings."""
    from zenml.client import Client

    runs = Client().list_pipeline_runs(pipeline=pipeline, status="completed", size=_LOOKED_BACK, hydrate=True)
    for run in runs.items:
        given = run.config.parameters or {}
        if given.get("data_hash") != data_hash:
            continue
        with contextlib.suppress(ConfigError):  # of an earlier version, with other settings
            if type(settings)(**given["config"]).model_dump() == settings.model_dump():
                return str(run.name)
    return None


def _artifact_inputs(config: RunConfig, run_name: str) -> str:
    """Find the base-layer files and say so; returns the hash of their contents."""
    loader = ArtifactLoader(config.data)
    inputs = loader.files().all_paths()
    size = sum(path.stat().st_size for path in inputs) / 1e6
    logger.info("%s: %d input files, %.1f MB, in %s", run_name, len(inputs), size, console.shown(config.data.data_root))
    return loader.fingerprint()


def _base_layer_inputs(config: BaseConfig, run_name: str) -> tuple[str, bool]:
    """Look at model and files of a pass; returns their hash, and whether its output is there and whole."""
    from metalayer.workflows.base_run import fingerprint, is_written

    logger.info("%s: %s over %s into %s", run_name, config.model, config.annotation.name, console.shown(config.output))
    data_hash = fingerprint(config)
    return data_hash, is_written(config, data_hash)


def _scoring_plan(config: RunConfig, run_name: str, state: Path) -> ScoringPlan:
    """Find the per-nucleotide files, look at what else is named, and divide the genes."""
    from metalayer.workflows.score_genome import named_model, plan_shards

    named_model(config.score, config.data.base_model)
    folder = _scores_output(config, state).parent
    try:  # now, not after hours
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"configuration: score.output: {folder} cannot be written: {error.strerror}") from None
    plan = plan_shards(config.data, config.score.shards)
    genes, positions = sum(len(shard.genes) for shard in plan.shards), sum(shard.positions for shard in plan.shards)
    logger.info(
        "%s: %d genes, %s nt, in %d shards, from %s",
        *(run_name, genes, f"{positions:,}", len(plan.shards), console.shown(plan.folder)),
    )
    return plan


def _scores_output(config: RunConfig, state: Path) -> Path:
    return config.score.output or state / "scores" / f"{config.data.base_model}.parquet"


def _scorer(config: RunConfig, tracking_uri: str, state: Path) -> ScoringModel:
    from metalayer.workflows.score_genome import named_model, registered_model

    base_model = config.data.base_model
    return named_model(config.score, base_model) or registered_model(
        config.score, base_model, tracking_uri, state / "models"
    )


def _finish(run: Any, uri: str, state: Path, log_file: Path) -> int:
    """Publish report and query, print the result; returns the exit status."""
    from metalayer.evaluation.tables import comparison_table

    def output(step: str, name: str) -> Any:
        return run.steps[step].outputs[name][0].load()

    report = state / "reports" / run.name / "report.html"
    for name, path in (("html_report", report), ("drift_report", report.with_name("drift.html"))):
        with publish_file(path) as draft:
            draft.write_text(output("report", name), encoding="utf-8")
    decision, registration = output("gate", "decision"), output("register", "registration")
    code = 0 if decision["promoted"] else REJECTED
    console.result(
        table=comparison_table(output("evaluate", "evaluation")),
        decision=decision,
        registration=registration,
        promotion=output("promote", "promotion"),
        bento=output("package", "bento"),
        report=report,
        query=_query(output("evaluate", "golden").file, state) if code == 0 else _no_query(registration["name"], uri),
        cached=[name for name, step in run.steps.items() if step.status == "cached"],
        log_file=log_file,
    )
    console.ended(code)
    return code


def _finish_search(run: Any, config: RunConfig, stack: str, state: Path, log_file: Path) -> int:
    """Write the best settings as a configuration to train with, print the trials; returns the exit status."""
    found = run.steps["search"].outputs["search"][0].load()
    values = config.model_dump(mode="json", exclude={"search"}) | found["best"]
    best = state / "search" / run.name / "best.yaml"
    with publish_file(best) as draft:
        draft.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    command = ["python", "pipelines/run.py", "--stack", stack, "--config", console.shown(best)]
    console.search_result(found, best, shlex.join(command), log_file)
    return 0


def _finish_base_layer(run: Any, config: BaseConfig, options: argparse.Namespace, log_file: Path) -> int:
    """See that the files are there, print them and the command that trains on them; returns the exit status.

    Raises:
        MetalayerError: files that are not as the pass wrote them.
    """
    from metalayer.workflows.base_run import changed_files, manifest_name

    manifest = run.steps["base_layer"].outputs["manifest"][0].load()
    changed = changed_files(manifest, config.output)
    if changed:
        raise MetalayerError(
            f"{len(changed)} files in {config.output} are gone or not as the pass wrote them, the first {changed[0]}; "
            "run again with --no-cache"
        )
    command = ["python", "pipelines/run.py", "--stack", options.stack]
    if options.config:
        command += ["--config", str(options.config)]
    command += ["--data-root", console.shown(config.output), "--set", f"data.base_model={manifest['base_model']}"]
    cached = [name for name, step in run.steps.items() if step.status == "cached"]
    folders = dict.fromkeys((config.output / name).parent for name in manifest["files"] if "/" in name)
    wrote = [*folders, config.output / "genes.tsv", config.output / manifest_name(manifest["base_model"])]
    console.base_layer_result(manifest, wrote, shlex.join(command), cached, log_file)
    return 0


def _finish_score(run: Any, config: RunConfig, state: Path, log_file: Path) -> int:
    """Fetch and publish the scores, print what they are; returns the exit status."""
    from metalayer.workflows.score_genome import publish_scores

    merged = run.steps["merge_shards"].outputs
    manifest = merged["genome_manifest"][0].load()
    output = _scores_output(config, state)
    described = publish_scores(merged["genome_scores"][0].load().file, manifest, output)
    cached = [name for name, step in run.steps.items() if step.status == "cached"]
    console.score_result(manifest, [output, described], cached, log_file)
    return 0


def _query(golden: Path, state: Path) -> list[str]:
    """Write a request of golden rows; returns the commands that serve the model and send it."""
    import polars as pl

    table = pl.read_parquet(golden).unique("splice_type", keep="first", maintain_order=True)
    rows = table.select("sequence", "index", *ROW_SCORES).to_dicts()
    request = state / "query.json"
    with publish_file(request) as draft:
        draft.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    here = Path.cwd() == environment.ROOT
    return [
        "make serve" if here else f"make -C {shlex.quote(str(environment.ROOT))} serve",
        "curl -s http://127.0.0.1:3000/v1/score -H 'Content-Type: application/json' "
        f"--data @{shlex.quote(console.shown(request))}",
    ]


def _no_query(name: str, tracking_uri: str) -> list[str]:
    from metalayer.serving import registry

    champion = registry.find_champion(name, tracking_uri)
    if champion is None:
        return ["no model is promoted yet, so there is none to query"]
    return [f"make serve answers with the champion, version {champion.version}"]


def _failed_step(run_name: str) -> tuple[str, BaseException] | None:
    """The first step that failed and its error, which orchestrators tell only as text; None before the first step."""
    if "zenml.client" not in sys.modules:
        return None
    from zenml.client import Client
    from zenml.enums import ExecutionStatus
    from zenml.utils.exception_utils import reconstruct_exception

    with contextlib.suppress(Exception):  # no such run, or no database: the first error is what matters
        run = Client().get_pipeline_run(run_name)
        failed = [step for step in run.steps.values() if step.status == ExecutionStatus.FAILED]
        for step in sorted(failed, key=lambda step: step.created):
            return str(step.name), reconstruct_exception(step.exception_info, f"step {step.name} failed")
    return None


@contextlib.contextmanager
def _only_run(state: Path) -> Iterator[None]:
    """Hold the state folder, with no work of earlier runs in it.

    Raises:
        MetalayerError: another run holds it.
    """
    with only_one(state / "run.lock", "set METALAYER_HOME to another folder"):
        workspace.clear()
        try:
            yield
        finally:
            workspace.clear()


def _interrupted(number: int, _frame: FrameType | None) -> None:
    """End at once: ZenML takes a KeyboardInterrupt in a step with retries for a failure, and tries again."""
    _end(number, "run the same command again: finished steps come from the cache")


def _left_alone(number: int, _frame: FrameType | None) -> None:
    """End at once; what was submitted stays with its stack."""
    _end(
        number, "a run that was submitted goes on where it is; the same command takes its finished steps from the cache"
    )


def _end(number: int, advice: str) -> NoReturn:
    sys.stderr.write(f"\ninterrupted; {advice}\n")
    sys.stderr.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
