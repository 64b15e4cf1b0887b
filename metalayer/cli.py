"""The command line: `metalayer --help`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import metalayer
from metalayer import environment, interrupt, output, storage
from metalayer.errors import MetalayerError

if TYPE_CHECKING:
    from metalayer.client import MetaLayerClient
    from metalayer.registry.promotion import Move

_UNWIND_S = 5.0
"""Seconds from a signal in which a command removes what it has not finished."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (see `errors.py`)."""
    output.outlive_readers()
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    environment.enter()
    try:
        if options.command in ("serve", "registry"):
            environment.clean()
            environment.drop_foreign()
        with interrupt.ending(unwind_s=_UNWIND_S):
            code: int = options.run(options)
    except MetalayerError as error:
        print(f"metalayer {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        from metalayer.extras import explained

        text = explained(error)
        message = text or f"package {error.name!r} is not installed; see `metalayer doctor`"
        print(f"metalayer {options.command}: {message}", file=sys.stderr)
        return 2 if text else 1
    except Exception as error:
        if (told := storage.explained(error)) is None:
            raise
        print(f"metalayer {options.command}: {told}", file=sys.stderr)
        return told.exit_code
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metalayer",
        description="Recalibrates the per-nucleotide scores of a splice-site model. The training pipeline is "
        "`python pipelines/run.py`.",
    )
    parser.add_argument("--version", action="version", version=f"metalayer {metalayer.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    simulate = commands.add_parser("simulate", help="write made-up genes, scored by the built-in base model")
    simulate.add_argument("--output", type=Path, required=True, help="folder to write")
    simulate.add_argument("--seed", type=int, default=7, help="same seed, same files (default 7)")
    simulate.add_argument("--genes", type=int, default=150, help="how many genes (default 150)")
    simulate.set_defaults(run=_simulate)

    base = commands.add_parser("base", help="run a base model over a genome annotation")
    run = base.add_subparsers(dest="base_command", required=True, metavar="COMMAND").add_parser(
        "run", help="score every position of every gene and write a data root"
    )
    run.add_argument("--model", required=True, help="pwm, or openspliceai with --weights")
    run.add_argument("--weights", type=Path, help="folder with model_<flank>nt_rs<seed>.pt state dicts")
    run.add_argument("--flank", type=int, help="which networks of --weights, by nt of flank on both sides")
    run.add_argument("--fasta", type=Path, required=True, help="reference in FASTA, plain or packed")
    run.add_argument("--annotation", type=Path, required=True, help="GTF or GFF3, plain or packed")
    run.add_argument(
        "--aliases",
        type=Path,
        metavar="FILE",
        help="names of contigs, where FASTA and annotation have different ones: NCBI's assembly report, UCSC's "
        "chromAlias, or a table with the names of one contig a line",
    )
    run.add_argument("--output", type=Path, required=True, help="data root to write into")
    run.add_argument("--annotation-source", default="annotation", help="folder name of the annotation")
    run.add_argument("--build", default="unknown", help="folder name of the genome build, as in GRCh38")
    run.add_argument("--device", help="auto, cpu, cuda or mps, for networks (default auto)")
    run.add_argument(
        "--flanks", default="real", choices=("real", "N"), help="letters around a gene, or N (default real)"
    )
    run.add_argument(
        "--min-intron",
        dest="min_intron_bp",
        type=int,
        default=20,
        metavar="NT",
        help="least length of an intron; shorter gaps between exons are within one (default 20)",
    )
    run.add_argument(
        "--allow-introns",
        action="store_true",
        help="introns may begin and end with anything, not GT or GC and AG alone",
    )
    run.add_argument("--workers", type=int, default=1, help="processes that score genes (default 1, with all threads)")
    run.set_defaults(run=_base_run)

    train = commands.add_parser(
        "train",
        help="train on base-layer artifacts, or on whole genes with --scores; write a model directory",
        description="Several processes: torchrun --nproc-per-node N -m metalayer train ...",
    )
    train.add_argument(
        "--config",
        help="YAML file, or a preset that comes with metalayer: lightweight, hyenadna, genes (that of --scores)",
    )
    train.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="per-nucleotide Parquet files, labelled: train on every position of their genes",
    )
    train.add_argument(
        "--valid-scores",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="likewise, to pick the best epoch on (default: whole genes held out of --scores)",
    )
    train.add_argument("--base-model", help="name of the base model, as in <base_model>_eval (default openspliceai)")
    train.add_argument("--encoder", help="sequence encoder (default cnn)")
    train.add_argument("--data-root", type=Path, help="folder with data/, genes.tsv and nucleotide_scores/")
    train.add_argument("--gene-table", type=Path, help="genes.tsv: where genes lie, and which are paralogs")
    train.add_argument("--aliases", type=Path, help="names of contigs, where files have different ones")
    train.add_argument("--output-dir", type=Path, default=Path("models/meta_layer_v1"), help="folder to write")
    train.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting: max_epochs=3, or with its section train.max_epochs=3",
    )
    train.add_argument("--seed", type=int, help="same seed and threads, same model")
    train.add_argument("--use-wandb", action="store_true", help="log to Weights & Biases")
    train.add_argument("--resume", action="store_true", help="go on from last_model.pt of a run that was cut off")
    train.set_defaults(run=_train)

    score = commands.add_parser(
        "score",
        help="score rows of a file with a model directory or by a server",
        description="By a server, a run that was cut off goes on where it was, and waits while the server restarts. A "
        "key for it is read from METALAYER_API_KEY.",
    )
    score.add_argument("rows", type=Path, help="artifact rows: .parquet, or tab-separated text")
    scorer = score.add_mutually_exclusive_group(required=True)
    scorer.add_argument("--model", type=Path, help="model directory, or output folder of a training run")
    scorer.add_argument("--url", help="server, as in http://127.0.0.1:3000")
    score.add_argument("--output", type=Path, required=True, help="file to write: .parquet, or with --model .tsv")
    score.add_argument("--device", default="auto", help="auto, cpu, cuda or mps, with --model (default auto)")
    score.set_defaults(run=_score)

    evaluate = commands.add_parser("evaluate", help="compare a model with its base on every position of labelled genes")
    evaluate.add_argument(
        "--model", type=Path, required=True, help="model directory, or output folder of a training run"
    )
    evaluate.add_argument(
        "--scores", type=Path, required=True, nargs="+", help="per-nucleotide Parquet files, labelled"
    )
    evaluate.add_argument("--gene-table", type=Path, help="genes.tsv: check where genes lie, and take paralog groups")
    evaluate.add_argument(
        "--aliases", type=Path, metavar="FILE", help="names of contigs, where scores and gene table have different ones"
    )
    evaluate.add_argument(
        "--allow-introns",
        action="store_true",
        help="introns may begin and end with anything, not GT or GC and AG alone",
    )
    evaluate.add_argument("--output", type=Path, required=True, help="JSON report to write")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    evaluate.set_defaults(run=_evaluate)

    ablate = commands.add_parser(
        "ablate",
        help="train variants of the model alike on whole genes, and compare them on others",
        description="A run that is in --output-dir already, of the same files and settings, is kept or goes on.",
    )
    ablate.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="per-nucleotide Parquet files, labelled, to train on",
    )
    ablate.add_argument(
        "--valid-scores",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="likewise, to pick the best epoch on (default: whole genes held out of --scores, drawn by the seed)",
    )
    ablate.add_argument(
        "--test-scores",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="likewise, to judge on: genes that are in none of the others",
    )
    ablate.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    ablate.add_argument(
        "--config", default="genes", help="what all variants have in common: flat YAML file or preset (default genes)"
    )
    ablate.add_argument(
        "--variants",
        nargs="+",
        default=[],
        metavar="NAME",
        help="none (score encoder alone), cnn, hyenadna, hyenadna-random, huggingface, each also as NAME+tracks, "
        "tracks (track encoder alone), and those of --variants-file; the first is the reference (default: all of the "
        "file, or none cnn tracks cnn+tracks)",
    )
    ablate.add_argument("--variants-file", type=Path, help="YAML of further variants: name to settings")
    ablate.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    ablate.add_argument("--max-epochs", type=int, help="epochs of every run (default: of the configuration)")
    ablate.set_defaults(run=_ablate)

    verify = commands.add_parser("verify", help="check a training set")
    verify.add_argument("data", type=Path, help="training_data.parquet")
    verify.set_defaults(run=_verify)

    serve = commands.add_parser("serve", help="serve the promoted model over HTTP")
    chosen = serve.add_mutually_exclusive_group()
    chosen.add_argument("--model", help="registered name, where several models are promoted")
    chosen.add_argument("--bento", help="tag or folder of a Bento to serve instead of the champion's")
    serve.add_argument(
        "--host",
        help="address to listen on (default $BENTOML_HOST, else all with API keys and 127.0.0.1, this machine only, "
        "without)",
    )
    serve.add_argument("--port", help="port (default $BENTOML_PORT, else 3000)")
    serve.add_argument("--ssl-certfile", type=Path, help="certificate in PEM: speak HTTPS")
    serve.add_argument("--ssl-keyfile", type=Path, help="its private key, where it is in a file of its own")
    serve.set_defaults(run=_serve)

    registry = commands.add_parser("registry", help="list registered models, and move the champion")
    actions = registry.add_subparsers(dest="registry_command", required=True, metavar="COMMAND")
    actions.add_parser("list", help="every registered version, its aliases and the gate's decision").set_defaults(
        run=_registry_list
    )
    promote = actions.add_parser("promote", help="make a version that passed the gate the champion")
    promote.add_argument("version", type=int, help="registered version")
    rollback = actions.add_parser("rollback", help="undo the last promotion: the champion before it stands again")
    retire = actions.add_parser(
        "retire",
        help="take the champion, or another version, out of the line",
        description="For a champion that no new model can be compared with, or that should not have been one. The one "
        "before that answers here stands again; where there is none, the next model that passes the gate takes the "
        "place. Servers that follow go on with what they have until then.",
    )
    retire.add_argument("version", type=int, nargs="?", help="registered version (default: the champion)")
    retire.add_argument("--reason", required=True, help="why, in one line; kept on the version")
    moves = ((promote, _registry_promote), (rollback, _registry_rollback), (retire, _registry_retire))
    for action, command in moves:
        action.add_argument("--model", help="registered name, where there are several")
        action.set_defaults(run=command)

    client = commands.add_parser(
        "client", help="ask a server", description="A key for it is read from METALAYER_API_KEY."
    )
    requests = client.add_subparsers(dest="client_command", required=True, metavar="COMMAND")
    facts = requests.add_parser("model", help="which model answers, as JSON")
    facts.set_defaults(run=_client_model)
    sequence = requests.add_parser("sequence", help="score every position of a transcript-sense sequence")
    sequence.add_argument("sequence", type=Path, help="FASTA file of one sequence, plain or packed")
    sequence.add_argument("--output", type=Path, required=True, help=".parquet file to write, one row a letter")
    sequence.set_defaults(run=_client_sequence)
    for request in (facts, sequence):
        request.add_argument("--url", default="http://127.0.0.1:3000", help="server (default http://127.0.0.1:3000)")

    doctor = commands.add_parser("doctor", help="check the installation and say what is missing")
    doctor.set_defaults(run=_doctor)
    return parser


def _simulate(options: argparse.Namespace) -> int:
    from metalayer.workflows.simulate import simulate

    summary = simulate(options.output, seed=options.seed, n_genes=options.genes)
    for name, value in summary.items():
        if name != "files":  # their hashes, in the manifest
            print(f"{name}: {value}")
    return 0


def _base_run(options: argparse.Namespace) -> int:
    from metalayer.settings.sections import BaseConfig
    from metalayer.workflows.base_run import base_run

    manifest = base_run(BaseConfig(**{name: getattr(options, name) for name in BaseConfig.model_fields}))
    sites = manifest["sites"]
    print(f"{manifest['genes']:,} genes, {manifest['positions']:,} positions, {sites['donor']:,} donors, ", end="")
    print(f"{sites['acceptor']:,} acceptors scored with {manifest['base_model']} into {options.output}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from metalayer.errors import ConfigError
    from metalayer.settings import door
    from metalayer.settings.flat import MetaLayerConfig

    preset = options.config or ("genes" if options.scores else None)
    written = MetaLayerConfig.from_yaml(preset).model_dump(exclude_unset=True) if preset else {}
    asked = {
        "base_model": options.base_model,
        "sequence_encoder": options.encoder,
        "data_root": options.data_root,
        "gene_table": options.gene_table,
        "aliases": options.aliases,
        "seed": options.seed,
    }
    values = {name: value for name, value in asked.items() if value is not None}
    for text in options.overrides:
        section, key, value = door.override(text)
        values[door.flat_name(section, key) if section else key] = value
    if options.scores and "training_unit" not in written:
        values.setdefault("training_unit", "genes")
    values = MetaLayerConfig.overridden(written, values)
    if options.scores:
        return _train_on_scores(options, values)
    if options.valid_scores:
        raise ConfigError("--valid-scores goes with --scores, the files to train on")
    from metalayer.workflows.train_meta import train_meta_model

    config = MetaLayerConfig(**values)
    results = train_meta_model(config, options.output_dir, use_wandb=options.use_wandb, resume=options.resume)
    metrics = results.get("metrics")
    if metrics is None:  # not the first of several processes
        return 0
    for name, key in (
        ("PR-AUC (splice)", "pr_auc_splice"),
        ("AP (splice)", "ap_splice"),
        ("top-k, donor", "topk_donor"),
        ("top-k, acceptor", "topk_acceptor"),
        ("ECE", "ece"),
    ):
        print(f"{name:<16} {metrics[key]:.4f}")
    print(
        f"of {metrics['rows']:,} rows of held-out genes (a sample, not whole genes); best epoch {results['best_epoch']}"
    )
    print(f"model directory  {results['paths']['model']}")
    return 0


def _train_on_scores(options: argparse.Namespace, values: dict[str, Any]) -> int:
    from metalayer.metric_list import JUDGED
    from metalayer.settings.flat import MetaLayerConfig
    from metalayer.workflows.train_genes import train_on_scores

    results = train_on_scores(
        options.scores,
        options.valid_scores,
        MetaLayerConfig.for_scores(values, separate=bool(options.valid_scores)),
        options.output_dir,
        use_wandb=options.use_wandb,
        resume=options.resume,
    )
    if "calibration" not in results:  # not the first of several processes
        return 0
    base, best = results["history"][0], results["history"][results["best_epoch"]]
    print(f"{'on validation genes':<20} base    best epoch ({results['best_epoch']})")
    for key, name in JUDGED.items():
        print(f"{name:<20} {base[f'val_{key}']:.4f}  {best[f'val_{key}']:.4f}")
    print("which picked the epoch, so judge with `metalayer evaluate` on other genes")
    print(f"model directory      {results['paths']['model']}")
    return 0


def _client(options: argparse.Namespace) -> MetaLayerClient:
    from metalayer.client import MetaLayerClient

    return MetaLayerClient(environment.url(options.url, "--url"), api_key=environment.key("METALAYER_API_KEY"))


def _client_model(options: argparse.Namespace) -> int:
    with _client(options) as client:
        print(json.dumps(client.model(), indent=1))
    return 0


def _client_sequence(options: argparse.Namespace) -> int:
    from metalayer.base.fasta import read_sequence
    from metalayer.files import publish_file

    sequence = read_sequence(options.sequence)
    with _client(options) as client:
        table = client.score_sequence(sequence)
    with publish_file(options.output) as draft:
        table.write_parquet(draft)
    print(f"{len(table):,} letters scored into {options.output}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from metalayer.device import resolve_device
    from metalayer.workflows.score import score_rows, score_rows_by_server

    if options.url:
        with _client(options) as client:
            rows = score_rows_by_server(options.rows, client, options.output)
    else:
        rows = score_rows(options.rows, options.model, options.output, resolve_device(options.device))
    print(f"{rows:,} rows scored into {options.output}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from metalayer.evaluation.tables import builds_note, report_table, rows_table
    from metalayer.workflows.evaluate_scores import evaluate_scores

    report = evaluate_scores(
        options.model,
        options.scores,
        options.output,
        device=options.device,
        gene_table=options.gene_table,
        aliases=options.aliases,
        allow_introns=options.allow_introns,
    )
    note = builds_note(report)
    print("\n\n".join([report_table(report, [note] if note else []), *rows_table(report)]))
    return 0


def _ablate(options: argparse.Namespace) -> int:
    from metalayer.evaluation.ablation import ablation_table
    from metalayer.settings.flat import MetaLayerConfig
    from metalayer.workflows.ablate import ablate, chosen_variants

    variants = chosen_variants(options.variants, options.variants_file)
    written = MetaLayerConfig.from_yaml(options.config).model_dump(exclude_unset=True)
    unit = {} if "training_unit" in written else {"training_unit": "genes"}
    values = MetaLayerConfig.overridden(written, unit)
    if options.max_epochs is not None:
        values["max_epochs"] = options.max_epochs
    report = ablate(
        options.scores,
        options.valid_scores,
        options.test_scores,
        MetaLayerConfig.for_scores(values, separate=bool(options.valid_scores)),
        options.output_dir,
        variants=variants,
        seeds=options.seeds,
    )
    print(ablation_table(report))
    print(f"table, figures and plot: {options.output_dir}/ablation.md, .json, .png")
    return 1 if any(variant["errors"] for variant in report["variants"]) else 0


def _verify(options: argparse.Namespace) -> int:
    from metalayer.data.verify import verify_dataset

    logging.getLogger("metalayer.data.verify").setLevel(logging.ERROR)  # the table below says it all
    report = verify_dataset(options.data)
    print(report)
    return 0 if report.ok else 2


def _serve(options: argparse.Namespace) -> int:
    from metalayer.serving.serve import serve

    code: int = serve(
        name=options.model,
        bento=options.bento,
        host=options.host,
        port=options.port,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
    )
    return code


def _registry_list(_: argparse.Namespace) -> int:
    from metalayer.registry import line, tracking, versions

    found = versions.all_versions()
    if not found:
        print(f"no registered model in {tracking.shown_uri()}", file=sys.stderr)
    for version in found:
        aliases = ", ".join(version.aliases) or "-"
        tags = version.tags
        print(f"{version.name}  {version.version:>4}  {aliases:<22}  {tags.get(versions.DECISION_TAG, '?'):<8}", end="")
        print(f"  {version.digest[:12]}  {tags.get(versions.BENTO_TAG, 'no Bento')}", end="")
        reason = tags.get(line.RETIRED_TAG)
        print("" if reason is None else f"  retired {tags.get(line.RETIRED_AT_TAG, '')[:10]}: {reason}")
    return 0


def _registry_promote(options: argparse.Namespace) -> int:
    from metalayer.registry import promotion, versions

    _print_move(promotion.promote(versions.only_name(options.model), options.version))
    return 0


def _registry_rollback(options: argparse.Namespace) -> int:
    from metalayer.registry import promotion, versions

    _print_move(promotion.rollback(versions.only_name(options.model)))
    return 0


def _registry_retire(options: argparse.Namespace) -> int:
    from metalayer.registry import promotion, versions

    _print_move(promotion.retire(versions.only_name(options.model), options.version, options.reason))
    return 0


def _print_move(move: Move) -> None:
    for passed_over in move.skipped:
        print(f"passed over: {passed_over}")
    if move.version is None:
        print(f"{move.name} has no champion now: the next model that passes the gate takes the place")
        print("servers that follow go on with the model that they have; one that starts says that there is no champion")
        return
    if move.bento is None:
        print(f"{move.name} version {move.version} stays the champion")
    else:
        instead = "" if move.instead_of is None else f", instead of {move.instead_of}"
        print(f"{move.name} version {move.version} is the champion{instead}; its golden rows came out as expected")
        print(
            f"packaged as {move.bento}; servers that follow the registry take it up, `metalayer serve` starts with it"
        )
    print("nothing to roll back to" if move.before is None else f"`rollback` would go to version {move.before}")


def _doctor(options: argparse.Namespace) -> int:
    from metalayer.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok     ' if finding.ok else 'MISSING'} {finding.subject}: {finding.text}")
    broken = [finding for finding in findings if finding.required and not finding.ok]
    print("metalayer is ready" if not broken else f"{len(broken)} things to fix, see above")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
