"""What a finished run has left: published, printed, and turned into an exit status; a function a pipeline."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalayer import yaml12
from metalayer.errors import MetalayerError
from metalayer.files import publish_directory, publish_file
from metalayer.genome import decode
from metalayer.integrity import unsealed
from metalayer.registry import names
from metalayer.release.answer import BASE
from metalayer.release.contract import evidence_fields, score_fields
from metalayer.schema import ACCEPTOR, DONOR, ROW_SCORES
from metalayer.settings.run import RunConfig
from metalayer.workflows.gated import REJECTED_STATUS
from pipelines import console, environment


@dataclass(frozen=True)
class Done:
    """A run that has finished.

    Attributes:
        run: ZenML's record of it.
        config: its configuration, with absolute paths.
        config_file: as `--config`; None is the demo.
        stack: as `--stack`.
        tracking_uri: of the MLflow that it wrote to.
        state: the state folder.
        log_file: of the run.
        plan: of a run in shards.
        model: directory of the model that it scored with.
    """

    run: Any
    config: RunConfig
    config_file: Path | None
    stack: str
    tracking_uri: str
    state: Path
    log_file: Path
    plan: Any = None
    model: Path | None = None

    def output(self, step: str, name: str) -> Any:
        """What a step returned under a name."""
        return self.run.steps[step].outputs[name][0].load()

    @property
    def cached(self) -> list[str]:
        """Steps taken from the cache."""
        return [name for name, step in self.run.steps.items() if step.status == "cached"]


def training(done: Done) -> int:
    """Publish report and query, print the result; returns the exit status."""
    from metalayer.evaluation.error_file import ERRORS_TEXT, write_text
    from metalayer.evaluation.tables import comparison_table, summary_table

    report = done.state / "reports" / done.run.name / "report.html"
    pages = {report: ("report", "html_report"), report.with_name("drift.html"): ("split", "drift_report")}
    for path, output in pages.items():
        with publish_file(path) as draft:
            draft.write_text(done.output(*output), encoding="utf-8")
    errors = None
    if table := done.output("evaluate", "errors").path:
        errors = report.with_name(ERRORS_TEXT)
        write_text(table, errors)
    evaluation = done.output("evaluate", "evaluation")
    decision, registration = done.output("gate", "decision"), done.output("register", "registration")
    code = 0 if decision["promoted"] else REJECTED_STATUS
    kept = [] if decision["promoted"] else _keep(done, report.parent)
    query = _query(done, registration["name"]) if decision["promoted"] else _no_query(done, registration["name"])
    console.result(
        evaluation=evaluation,
        summary=summary_table(evaluation),
        table=comparison_table(evaluation),
        decision=decision,
        registration=registration,
        promotion=done.output("promote", "promotion"),
        bento=done.output("package", "bento"),
        report=report,
        errors=errors,
        kept=kept,
        command=lambda *arguments: _in_state(done.state, Path(), _program(), *arguments),
        query=query,
        cached=done.cached,
        log_file=done.log_file,
    )
    console.ended(code)
    return code


def search(done: Done) -> int:
    """Write the best settings as a configuration to train with, print the trials; returns the exit status."""
    found = done.output("search", "search")
    values = done.config.model_dump(mode="json", exclude={"search"}) | found["best"]
    best = done.state / "search" / done.run.name / "best.yaml"
    with publish_file(best) as draft:
        draft.write_text(yaml12.dump(values), encoding="utf-8")
    command = _run_command(done, "--config", console.shown(best))
    console.search_result(found, best, command, done.log_file)
    return 0


def base_layer(done: Done) -> int:
    """See that the files are there, print them and the command that trains on them; returns the exit status.

    Raises:
        MetalayerError: files that are not as the pass wrote them.
    """
    from metalayer.workflows.base_run import changed_files, manifest_name

    assert done.config.base is not None
    output = done.config.base.output
    manifest = done.output("base_layer", "manifest")
    changed = changed_files(manifest, output)
    if changed:
        raise MetalayerError(
            f"{len(changed)} files in {output} are gone or not as the pass wrote them, the first {changed[0]}; "
            "run again with --no-cache"
        )
    chosen = ["--config", str(done.config_file)] if done.config_file else []
    chosen += ["--data-root", console.shown(output), "--set", f"data.base_model={manifest['base_model']}"]
    folders = dict.fromkeys((output / name).parent for name in manifest["files"] if "/" in name)
    wrote = [*folders, output / "genes.tsv", output / manifest_name(manifest["base_model"])]
    command = _run_command(done, *chosen) if any(manifest["rows"].values()) else None
    console.base_layer_result(manifest, wrote, command, done.cached, done.log_file)
    return 0


def score(done: Done) -> int:
    """Fetch and publish the scores, print what they are; returns the exit status."""
    from metalayer.workflows.score_genome import publish_scores

    manifest = done.output("merge_shards", "genome_manifest")
    output = scores_file(done.config, done.state)
    described = publish_scores(done.output("merge_shards", "genome_scores").file, manifest, output)
    console.score_result(manifest, [output, described], done.cached, done.log_file)
    return 0


def variants(done: Done) -> int:
    """Write the records with what the shards have computed; returns the exit status."""
    from metalayer.workflows.variant_shards import merge_shards
    from metalayer.workflows.variants import MAX_FAULTS

    config = done.config.variants
    assert config is not None
    steps = [f"score_variants_{shard.number}" for shard in done.plan.shards]
    parts = [(done.output(step, "answers").file, done.output(step, "shard_manifest")) for step in steps]
    outcome = merge_shards(config, done.plan, parts, done.model)
    faulty = outcome.faulty > MAX_FAULTS * outcome.records
    console.variants_result(outcome.lines(), config.output, done.cached, done.log_file, faulty=faulty)
    return console.FAULTY_STATUS if faulty else 0


def is_there(config: RunConfig, pipeline: str, state: Path, digest: str | None) -> bool:
    """Whether what a run in shards writes is there, of the model with this digest; True of other pipelines."""
    if pipeline == "variants":
        return config.variants is not None and config.variants.output.exists()
    return pipeline != "score" or scored_by(config, state) == digest


def scores_file(config: RunConfig, state: Path) -> Path:
    """Where `--pipeline score` publishes."""
    return config.score.output or state / "scores" / f"{config.data.base_model}.parquet"


def scored_by(config: RunConfig, state: Path) -> str | None:
    """Digest of the model whose scores are published there; None where there are none."""
    output = scores_file(config, state)
    try:
        described = unsealed(output.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    digest: str = described.get("model", {}).get("digest")
    return digest if output.exists() else None


def _keep(done: Done, folder: Path) -> list[Path]:
    """Put the model and its answers on the test genes beside the report: nothing else of a rejected model stays."""
    from metalayer.workflows.evaluate import ANSWERS

    model, answers = folder / "model", folder / ANSWERS
    with publish_directory(model) as draft:
        shutil.copytree(done.output("train", "model").path, draft, dirs_exist_ok=True)
    with publish_file(answers) as file:
        shutil.copyfile(done.output("evaluate", "answers").file, file)
    return [model, answers]


def _query(done: Done, name: str) -> list[str]:
    """Write a request of what the model has learned; returns the commands that serve the model and send it.

    The answer has base beside meta. That of a whole gene has thousands of positions, of which two sites are shown.
    """
    from metalayer.models.description import read_description

    info = read_description(done.output("train", "model").path)
    request = done.state / "reports" / done.run.name / "query.json"
    gene = _gene_query(done) if info.get("trained_on") == "genes" else None
    if gene is None:
        asked, path, rest = _rows_query(done.output("evaluate", "golden").file), f"/v1/score?{BASE}=true", ""
    else:
        asked, sites = gene
        path, rest = "/v1/score_sequence", f" | tr '{{' '\\n' | sed -n '{';'.join(f'{at + 3}p' for at in sites)}'"
    for file in (request, done.state / "query.json"):  # the last run's, too, whatever it is called
        with publish_file(file) as draft:
            draft.write_text(json.dumps(asked), encoding="utf-8")
    return [
        _serve(done, name),
        f"curl -s {shlex.quote(f'http://127.0.0.1:3000{path}')} -H 'Content-Type: application/json' "
        f"--data @{shlex.quote(console.shown(request))}{rest}",
    ]


def _rows_query(golden: Path) -> dict[str, Any]:
    """A request of golden rows, one a class."""
    import polars as pl

    table = pl.read_parquet(golden).unique("splice_type", keep="first", maintain_order=True)
    return {"rows": table.select("sequence", "index", *ROW_SCORES).to_dicts()}


def _gene_query(done: Done) -> tuple[dict[str, Any], list[int]] | None:
    """A request of the shortest test gene with both kinds of sites, and where its first donor and first acceptor are.

    Returns:
        The request, and two 0-based positions in its sequence, ascending; None where no test gene has scores.
    """
    from metalayer.data.tracks import open_tracks

    store = open_tracks(done.output("load_artifacts", "tracks").path)
    if store is None:
        return None
    genes = store.genes()
    tested = [gene_id for gene_id in done.output("split", "split_manifest")["test"]["genes"] if gene_id in store]
    for gene_id in sorted(tested, key=lambda gene_id: len(genes[gene_id])):
        track = store.read(gene_id)
        if {DONOR, ACCEPTOR} <= set(track.labels.tolist()):
            # As text a float32 is short, and read again the same.
            columns: dict[str, Any] = {
                name: [float(str(x)) for x in values] for name, values in score_fields(track.bases).items()
            }
            columns |= evidence_fields(track.evidence)
            sites = sorted(int((track.labels == site).argmax()) for site in (DONOR, ACCEPTOR))
            return {"sequence": decode(track.tokens), **columns}, sites
    return None


def _serve(done: Done, name: str) -> str:
    """The command that serves a name's champion; it names it where several names have one."""
    from metalayer.registry import versions

    make = ["make"] if Path.cwd() == environment.ROOT else ["make", "-C", str(environment.ROOT)]
    several = len(versions.champions(done.tracking_uri)) > 1
    return _in_state(done.state, environment.ROOT, *make, "serve", *([f"MODEL={names.short(name)}"] if several else []))


def _program() -> str:
    """`metalayer` as a person at this prompt would type it."""
    beside = Path(sys.executable).with_name("metalayer")
    return console.shown(beside) if beside.is_file() else beside.name


def _run_command(done: Done, *arguments: str) -> str:
    """The command that starts a run from this prompt, on the stack and in the state folder of this one."""
    program = console.shown(environment.ROOT / "pipelines" / "run.py")
    return _in_state(done.state, environment.ROOT, "python", program, "--stack", done.stack, *arguments)


def _in_state(state: Path, beside: Path, *command: str) -> str:
    """A command with the state folder, unless that is the one that it takes, which lies in `beside`."""
    line = shlex.join(command)
    default = beside / ".metalayer"
    return line if state == default.resolve() else f"METALAYER_HOME={shlex.quote(str(state))} {line}"


def _no_query(done: Done, name: str) -> list[str]:
    from metalayer.registry import versions

    champion = versions.find_champion(name, done.tracking_uri)
    if champion is None:
        return ["no model is promoted yet, so there is none to query"]
    return [f"{_serve(done, name)} answers with the champion, version {champion.version}"]
