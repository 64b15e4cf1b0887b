"""`--pipeline base_layer` as a user runs it, and when the cache may answer for it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from metalayer.core import ArtifactLoader
from metalayer.errors import ConfigError, InputError, MetalayerError
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import BaseConfig, DataConfig
from metalayer.workflows.base_run import base_run, changed_files, fingerprint, is_written
from pipelines import results
from tests.test_pipeline import ROOT, RUN, Ended, execute, execute_in_new_process, found


def settings(simulation: Path, output: Path) -> dict[str, str]:
    genome = simulation / "genome"
    files = {"fasta": genome / "simulated.fa", "annotation": genome / "simulated.gff3", "output": output}
    return {"model": "pwm", **{name: str(path) for name, path in files.items()}}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, simulation: Path) -> Path:
    """A folder with a genome, and the configuration of docs/base_layer.md."""
    folder = tmp_path_factory.mktemp("base_layer_pipeline")
    shutil.copytree(simulation / "genome", folder / "genome")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "base_layer.md").read_text("utf-8"), re.M | re.S)
    (folder / "own.yaml").write_text(block)
    return folder


@pytest.mark.integration
class TestRuns:
    """In order: each run leaves its state to the next."""

    def run(self, work: Path) -> Ended:
        program = [str(RUN), "--stack", "local", "--pipeline", "base_layer", "--config", "own.yaml"]
        ended = execute(work / "state", program)
        assert ended.code == 0, ended.err
        return ended

    def test_it_writes_what_a_run_trains_on(self, work: Path) -> None:
        first = self.run(work)
        assert found(r"^cached +(.+)$", first.out) == "no step"
        assert first.out.endswith("exit status 0: scored\n")
        wrote = re.findall(r"^(?:wrote)? +(own\S*)$", first.out, re.MULTILINE)
        assert wrote[1:] == ["own/nucleotide_scores", "own/genes.tsv", "own/base_layer_pwm.json"]
        assert all((work / path).exists() for path in wrote)
        command = found(r"^train +(.+)$", first.out)
        assert command == (
            f"METALAYER_HOME={work / 'state'} python {RUN} --stack local --config own.yaml --data-root own "
            "--set data.base_model=pwm"
        )
        RunConfig.load(work / "own.yaml", ["data.base_model=pwm"], work / "own")
        data = DataConfig(base_model="pwm", data_root=work / "own")
        assert ArtifactLoader(data).load(work / "typed")["artifacts"]["rows_kept"] > 0
        assert "[1/1] base_layer\n" in first.err

    def test_the_cache_answers_for_files_that_are_there(self, work: Path) -> None:
        assert found(r"^cached +(.+)$", self.run(work).out) == "base_layer"
        (work / "own" / "genes.tsv").unlink()
        (work / "own" / "nucleotide_scores" / "pwm_chr1.parquet").write_bytes(b"other")
        assert found(r"^cached +(.+)$", self.run(work).out) == "no step"
        assert (work / "own" / "genes.tsv").exists()
        assert (work / "own" / "nucleotide_scores" / "pwm_chr1.parquet").stat().st_size > 1000


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "base: missing; --pipeline base_layer needs a configuration with this section: model, fasta"),
        (
            ["base.model=pwm", "base.fast=x"],
            r"base.annotation: missing; genes with their exons(.|\n)*base.fast: unknown key; did you mean 'fasta'",
        ),
        (["base.model=pwm", "base.fasta=no.fa", "base.annotation=no.gtf", "base.output=o"], "no.fa: No such file"),
        (
            ["base.model=openspliceai", "base.fasta=x", "base.annotation=x", "base.output=o"],
            "missing a required argument: 'weights'; its options are weights, flank, device",
        ),
    ],
)
def test_mistakes_are_told_before_zenml_is_imported(tmp_path: Path, arguments: list[str], message: str) -> None:
    sets = [part for argument in arguments for part in ("--set", argument)]
    ended = execute_in_new_process(tmp_path / "state", [str(RUN), "--pipeline", "base_layer", *sets])
    assert ended.code == 2
    assert re.search(message, ended.err)
    assert not (tmp_path / "state" / "zenml").exists()
    assert not (tmp_path / "state" / "demo").exists()
    assert not (tmp_path / "o").exists()


@pytest.mark.integration
def test_data_root_is_no_place_to_write(tmp_path: Path) -> None:
    program = [str(RUN), "--pipeline", "base_layer", "--data-root", "here"]
    for name, value in settings(tmp_path, tmp_path).items():
        program += ["--set", f"base.{name}={value}"]
    ended = execute(tmp_path / "state", program)
    assert ended.code == 2
    assert "--pipeline base_layer writes to base.output" in ended.err


def test_the_fingerprint_is_of_contents(simulation: Path, tmp_path: Path) -> None:
    config = BaseConfig(**settings(simulation, tmp_path / "own"))
    first = fingerprint(config)
    assert not is_written(config, first)
    manifest = base_run(config)
    assert manifest["fingerprint"] == first
    assert is_written(config, first)
    assert not is_written(config.model_copy(update={"build": "GRCh37"}), first)
    (tmp_path / "own" / "base_layer_zzz.json").write_text("no manifest")
    assert is_written(config, first)
    (tmp_path / "own" / "genes.tsv").unlink()
    assert changed_files(manifest, config.output) == ["genes.tsv"]
    assert not is_written(config, first)
    other = tmp_path / "simulated.gff3"
    other.write_bytes(config.annotation.read_bytes() + b"#\n")
    assert fingerprint(config.model_copy(update={"annotation": other})) != first
    assert fingerprint(config.model_copy(update={"flanks": "N"})) != first
    assert fingerprint(config.model_copy(update={"workers": 7, "output": tmp_path / "x"})) == first
    with pytest.raises(InputError, match=r"annotation .*absent: No such file"):
        fingerprint(config.model_copy(update={"annotation": tmp_path / "absent"}))


def test_success_is_claimed_for_whole_files_alone(simulation: Path, tmp_path: Path) -> None:
    config = BaseConfig(**settings(simulation, tmp_path / "own"))
    output = SimpleNamespace(load=lambda: base_run(config) | {"files": {"genes.tsv": "other"}})
    step = SimpleNamespace(outputs={"manifest": [output]}, status="cached")
    done = results.Done(
        run=SimpleNamespace(steps={"base_layer": step}),
        config=RunConfig(base=config),
        config_file=None,
        stack="local",
        tracking_uri="",
        state=tmp_path,
        log_file=tmp_path / "log",
    )
    with pytest.raises(MetalayerError, match=r"1 files in .*the first genes.tsv; run again with --no-cache"):
        results.base_layer(done)


def test_settings_of_a_pass() -> None:
    assert RunConfig.from_dict({"base": None}).base is None
    values = {"model": "pwm", "fasta": "f", "annotation": "a", "output": "o"}
    config = RunConfig.from_dict({"base": values})
    assert RunConfig.from_dict(config.model_dump(mode="json")) == config
    with pytest.raises(ConfigError) as caught:
        BaseConfig(**values, workers=0, flanks="none", build="a/b", device="gpu")
    for part in ("base.workers: given 0", "base.flanks: given 'none'", "base.build: given 'a/b'", "base.device"):
        assert part in str(caught.value)
