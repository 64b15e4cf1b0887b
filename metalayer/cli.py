"""The command line: `metalayer --help`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import metalayer
from metalayer import environment, gene_commands, interrupt, output, storage, variant_commands
from metalayer.errors import MetalayerError
from metalayer.source_options import add_evidence
from metalayer.words import count_of

if TYPE_CHECKING:
    from metalayer.client import MetaLayerClient
    from metalayer.registry.promotion import Move

_MODEL_HELP = (
    "NAME (the champion), NAME@ALIAS, NAME/VERSION, models:/NAME/VERSION, or a folder: model directory, or output of a "
    "training run"
)
_ANNOTATION_HELP = (
    "GTF, GFF3, or a gene table of SpliceAI, OpenSpliceAI or CI-SpliceAI, plain or packed; grch37 or grch38: the table "
    "of such a tool that is installed here"
)
_UNWIND_S = 5.0
"""Seconds from a signal in which a command removes what it has not finished."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (see `errors.py`)."""
    output.outlive_readers()
    parser = _parser()
    options = parser.parse_args(variant_commands.joined(sys.argv[1:] if arguments is None else arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    environment.enter()
    try:
        if options.command in ("serve", "registry", "register"):
            environment.clean()
            environment.drop_foreign()
        with interrupt.ending(unwind_s=_UNWIND_S):
            code: int = options.run(options)
    except MetalayerError as error:
        print(f"metalayer {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        from metalayer.extras import OF_COMMANDS, PROMISES, explained

        text = explained(error, dict.fromkeys((OF_COMMANDS.get(options.command, ""), *PROMISES)))
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
    run.add_argument(
        "--model",
        required=True,
        help="pwm; cispliceai or spliceai, of the installed distribution of that name or with --weights; openspliceai, "
        "pangolin or pangolin_spliced with --weights",
    )
    run.add_argument(
        "--weights", type=Path, metavar="PATH", help="folder with the model's own files, or CI-SpliceAI.pb"
    )
    run.add_argument("--flank", type=int, help="which networks of OpenSpliceAI, by nt of flank on both sides")
    run.add_argument("--fasta", type=Path, required=True, help="reference in FASTA, plain or packed")
    run.add_argument("--annotation", type=Path, required=True, help=_ANNOTATION_HELP)
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
        "--precision",
        choices=("float32", "bfloat16", "auto"),
        help="of networks: auto takes bfloat16 where CPU or GPU has instructions for it (default float32)",
    )
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
    _allow_introns(run)
    _labels(run)
    add_evidence(run)
    run.add_argument("--workers", type=int, default=1, help="processes that score genes (default 1, with all threads)")
    run.set_defaults(run=_base_run)

    init = commands.add_parser(
        "init", help="look at a folder of own data and write the settings of a run on it, run.yaml"
    )
    init.add_argument("folder", type=Path, help="data root: nucleotide_scores/, data/ or both, genes.tsv")
    init.add_argument("--base", metavar="NAME", help="base model, where the folder has the scores of several")
    init.add_argument("--output", type=Path, help="file to write (default: run.yaml in the folder)")
    init.add_argument("--replace", action="store_true", help="write over a file that is there")
    init.set_defaults(run=_init)

    merge = commands.add_parser(
        "merge", help="put per-nucleotide scores of several base models side by side in one file"
    )
    merge.add_argument(
        "scores",
        nargs="+",
        metavar="[NAME=]FILE",
        help="per-nucleotide Parquet files, labelled, of the same genes; a name where the file does not say of which "
        "base model it is",
    )
    merge.add_argument("--output", type=Path, required=True, help="Parquet to write")
    merge.add_argument("--aliases", type=Path, metavar="FILE", help="names of contigs, where files have different ones")
    _allow_introns(merge)
    merge.set_defaults(run=_merge)

    label = commands.add_parser(
        "label",
        help="label per-nucleotide scores by an annotation, and mark of which isoforms each site is",
        description="Genes are known by their ids, else by their places; those that the annotation lacks are left out, "
        "and counted. The labels are checked against letters and scores before anything is written.",
    )
    label.add_argument("scores", type=Path, metavar="FILE", help="per-nucleotide Parquet")
    label.add_argument("--annotation", type=Path, required=True, help=_ANNOTATION_HELP)
    label.add_argument("--output", type=Path, required=True, help="Parquet to write")
    label.add_argument(
        "--ignore-alternative",
        action="store_true",
        help="mark sites of other isoforms alone as ignored, for training and evaluation",
    )
    label.add_argument("--aliases", type=Path, metavar="FILE", help="names of contigs, where files have different ones")
    _allow_introns(label)
    _labels(label)
    label.set_defaults(run=_label)

    imported = commands.add_parser(
        "import",
        help="bring in per-nucleotide scores that are there already, and write a data root",
        description="FILE is BigWig or bedGraph (class and strand by a sheet with columns path, class and strand, or "
        "by names as donor_plus.bw), the BED or predict.h5 of openspliceai predict, npy, npz or HDF5 of SpliceAI's "
        "shape (with a sheet of places, or keys that are ids of genes), or a table in CSV, TSV or Parquet. Several are "
        "joined. "
        "A run that was killed goes on where it was. docs/own_data.md has examples.",
    )
    imported.add_argument("files", type=Path, nargs="+", metavar="FILE", help="scores, or a sheet that lists files")
    imported.add_argument("--fasta", type=Path, required=True, help="reference in FASTA, plain or packed: the letters")
    imported.add_argument("--annotation", type=Path, required=True, help=f"the labels: {_ANNOTATION_HELP}")
    imported.add_argument("--base", required=True, help="name of the base model whose scores these are")
    imported.add_argument("--output", type=Path, required=True, help="data root to write into")
    imported.add_argument("--build", default="unknown", help="genome build, as in GRCh38")
    imported.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME=COLUMN",
        help="columns of tables, where they have other names: chrom, position (1-based) or start (0-based), strand, "
        "gene_id, donor, acceptor, neither",
    )
    imported.add_argument(
        "--shift",
        nargs="+",
        default=[],
        metavar="N",
        help="move scores: N bases along the chromosome, donor=N and acceptor=N in transcript direction; a refusal "
        "names what is needed",
    )
    imported.add_argument(
        "--absent",
        type=float,
        metavar="SCORE",
        help="score of bases that the files leave out because theirs is low, as below the threshold of a BED (default: "
        "they stay empty, and their genes are left out of training)",
    )
    imported.add_argument("--logits", action="store_true", help="scores are logits")
    imported.add_argument(
        "--aliases", type=Path, metavar="FILE", help="names of contigs, where files have different ones"
    )
    _allow_introns(imported)
    _labels(imported)
    imported.set_defaults(run=_import)

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
    score.add_argument(
        "rows",
        type=Path,
        metavar="FILE",
        help="artifact rows (.parquet, or tab-separated text), or with --model per-nucleotide Parquet: whole genes",
    )
    scorer = score.add_mutually_exclusive_group(required=True)
    scorer.add_argument("--model", help=_MODEL_HELP)
    scorer.add_argument("--url", help="server, as in http://127.0.0.1:3000")
    score.add_argument("--output", type=Path, required=True, help="file to write: .parquet, or with --model .tsv")
    score.add_argument("--device", default="auto", help="auto, cpu, cuda or mps, with --model (default auto)")
    score.add_argument("--gene-table", type=Path, help="genes.tsv: adds contig and genomic_position to rows")
    score.add_argument("--aliases", type=Path, metavar="FILE", help="names of contigs, where files have different ones")
    add_evidence(score)
    score.set_defaults(run=_score)

    gene_commands.add_commands(
        commands, model_help=_MODEL_HELP, annotation_help=_ANNOTATION_HELP, model_directory=_model_directory
    )
    variant_commands.add_commands(
        commands, model_help=_MODEL_HELP, annotation_help=_ANNOTATION_HELP, model_directory=_model_directory
    )

    evaluate = commands.add_parser(
        "evaluate",
        help="compare a model with its base on every position of labelled genes",
        description=f"Of labelled variants: metalayer {variant_commands.EVALUATE_VARIANTS} --help",
    )
    evaluate.add_argument("--model", required=True, help=_MODEL_HELP)
    evaluate.add_argument(
        "--scores", type=Path, required=True, nargs="+", help="per-nucleotide Parquet files, labelled"
    )
    evaluate.add_argument("--gene-table", type=Path, help="genes.tsv: check where genes lie, and take paralog groups")
    evaluate.add_argument(
        "--aliases", type=Path, metavar="FILE", help="names of contigs, where scores and gene table have different ones"
    )
    _allow_introns(evaluate)
    add_evidence(evaluate)
    evaluate.add_argument("--output", type=Path, required=True, help="JSON report to write")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    evaluate.set_defaults(run=_evaluate)

    register = commands.add_parser(
        "register",
        help="judge a trained model on genes that it has not seen, register it, promote it where it passes the gate",
        description="As the pipeline does with the models that it trains. Exit status: 0 promoted, 3 rejected by the "
        "gate, 2 bad input or configuration, 1 failure.",
    )
    register.add_argument("model", metavar="DIR", help="model directory, or output folder of a training run")
    register.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="per-nucleotide Parquet files, labelled, to judge on; genes that the model was trained or validated on "
        "are not counted",
    )
    register.add_argument("--gene-table", type=Path, help="genes.tsv: where genes lie, and which are paralogs")
    register.add_argument(
        "--aliases", type=Path, metavar="FILE", help="names of contigs, where files have different ones"
    )
    _allow_introns(register)
    add_evidence(register)
    register.add_argument("--config", type=Path, help="YAML of a pipeline run, of which evaluate and gate are read")
    register.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting of gate or evaluate: gate.margin=0.005",
    )
    register.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    register.set_defaults(run=_register)

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
    chosen.add_argument(
        "--model", help=f"{_MODEL_HELP}; the champion is followed, all else stays and is said to be none"
    )
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

    ui = commands.add_parser("ui", help="open the dashboard of MLflow or ZenML on the state folder, on this machine")
    ui.add_argument("dashboard", nargs="?", default="mlflow", choices=("mlflow", "zenml"), help="default mlflow")
    ui.add_argument("--port", type=int, help="port (default 5000 for MLflow, 8237 for ZenML)")
    ui.set_defaults(run=_ui)

    registry = commands.add_parser("registry", help="list registered models, and move the champion")
    actions = registry.add_subparsers(dest="registry_command", required=True, metavar="COMMAND")
    actions.add_parser("list", help="every registered version, its aliases and the gate's decision").set_defaults(
        run=_registry_list
    )
    promote = actions.add_parser("promote", help="make a version that passed the gate the champion")
    promote.add_argument("which", metavar="NAME/VERSION", help="registered version; of one name, its number is enough")
    rollback = actions.add_parser("rollback", help="undo the last promotion: the champion before it stands again")
    rollback.add_argument("which", metavar="NAME", nargs="?", help="registered name, where there are several")
    retire = actions.add_parser(
        "retire",
        help="take the champion, or another version, out of the line",
        description="For a champion that no new model can be compared with, or that should not have been one. The one "
        "before that answers here stands again; where there is none, the next model that passes the gate takes the "
        "place. Servers that follow go on with what they have until then.",
    )
    retire.add_argument(
        "which", metavar="NAME/VERSION", nargs="?", help="registered version, or its number (default: the champion)"
    )
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


def _allow_introns(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-introns",
        action="store_true",
        help="introns may begin and end with anything, not GT or GC and AG alone",
    )


def _labels(command: argparse.ArgumentParser) -> None:
    from metalayer.schema import LABELS

    command.add_argument(
        "--labels",
        default=LABELS[0],
        choices=LABELS,
        help="which sites are labelled: of all transcripts, or of the principal one of each gene (MANE Select, Ensembl "
        "canonical, RefSeq Select, APPRIS principal, or its only one; default all)",
    )


def _simulate(options: argparse.Namespace) -> int:
    from metalayer.workflows.simulate import simulate

    summary = simulate(options.output, seed=options.seed, n_genes=options.genes)
    for name, value in summary.items():
        if name != "files":  # their hashes, in the manifest
            print(f"{name}: {value}")
    return 0


def _base_run(options: argparse.Namespace) -> int:
    from metalayer.settings.evidence import named_sources
    from metalayer.settings.sections import BaseConfig
    from metalayer.workflows.base_run import base_run

    options.evidence = named_sources(options.evidence)
    manifest = base_run(BaseConfig(**{name: getattr(options, name) for name in BaseConfig.model_fields}))
    sites = manifest["sites"]
    print(
        f"{count_of(manifest['genes'], 'gene')}, {manifest['positions']:,} positions, "
        f"{count_of(sites['donor'], 'donor')}, ",
        end="",
    )
    how = f", {manifest['precision']} ({', '.join(manifest['kernels'])})" if "precision" in manifest else ""
    print(f"{count_of(sites['acceptor'], 'acceptor')} scored with {manifest['base_model']}{how} into {options.output}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from metalayer.settings.sections import ImportConfig
    from metalayer.workflows.import_scores import import_scores

    manifest = import_scores(ImportConfig(**{name: getattr(options, name) for name in ImportConfig.model_fields}))
    sites, incomplete = manifest["sites"], manifest["genes_incomplete"]
    print(
        f"{count_of(manifest['genes'], 'gene')}, {manifest['positions']:,} positions, "
        f"{count_of(sites['donor'], 'donor')}, ",
        end="",
    )
    print(f"{count_of(sites['acceptor'], 'acceptor')} of {options.base} into {options.output}")
    for reason, count in manifest["genes_not_written"].items():
        print(f"{count_of(count, 'gene')} not written: {reason}")
    if manifest["positions_filled"]:
        print(f"{manifest['positions_filled']:,} scores that the files leave out are {options.absent:g}, as asked")
    if incomplete:
        print(
            f"{incomplete:,} genes have bases without a score, which stay empty: training and evaluation leave these "
            "genes out. Where files leave out low scores, --absent SCORE says what they are"
        )
    print(f"all genes: {options.output / f'import_{options.base}.tsv'}; then: metalayer init {options.output}")
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
    print(f"{metrics['rows']:,} rows of held-out genes (a sample, not whole genes); best epoch {results['best_epoch']}")
    print("metric           base    meta")
    for name, key in (
        ("PR-AUC splice", "pr_auc_splice"),
        ("donor AP", "ap_donor"),
        ("acceptor AP", "ap_acceptor"),
        ("top-k donor", "topk_donor"),
        ("top-k acceptor", "topk_acceptor"),
        ("ECE", "ece"),
    ):
        print(f"{name:<15}  {results['base_metrics'][key]:.4f}  {metrics[key]:.4f}")
    print(f"model directory  {results['paths']['model']}")
    return 0


def _init(options: argparse.Namespace) -> int:
    from metalayer.errors import InputError
    from metalayer.files import publish_file
    from metalayer.workflows import own_data

    found = own_data.contents(options.folder)
    from metalayer.workflows.forecast import forecast  # torch, once there is something to look at

    base = own_data.chosen_base(found, options.base)
    made = own_data.plan(found, base, own_data.genes_of(found, base))
    made.config()  # what is written is read again
    output = options.output or options.folder / own_data.CONFIG_NAME
    for line in [*own_data.summary(found, made), *forecast(made)]:
        print(line)
    if output.exists() and not options.replace:
        raise InputError(f"{output} is there already; --replace writes over it, --output FILE writes elsewhere")
    with publish_file(output) as draft:
        draft.write_text(made.text(), encoding="utf-8")
    program = Path(__file__).resolve().parents[1] / "pipelines" / "run.py"  # in a checkout
    shown = os.path.relpath(program) if program.is_file() else "pipelines/run.py (in a checkout of metalayer)"
    print(f"wrote {output}; then: python {shown} --stack local --data-root {options.folder}")
    return 0


def _merge(options: argparse.Namespace) -> int:
    from metalayer.workflows.merge_scores import merge_scores

    files = []
    for text in options.scores:
        name, found, path = text.partition("=")
        files.append((name, Path(path)) if found and not Path(text).exists() else (None, Path(text)))
    found = merge_scores(files, options.output, options.aliases, allow_introns=options.allow_introns)
    print(
        f"{found['base_models']} base models on {found['positions']:,} positions of "
        f"{count_of(found['genes'], 'gene')} side by side in {options.output}"
    )
    return 0


def _label(options: argparse.Namespace) -> int:
    from metalayer.workflows.label_scores import label_scores

    found = label_scores(
        options.scores,
        options.annotation,
        options.output,
        labels=options.labels,
        ignore_alternative=options.ignore_alternative,
        aliases=options.aliases,
        allow_introns=options.allow_introns,
    )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found["sites"].items())
    print(
        f"{count_of(found['genes'], 'gene')}, {count_of(found['labelled'], 'labelled site')} into {options.output}; "
        f"sites: {kinds}"
    )
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
    if results["history"]:
        base, best = results["history"][0], results["history"][results["best_epoch"]]
        print(f"{'on validation genes':<20} base    best epoch ({results['best_epoch']})")
        for key, name in JUDGED.items():
            print(f"{name:<20} {base[f'val_{key}']:.4f}  {best[f'val_{key}']:.4f}")
        print("which picked the epoch, so judge with `metalayer evaluate` on other genes, or take it through the gate:")
        print(f"{_command('register', str(options.output_dir))} --scores FILE ...")
    else:
        print("judge it on other genes:")
        print(f"{_command('evaluate', '--model', str(options.output_dir))} --scores FILE ... --output report.json")
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
        print(client.note, file=sys.stderr)
    with publish_file(options.output) as draft:
        table.write_parquet(draft)
    print(f"{len(table):,} letters scored into {options.output}")
    return 0


def _model_directory(name: str) -> Path:
    """The directory of a model; what a registry has is fetched."""
    from metalayer.registry import names

    if not isinstance(names.parse(name), Path):
        environment.clean()
        environment.drop_foreign()
    return names.fetch(name).directory


def _score(options: argparse.Namespace) -> int:
    from metalayer.device import resolve_device
    from metalayer.errors import InputError
    from metalayer.settings.evidence import named_sources
    from metalayer.workflows.places import Places
    from metalayer.workflows.score import score_rows, score_rows_by_server
    from metalayer.workflows.score_genes import is_whole_genes, score_genes

    whole = is_whole_genes(options.rows)
    if whole and options.url:
        raise InputError(
            f"{options.rows}: per-nucleotide scores of whole genes, which --url does not take: give --model, or ask "
            "/v1/score_sequence"
        )
    if options.evidence and not whole:
        raise InputError("--evidence goes with per-nucleotide scores of whole genes; rows carry none")
    if options.aliases and not (options.gene_table or whole):
        raise InputError("--aliases goes with --gene-table, whose contigs it names")
    places = Places(options.gene_table, options.aliases) if options.gene_table and not whole else None
    if options.url:
        with _client(options) as client:
            done = score_rows_by_server(options.rows, client, options.output, places)
    else:
        model, device = _model_directory(options.model), resolve_device(options.device)
        if whole:
            tables = options.gene_table, options.aliases
            done = score_genes(options.rows, model, options.output, device, *tables, named_sources(options.evidence))
        else:
            done = score_rows(options.rows, model, options.output, device, places)
    print(f"{done:,} {'positions' if whole else 'rows'} scored into {options.output}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from metalayer.evaluation.tables import (
        beside_table,
        builds_note,
        principal_table,
        report_table,
        rows_table,
        seen_note,
    )
    from metalayer.settings.evidence import named_sources
    from metalayer.workflows.evaluate_scores import evaluate_scores

    report = evaluate_scores(
        _model_directory(options.model),
        options.scores,
        options.output,
        device=options.device,
        gene_table=options.gene_table,
        aliases=options.aliases,
        allow_introns=options.allow_introns,
        evidence=named_sources(options.evidence),
    )
    notes = [note for note in (builds_note(report), seen_note(report)) if note]
    tables = [report_table(report, notes), *beside_table(report)]
    tables += [*principal_table(report), *rows_table(report)]
    print("\n\n".join(tables))
    return 0


def _command(*arguments: str) -> str:
    """A command as it is typed at this prompt."""
    import shlex

    return shlex.join(["metalayer", *arguments])


def _register(options: argparse.Namespace) -> int:
    import secrets
    import time

    from metalayer.registry import names

    directory = names.folder(options.model)
    from metalayer.evaluation.tables import summary_table
    from metalayer.settings.evidence import named_sources
    from metalayer.settings.judging import judging
    from metalayer.workflows import outcome
    from metalayer.workflows.gated import REJECTED_STATUS
    from metalayer.workflows.register import MORE, REPORT, register_model

    for chatty in ("onnxscript", "onnx_ir", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    data = {name: getattr(options, name) for name in ("gene_table", "aliases", "allow_introns")}
    data["evidence"] = named_sources(options.evidence)
    config = judging(options.config, options.overrides, data, options.device)
    name = f"register-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    folder = environment.state_dir() / "reports" / name
    made = register_model(directory, options.scores, config, folder)
    lines = outcome.decision_lines(made.evaluation, made.decision, MORE)
    lines += ["", summary_table(made.evaluation), ""]
    print("\n".join([*lines, *outcome.model_lines(made.registration, made.promotion, made.bento, _command)]))
    print(f"report  {folder / REPORT}; all figures and the answers on the test genes lie beside it")
    if made.decision["promoted"]:
        print(f"serve   {_command('serve', '--model', names.short(made.registration['name']))}")
        print("query   http://127.0.0.1:3000/docs has one of each kind, to be sent as it is, once it is served")
    code = 0 if made.decision["promoted"] else REJECTED_STATUS
    print(f"exit status {code}: {'promoted' if code == 0 else 'rejected, nothing was promoted'}")
    return code


def _ablate(options: argparse.Namespace) -> int:
    from metalayer.evaluation.ablation import ablation_table
    from metalayer.settings.flat import MetaLayerConfig
    from metalayer.workflows.ablate import ablate, chosen_variants

    written = MetaLayerConfig.from_yaml(options.config).model_dump(exclude_unset=True)
    variants = chosen_variants(options.variants, options.variants_file, written.get("evidence") or {})
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
        options.model,
        bento=options.bento,
        host=options.host,
        port=options.port,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
    )
    return code


def _ui(options: argparse.Namespace) -> int:
    from functools import partial

    from metalayer.workflows.ui import show

    return show(options.dashboard, options.port, partial(print, flush=True))


def _registry_list(_: argparse.Namespace) -> int:
    from metalayer.registry import line, tracking, versions

    found = versions.all_versions()
    if not found:
        print(f"no registered model in {tracking.shown_uri()}", file=sys.stderr)
    width = max((len(version.name) for version in found), default=0)
    for version in found:
        aliases = ", ".join(version.aliases) or "-"
        tags = version.tags
        print(
            f"{version.name:<{width}}  {version.version:>4}  {aliases:<22}  {tags.get(versions.DECISION_TAG, '?'):<8}",
            end="",
        )
        print(f"  {version.digest[:12]}  {tags.get(versions.BENTO_TAG, 'no Bento')}", end="")
        reason = tags.get(line.RETIRED_TAG)
        print("" if reason is None else f"  retired {tags.get(line.RETIRED_AT_TAG, '')[:10]}: {reason}")
    return 0


def _registry_promote(options: argparse.Namespace) -> int:
    from metalayer.errors import InputError
    from metalayer.registry import names, promotion

    name, version = names.which(options.which, options.model, "promote")
    if version is None:
        raise InputError(f"promote: given {options.which}; name a version, as in {name}/3")
    _print_move(promotion.promote(name, version))
    return 0


def _registry_rollback(options: argparse.Namespace) -> int:
    from metalayer.errors import InputError
    from metalayer.registry import names, promotion

    name, version = names.which(options.which, options.model, "rollback")
    if version is not None:
        raise InputError(f"rollback: given {options.which}; it undoes the last promotion of a name: give {name}")
    _print_move(promotion.rollback(name))
    return 0


def _registry_retire(options: argparse.Namespace) -> int:
    from metalayer.registry import names, promotion

    name, version = names.which(options.which, options.model, "retire")
    _print_move(promotion.retire(name, version, options.reason))
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
        print(f"packaged as {move.bento}; servers that follow the registry take it up; one begins with it by")
        print(f"  {_command('serve', '--model', move.name)}")
    print("nothing to roll back to" if move.before is None else f"`rollback` would go to version {move.before}")


def _doctor(options: argparse.Namespace) -> int:
    from metalayer.doctor import examine

    findings = examine()
    for finding in findings:
        mark = "ok     " if finding.ok else "MISSING" if finding.required else "absent "
        print(f"{mark} {finding.subject}: {finding.text}")
    broken = [finding for finding in findings if finding.required and not finding.ok]
    print("metalayer is ready" if not broken else f"{len(broken)} things to fix, see above")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
