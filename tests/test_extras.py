"""Each extra runs what `metalayer doctor` says of it, where nothing else is installed; else the extra is named."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import polars as pl
import pytest

from metalayer import extras
from metalayer.extras import PROMISES
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
from tests import checkpoints, extras_env, foreign_scores
from tests.conftest import artifact_files
from tests.releases import make_bundle, make_golden

TRAIN = (
    "train",
    "--base-model",
    "pwm",
    "--data-root",
    "data_root",
    "--set",
    "max_epochs=1",
    "--set",
    "max_samples=900",
)
IMPORT = (
    *("import", "donor_plus.bw", "donor_minus.bw", "acceptor_plus.bw", "acceptor_minus.bw", "--fasta", "genome.fa"),
    *("--annotation", "genes.gff3", "--base", "pwm", "--output", "imported"),
)
GENOME = ("--fasta", "genome.fa", "--annotation", "genes.gff3", "--output", "based")
SCORES = "data_root/nucleotide_scores/pwm_chr1.parquet"
RUN = str(extras_env.ROOT / "pipelines" / "run.py")
PACKAGE = """
import re
from importlib import metadata
from pathlib import Path
from metalayer.release.engine import Engine
from metalayer.registry.bento import bentoml_home, build_bento
tag = build_bento(Path("model"), Path("golden.parquet"), name="metalayer-pwm", version=1, facts={})
source = bentoml_home() / "bentos" / tag.replace(":", "/") / "src"
assert Engine(source / "release").version == "1"  # answers its golden rows as expected, or raises
import mlflow, uvicorn, metalayer.serving.app, metalayer.registry.promotion
"""
"""Builds a Bento and answers the golden rows by it."""
STEPS = f"""
import importlib, pkgutil, sys
sys.path.insert(0, {str(extras_env.ROOT)!r})
import pipelines, steps
from pipelines import environment
environment.prepare()  # as `run.py` does before it imports a step
for package in (pipelines, steps):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in SKIPPED:
            importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def work(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model directories, golden rows, rows and a data root."""
    folder = tmp_path_factory.mktemp("work")
    make_golden(make_bundle(folder / "model"), folder / "golden.parquet")
    options = {"model": str(checkpoints.bert(folder / "letters", "ACGTN")), "chunk_bp": 48, "stride_bp": 16}
    language = MetaSpliceModel(
        sequence_encoder="huggingface", sequence_encoder_config={**options, "output_dim": 8}, hidden_dim=8
    )
    save_model(language, folder / "language", {"base_model": "pwm", "split": {}})
    pl.read_csv(artifact_files(simulation)[0], separator="\t", n_rows=20).write_csv(folder / "rows.tsv", separator="\t")
    (folder / "data_root").symlink_to(simulation)
    (folder / "genome.fa").symlink_to(simulation / "genome/simulated.fa")
    (folder / "genes.gff3").symlink_to(simulation / "genome/simulated.gff3")
    foreign_scores.bigwigs(
        folder, foreign_scores.scores_in(simulation), foreign_scores.contig_lengths(folder / "genome.fa")
    )
    return folder


@pytest.fixture(scope="module")
def none(work: Path) -> Path:
    return extras_env.make("", work / "env")


def python(env: Path, work: Path, *arguments: str) -> str:
    done = extras_env.run(env, *arguments, cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def metalayer(env: Path, work: Path, *arguments: str) -> str:
    return python(env, work, "-m", "metalayer", *arguments)


def whole(extra: str, work: Path) -> Path:
    """An environment of an extra, of which doctor says that all is there."""
    env = extras_env.make(extra, work / f"env-{extra}")
    text = metalayer(env, work, "doctor")
    line = next(line for line in text.splitlines() if f"packages for {PROMISES[extra]}:" in line)
    assert line.startswith("ok "), line
    return env


def score(env: Path, work: Path, model: str) -> None:
    output = f"{env.name}.tsv"
    metalayer(env, work, "score", "rows.tsv", "--model", model, "--output", output)
    assert len(pl.read_csv(work / output, separator="\t")) == 20


def test_every_extra_promises_something() -> None:
    assert set(extras_env.declared()) == {*PROMISES, "dev"}


def test_of_many_absent_packages_a_few_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = extras.metadata.version

    def version(name: str) -> str:
        if name in ("torch", "matplotlib", "optuna", "h5py", "wandb", "tensorboard"):
            raise metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "pysam" else installed(name)

    monkeypatch.setattr(extras.metadata, "version", version)
    (said,) = extras.lacking("training")
    assert re.fullmatch(r"(\S+, ){3}\S+ and 2 more are not installed", said)
    assert extras.lacking("formats") == ["h5py is not installed"]
    absent, old = extras.lacking("variants")
    assert absent == "matplotlib is not installed"
    assert old.startswith("pysam is 0.0.1, needs ")


def test_the_package_alone(none: Path, work: Path) -> None:
    """The light install: rows and whole genes with a model directory, judged too, without torch or MLflow."""
    heavy = {"torch", "mlflow", "mlflow-skinny", "zenml", "kfp", "kubernetes", "bentoml", "pandas", "transformers"}
    assert not heavy & extras_env.closure("")
    assert "usage: metalayer" in metalayer(none, work, "--help")
    text = metalayer(none, work, "doctor")
    assert "device: cpu" in text
    assert "numpy, as torch is not installed" in text
    assert "metalayer is ready" in text
    score(none, work, "model")
    metalayer(none, work, "score", SCORES, "--model", "model", "--output", "genes.parquet")
    assert len(pl.read_parquet(work / "genes.parquet"))
    metalayer(none, work, "evaluate", "--model", "model", "--scores", SCORES, "--output", "report.json")
    python(none, work, "-c", "import metalayer.client")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("-m", "metalayer", *TRAIN, "--output-dir", "m"), "training"),
        (("-m", "metalayer", *IMPORT), "formats"),
        (("-m", "metalayer", "serve"), "serving"),
        (("-m", "metalayer", "score", "rows.tsv", "--model", "pwm", "--output", "o.tsv"), "serving"),
        (("-m", "metalayer", "register", "model", "--scores", SCORES), "pipeline"),
        (("-m", "metalayer", "base", "run", "--model", "openspliceai", "--weights", ".", *GENOME), "training"),
        (("-m", "metalayer", "variant", "chr1:g.5del", *GENOME[:4], "--base", "pwm"), "variants"),
        ((RUN,), "pipeline"),
        ((RUN, "--pipeline", "search"), "pipeline"),
        ((RUN, "stack", "check", "local"), "pipeline"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_a_command_without_its_extra_names_it(none: Path, work: Path, arguments: tuple[str, ...], extra: str) -> None:
    done = extras_env.run(none, *arguments, cwd=work)
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert f"pip install 'metalayer[{extra}]'" in text
    assert "Traceback" not in text


def test_a_language_model_names_its_extra(none: Path, work: Path) -> None:
    done = extras_env.run(
        none, "-m", "metalayer", "score", "rows.tsv", "--model", "language", "--output", "o.tsv", cwd=work
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'metalayer[language]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_trains(work: Path) -> None:
    env = whole("training", work)
    metalayer(env, work, *TRAIN, "--output-dir", "trained")
    assert (work / "trained" / "history.png").exists()


def test_formats_imports_bigwig(work: Path) -> None:
    metalayer(whole("formats", work), work, *IMPORT)
    assert sorted((work / "imported/nucleotide_scores").glob("pwm_chr*.parquet"))


def test_variants_scores_a_variant(work: Path) -> None:
    fields = next(line for line in (work / "genes.gff3").read_text().splitlines() if "\tgene\t" in line).split("\t")
    files = ("--fasta", "genome.fa", "--annotation", "genes.gff3", "--base", "pwm", "--model", "model")
    text = metalayer(whole("variants", work), work, "variant", f"{fields[0]}:g.{int(fields[3]) + 40}del", *files)
    assert text.count("donor loss") == 2  # of base and model


def test_language_answers_by_a_language_model(work: Path) -> None:
    score(whole("language", work), work, "language")


def test_serving_packages_and_answers(work: Path) -> None:
    python(whole("serving", work), work, "-c", PACKAGE)


def test_the_pipeline_has_its_steps_and_all_that_trains_and_packages(work: Path) -> None:
    assert extras_env.closure("training") | extras_env.closure("serving") <= extras_env.closure("pipeline")
    python(whole("pipeline", work), work, "-c", STEPS.replace("SKIPPED", "('pipelines.kubeflow',)"))


def test_kubeflow_has_the_pipeline_and_its_own(work: Path) -> None:
    assert extras_env.closure("pipeline") < extras_env.closure("kubernetes") < extras_env.closure("kubeflow")
    python(whole("kubeflow", work), work, "-c", STEPS.replace("SKIPPED", "()"))
