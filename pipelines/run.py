"""Run a pipeline: `python pipelines/run.py --stack local`, with `--pipeline` a search, a base-layer pass or scoring.

`python pipelines/run.py stack ...` applies and checks stacks, `... schedule ...` looks after schedules.

Exit status: 0 promoted, 3 rejected by the gate, 2 bad input or configuration, 1 failure,
130 or 143 interrupted by SIGINT or SIGTERM.
Configuration and data are checked before ZenML is imported, so a mistake in them is reported at once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

# `pipelines` and `steps`, from whatever directory this runs; with PYTHONSAFEPATH the first place is not this folder's.
sys.path[: 0 if sys.flags.safe_path else 1] = [str(Path(__file__).resolve().parents[1])]

from metalayer import interrupt, moved, output, provenance, storage
from metalayer.core import ArtifactLoader
from metalayer.errors import ConfigError, MetalayerError
from metalayer.files import only_one, publish_file
from metalayer.registry import names
from metalayer.settings.encoders import LANGUAGE_MODELS
from metalayer.settings.evidence import absolute_sources
from metalayer.settings.run import RunConfig
from metalayer.settings.section import Section
from metalayer.settings.sections import BaseConfig, DataConfig, ScoreConfig, VariantsConfig
from metalayer.workflows import gated
from pipelines import (
    checkout,
    commands,
    configuration,
    console,
    environment,
    failures,
    mlflow_service,
    moved_state,
    pods,
    results,
    schedule,
    stack_check,
    stacks,
    unfinished,
)
from steps import inputs, workspace

if TYPE_CHECKING:
    from metalayer.workflows.score_genome import ScoringModel, ScoringPlan
    from metalayer.workflows.variant_shards import VariantPlan

AnySection = TypeVar("AnySection", bound=Section)

UNGATED = ("search", "base_layer", "score", "variants")
"""Pipelines beside training, which end without a decision."""
_NAME_LENGTH = 27
"""With kind, time and what is drawn no more than the 63 characters that a label of Kubernetes has."""
_LOOKED_BACK = 50
"""Runs that `--if-changed` compares with."""

logger = logging.getLogger("pipelines.run")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pipeline; returns the exit status."""
    output.outlive_readers()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _main(given)
    except ModuleNotFoundError as error:
        lacking = failures.lacking(error)
        if lacking is None:
            raise
        console.failure(lacking, where=console.BEFORE, log_file=Path(), code=lacking.exit_code)
        return lacking.exit_code


def _main(given: list[str]) -> int:
    if given and given[0] in commands.NAMES:
        return commands.main(given)
    options = _parser().parse_args(given)
    try:
        state = environment.prepare(local=options.stack == "local")
    except MetalayerError as error:
        console.refused(error)
        return error.exit_code
    kind = "" if options.pipeline == "training" else f"{options.pipeline}-"
    name = new_run_name(configuration.run_name(options), kind)
    log_file = state / "logs" / f"{name}.log"
    with interrupt.ending(_interrupted if options.stack == "local" else _left_alone):
        return _started(options, state, name, log_file)


def _started(options: argparse.Namespace, state: Path, run_name: str, log_file: Path) -> int:
    try:
        console.start(log_file, verbose=options.verbose)
        settings = configuration.read(options, state)
        _check(settings.config, options)
        if options.print_config:
            console.say(settings.text())
            return 0
        for line in settings.notes:
            logger.info("%s", line)
        if options.schedule:
            return _schedule(settings, options, state)
        with _only_run(state):
            environment.drop_half_made(state)
            if options.stack == "local":
                moved_state.follow(state, held=True)
            if settings.is_demo:
                _simulate(settings.config)
            return _run(settings, options, run_name, state, log_file)
    except Exception as error:  # noqa: BLE001  the last place: every error becomes its message and an exit status
        where, cause = failures.explained(run_name, error)
        cause = failures.lacking(cause) or storage.explained(cause) or cause
        code = cause.exit_code if isinstance(cause, MetalayerError) else 1
        console.failure(cause, where=where, log_file=log_file, code=code)
        return code


def new_run_name(config_name: str, kind: str) -> str:
    """A name that no other run has, also of another state folder: ZenML looks for a run of MLflow by it."""
    return f"{config_name[:_NAME_LENGTH]}-{kind}{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python pipelines/run.py",
        description="Train on base-layer artifacts, compare with the base, gate, register, package and promote.",
        epilog="Beside runs: `python pipelines/run.py stack apply|check STACK` and `python pipelines/run.py schedule "
        "list|suspend|resume|delete`, each with --help. Exit status: 0 promoted, 3 rejected by the gate, 2 bad input "
        "or configuration, 1 failure, 130 or 143 interrupted.",
    )
    parser.add_argument("--stack", default="local", choices=stacks.names(), help="where the steps run (default local)")
    parser.add_argument(
        "--pipeline", default="training", choices=("training", *UNGATED), help="what to run (default training)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="YAML of the run (default: run.yaml in --data-root, else what the files there say; without --data-root "
        "the built-in demo)",
    )
    parser.add_argument("--data-root", type=Path, help="folder with data/, genes.tsv and nucleotide_scores/")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings, each with where it comes from, and end"
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


def _check(config: RunConfig, options: argparse.Namespace) -> None:
    """Refuse what cannot run, and make paths absolute: steps may run in another directory."""
    config.data = _absolute(config.data)
    config.score = _absolute(config.score)
    if options.pipeline == "score" and isinstance(config.score.model, str):
        named = names.parse(config.score.model, "score.model")
        if isinstance(named, Path):
            config.score = config.score.model_copy(update={"model": str(named.resolve())})
    if options.pipeline == "base_layer":
        if config.base is None:
            raise ConfigError(
                "base: missing; --pipeline base_layer needs a configuration with this section: "
                + ", ".join(BaseConfig.model_fields)
            )
        if options.data_root:
            raise ConfigError(f"--data-root: given {options.data_root}; --pipeline base_layer writes to base.output")
        config.base = _absolute(config.base)
    if options.pipeline == "variants":
        _check_variants(config, options)
    if options.pipeline in ("training", "search") and config.model.sequence_encoder not in LANGUAGE_MODELS:
        from metalayer.models.meta import build_model

        build_model(config.model, config.data.evidence)  # parts that do not fit are found before the data are read
    if options.stack == "local":
        from metalayer.device import resolve_device

        asks = {"score": config.score, "variants": config.variants}.get(options.pipeline)
        resolve_device(asks.device if asks else config.train.device)
    elif options.pipeline == "base_layer":
        raise ConfigError(f"--pipeline base_layer reads and writes files of one machine: given --stack {options.stack}")


def _check_variants(config: RunConfig, options: argparse.Namespace) -> None:
    if config.variants is None:
        raise ConfigError(
            "variants: missing; --pipeline variants needs file, fasta, annotation, bases and output of this section, "
            "and takes " + ", ".join(VariantsConfig.model_fields)
        )
    if options.data_root:
        raise ConfigError(f"--data-root: given {options.data_root}; --pipeline variants reads variants.file")
    changes: dict[str, Any] = {"weights": tuple(_absolute_weights(one) for one in config.variants.weights)}
    if config.variants.model is not None and isinstance(
        named := names.parse(config.variants.model, "variants.model"), Path
    ):
        changes["model"] = str(named.resolve())
    config.variants = _absolute(config.variants).model_copy(update=changes)


def _absolute_weights(given: str) -> str:
    name, named, path = given.rpartition("=")
    return f"{name}{named}{Path(path).resolve()}"


def _absolute(section: AnySection) -> AnySection:
    changes: dict[str, Any] = {name: value.resolve() for name, value in section if isinstance(value, Path)}
    if isinstance(section, DataConfig | BaseConfig | VariantsConfig):
        changes["evidence"] = absolute_sources(section.evidence)
    return section.model_copy(update=changes)


def _schedule(settings: configuration.Configuration, options: argparse.Namespace, state: Path) -> int:
    """Make or renew the CronJob that runs this; returns the exit status."""
    if options.pipeline in ("score", "variants"):
        raise ConfigError(
            f"--pipeline {options.pipeline} writes its scores where it is started: --schedule does not go with it"
        )
    if options.no_cache:
        raise ConfigError("--no-cache does not go with --schedule: a scheduled run takes finished steps from the cache")
    configuration.require_file(settings, "--schedule")
    stack = stacks.read(options.stack, _places(state))
    root = None if settings.is_demo else settings.config.data.data_root
    file = None if settings.is_demo and options.config is None else settings.file
    run = schedule.ScheduledRun(
        pipeline=options.pipeline, config=file, data_root=root, overrides=tuple(options.overrides)
    )
    documents = schedule.manifests(stack, run, options.schedule, options.time_zone)
    stack_check.require(stack)
    renewed = schedule.apply(stack, documents)
    console.say(f"{'renewed' if renewed else 'scheduled'} {run.name}: {options.schedule} {options.time_zone}")
    console.say(f"suspend, resume or delete it: python pipelines/run.py schedule suspend {run.name}")
    return 0


def _places(state: Path) -> dict[str, str]:
    """What `{state}` and `{tracking_uri}` in a stack's file stand for."""
    from metalayer.registry import tracking

    return {"state": str(state), "tracking_uri": tracking.default_tracking_uri()}


def _simulate(config: RunConfig) -> None:
    made_by = config.data.data_root.with_name("demo.code")
    code = provenance.code_hash()
    if config.data.data_root.exists() and made_by.exists() and made_by.read_text(encoding="utf-8") == code:
        return
    from metalayer.workflows.simulate import simulate

    logger.info("simulating the demo's genes and scoring them with the built-in base model (once)")
    simulate(config.data.data_root)
    with publish_file(made_by) as draft:
        draft.write_text(code, encoding="utf-8")


def _run(
    chosen: configuration.Configuration, options: argparse.Namespace, run_name: str, state: Path, log_file: Path
) -> int:
    """Check the inputs, prepare the stack, run the pipeline, print the result."""
    config = chosen.config
    settings: RunConfig | BaseConfig | ScoreConfig | VariantsConfig = config
    plan: ScoringPlan | VariantPlan | None = None
    if options.pipeline == "base_layer":
        assert config.base is not None  # `_config` has seen to it
        settings, data_hash, cached = config.base, *_base_layer_inputs(config.base, run_name)
    elif options.pipeline == "score":
        plan = _scoring_plan(config, run_name, state)
        settings, data_hash, cached = config.score, plan.data_hash, True
    elif options.pipeline == "variants":
        plan = _variant_plan(config, run_name)
        assert config.variants is not None
        settings, data_hash, cached = config.variants, plan.data_hash, True
    else:
        gated.check_head(config.model.head, config.data.base_model)
        data_hash, cached = _artifact_inputs(config, run_name), True
        if options.pipeline == "training":
            gated.check_held_out(config, ArtifactLoader(config.data).genome_build())
    stack = stacks.read(options.stack, _places(state))
    code_hash, git_commit = environment.code_hash(), checkout.git_commit()
    if git_commit.startswith(checkout.UNKNOWN):
        logger.warning("commit %s", git_commit)
    first = not environment.is_own(state)
    once = " (the first time in this state folder: some seconds more)" if first else ""
    logger.info("preparing the %s stack: loading the orchestrator", options.stack)
    import zenml

    console.take_over()
    environment.leave_out_integrations()
    from zenml.client import Client
    from zenml.enums import ExecutionMode

    from metalayer.registry import promotion, versions

    recipe = importlib.import_module(f"pipelines.{options.pipeline}")
    shard_steps = recipe.shard_steps(settings) if plan else ()
    console.expect_steps(len(recipe.STEPS) + len(shard_steps))
    if options.stack != "local":
        stack_check.require(stack)
    logger.info("preparing the %s stack: opening the model registry%s", options.stack, once)
    tracking_uri = mlflow_service.prepare()
    if options.pipeline == "training":
        promotion.require_whole(versions.registered_name(config.data.base_model), tracking_uri)
    step_options = stack.step_options((*recipe.GPU_STEPS, *(recipe.gpu_steps(settings) if plan else ())))
    if options.no_cache or not cached:
        for name in (*recipe.CACHED, *shard_steps):
            step_options.setdefault(name, {})["enable_cache"] = False
    local = options.stack == "local"
    with mlflow_service.access(tracking_uri, local=local) as credentials:
        logger.info("preparing the %s stack: opening the record of runs%s", options.stack, once)
        stacks.apply(stack, {"experiment_tracker": credentials})
        if local:
            unfinished.end(state, tracking_uri)
        environment.mark_made(state)
        scorer = _scorer(config, options.pipeline, tracking_uri) if plan else None
        if scorer:
            data_hash = hashlib.sha256(f"{data_hash} {scorer.digest}".encode()).hexdigest()
        there = cached and results.is_there(config, options.pipeline, state, scorer.digest if scorer else None)
        inputs_now = {"data_hash": data_hash, "code_hash": code_hash}
        if options.if_changed and (reason := _run_before(options.pipeline, settings, inputs_now, stack, there=there)):
            console.say(reason)
            console.say("exit status 0: skipped")
            return 0
        store = Client().active_stack.artifact_store
        if "://" in store.path:
            copied = inputs.put_files(plan.copied, store) if plan else inputs.stage(config.data, data_hash, store)
            logger.info("%d input files copied to the artifact store", copied)
        model = zenml.Model(name=versions.registered_name(config.data.base_model), save_models_to_registry=False)
        given = {"config": settings, **inputs_now}
        if plan:
            given |= recipe.given(plan, scorer)
        prepared = getattr(recipe, options.pipeline).with_options(
            run_name=run_name,
            model=None if options.pipeline in ("base_layer", "score", "variants") else model,
            extra={"data_hash": data_hash, "code_hash": code_hash, "git_commit": git_commit},
            # A report that fails stops no promoted model from being packaged.
            execution_mode=ExecutionMode.CONTINUE_ON_FAILURE,
            settings=stack.settings,
            steps=step_options,
            secrets=[mlflow_service.SECRET] if mlflow_service.credentials() and not local else [],
        )
        with pods.watched(stack, run_name):
            prepared(**given)
            if not stack.only_compiles:
                failures.require_completed(run_name)
        if stack.only_compiles:
            from pipelines.kubeflow import package_file

            console.compiled(package_file(run_name))
            return 0
        done = results.Done(
            run=Client().get_pipeline_run(run_name),
            config=config,
            config_file=options.config,
            stack=options.stack,
            tracking_uri=tracking_uri,
            state=state,
            log_file=log_file,
            plan=plan,
            model=scorer.directory if scorer else None,
        )
        show: Callable[[results.Done], int] = getattr(results, options.pipeline)
        return show(done)


def _run_before(
    pipeline: str,
    settings: RunConfig | BaseConfig | ScoreConfig | VariantsConfig,
    versions: Mapping[str, str],
    stack: stacks.Stack,
    *,
    there: bool,
) -> str | None:
    """What to say of the newest run on the same data with the same settings and code; None where another is due.

    A run that finished counts, whatever its gate said, where what it wrote is `there`. Away from this machine one under
    way does too: it outlives the process that submitted it. ZenML shows one that was killed as running for good, so it
    counts for a time only, and a package that was compiled for Kubeflow and not yet started as provisioning.
    """
    from zenml.client import Client

    def newest(**chosen: Any) -> str | None:
        runs = Client().list_pipeline_runs(pipeline=pipeline, size=_LOOKED_BACK, hydrate=True, **chosen)
        for run in runs.items:
            given = run.config.parameters or {}
            if not versions.items() <= given.items():
                continue
            with contextlib.suppress(ConfigError):  # of an earlier version, with other settings
                if type(settings)(**given["config"]).model_dump() == settings.model_dump():
                    return str(run.name)
        return None

    if there and (name := newest(status="completed")):
        return f"nothing new: run {name} has seen these data with these settings"
    if stack.name == "local":
        return None
    earliest = datetime.now(UTC) - timedelta(seconds=stack.longest_s)
    under_way: dict[str, Any] = {"in_progress": True} if stack.name == "kubernetes" else {"status": "running"}
    if name := newest(created=f"gte:{earliest:%Y-%m-%d %H:%M:%S}", **under_way):
        return f"nothing to start: run {name}, on these data with these settings, is under way"
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

    if named_model(config.score, config.data.base_model) is None and isinstance(config.score.model, str):
        wanted = names.parse(config.score.model, "score.model")
        assert isinstance(wanted, names.Registered)  # else it is a folder, which was looked at
        names.find(wanted, option="score.model")
    folder = results.scores_file(config, state).parent
    try:  # now, not after hours
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"configuration: score.output: {folder} cannot be written: {error.strerror}") from None
    plan = plan_shards(config.data, config.score.shards)
    config.score.shards = len(plan.shards)
    genes, positions = sum(len(shard.genes) for shard in plan.shards), sum(shard.positions for shard in plan.shards)
    logger.info(
        "%s: %d genes, %s nt, in %d shards, from %s",
        *(run_name, genes, f"{positions:,}", len(plan.shards), console.shown(plan.folder)),
    )
    return plan


def _variant_plan(config: RunConfig, run_name: str) -> VariantPlan:
    """Look at all files of variants, and divide the records."""
    from metalayer.workflows import variant_shards

    assert config.variants is not None  # `_check` has seen to it
    made = variant_shards.plan(config.variants)
    config.variants = config.variants.model_copy(update={"shards": len(made.shards)})
    logger.info(
        "%s: %s records of %s in %d shards",
        *(run_name, f"{made.shards[-1].end:,}", console.shown(config.variants.file), len(made.shards)),
    )
    return made


def _scorer(config: RunConfig, pipeline: str, tracking_uri: str) -> ScoringModel | None:
    from metalayer.workflows.score_genome import any_model, named_model, registered_model

    if pipeline == "variants":
        wanted = config.variants and config.variants.model
        return any_model(wanted, tracking_uri, "variants.model") if wanted else None
    base_model = config.data.base_model
    return named_model(config.score, base_model) or registered_model(config.score, base_model, tracking_uri)


@contextlib.contextmanager
def _only_run(state: Path) -> Iterator[None]:
    """Hold the state folder, with no work of earlier runs in it.

    Raises:
        MetalayerError: another run holds it.
    """
    with only_one(state / moved.RUN_LOCK, "set METALAYER_HOME to another folder"):
        workspace.clear()
        try:
            yield
        finally:
            workspace.clear()


def _interrupted() -> None:
    """Say what comes next; the process ends at once: ZenML takes an error in a step for one, and tries again."""
    _say_interrupted("run the same command again: finished steps come from the cache")


def _left_alone() -> None:
    """Likewise; what was submitted stays with its stack."""
    _say_interrupted(
        "a run that was submitted goes on where it is; the same command takes its finished steps from the cache"
    )


def _say_interrupted(advice: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.write(2, f"\ninterrupted; {advice}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
