"""`/v1/view` and `/v1/explain`: what the page asks for, beside what Python says of the same."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import polars as pl
import pytest

from metalayer.errors import ConfigError
from metalayer.genome import decode
from metalayer.release.at_hand import BaseAlone
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.serving.app import create_app
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from metalayer.serving.view_server import serve_page, serving_of
from metalayer.variants.calls import Opened, Sources, opened, score_variants
from metalayer.variants.whole_gene import score_gene, sites_of
from tests.releases import make_bundle

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def files(simulation: Path) -> dict[str, Path]:
    return {name: simulation / "genome" / f"simulated.{end}" for name, end in (("fasta", "fa"), ("annotation", "gff3"))}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="module")
def serving(files: dict[str, Path], model: Path) -> Serving:
    return serving_of(ServingSettings(**files, max_sequence_bp=20_000), ["pwm"], model)


@pytest.fixture(scope="module")
def loaded(files: dict[str, Path], model: Path) -> Any:
    with opened(Sources(**files, bases=["pwm"], model=model, device="cpu")) as found:
        yield found


def call(serving: Serving, path: str, body: object, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(serving))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json=body, **options)

    return asyncio.run(run())


def view(serving: Serving, body: object, query: str = "") -> dict[str, Any]:
    found = call(serving, f"/v1/view{query}", body)
    assert found.status_code == 200, found.text
    return dict(found.json())


def numbers(scores: dict[str, str]) -> np.ndarray:
    """Donor and acceptor, (n, 2)."""
    return np.stack([np.frombuffer(base64.b64decode(scores[kind]), "<f4") for kind in ("donor", "acceptor")], axis=1)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_a_gene_has_the_scores_of_the_models(serving: Serving, loaded: Opened, strand: str) -> None:
    one = next(gene for gene in loaded.genes if gene.gene.strand == strand)
    answer = view(serving, {"gene": one.symbol})
    (gene,), span = answer["genes"], one.gene.interval
    assert (answer["contig"], answer["start"], answer["end"]) == (f"chr{span.chrom}", span.start + 1, span.end)
    assert answer["contig_length"] == loaded.letters.lengths[span.chrom]
    assert answer["letters"] == decode(loaded.letters.tokens(span.chrom, span.start, span.end))
    found = score_gene(one, loaded)
    for system, values in found.stretch.scores.items():
        np.testing.assert_array_equal(numbers(gene["scores"][system]), values)
    shown = sites_of(found, answer["threshold"])
    assert [(site["position"] - 1, site["kind"]) for site in gene["sites"]] == [
        (site.position, {DONOR: "donor", ACCEPTOR: "acceptor"}[site.kind]) for site in shown
    ]
    (transcript,) = gene["transcripts"]
    assert transcript["exons"] == [[start + 1, end] for start, end in one.transcripts[0].exons.tolist()]


def test_the_annotation_is_there_without_scores(serving: Serving) -> None:
    whole, alone = (view(serving, {"gene": "SIM0002"}, f"?scores={text}") for text in ("true", "false"))
    (gene,), (bare,) = whole.pop("genes"), alone.pop("genes")
    assert whole == alone
    assert bare == {name: gene[name] for name in bare}
    assert gene.keys() - bare.keys() == {"first", "last", "scores", "sites", "summary"}


def test_a_part_has_the_scores_of_the_whole(serving: Serving, loaded: Opened) -> None:
    one = next(gene for gene in loaded.genes if len(gene.gene) > 4000 and gene.gene.strand == "-")
    span = one.gene.interval
    whole = score_gene(one, loaded).stretch
    first, last = span.start + 1500, span.start + 2600
    answer = view(serving, {"region": f"chr{span.chrom}:{first + 1}-{last}:-"})
    (gene,) = [found for found in answer["genes"] if found["gene_id"] == one.gene.gene_id]
    assert (gene["first"], gene["last"], gene["start"]) == (first + 1, last, span.start + 1)
    for system, values in whole.scores.items():
        found = numbers(gene["scores"][system])
        np.testing.assert_allclose(found, values[first - span.start : last - span.start], atol=1e-6)
    outside = view(serving, {"region": f"{span.chrom}:1-50"})
    assert outside["genes"] == []


def test_a_sequence_has_no_place_and_its_letters_are_not_logged(
    files: dict[str, Path], model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    letters = decode(np.random.default_rng(8).integers(0, 4, 400).astype(np.uint8)) + "CAGGTAAGT" + "ACGT" * 40
    logging_too = serving_of(ServingSettings(**files, log_dir=tmp_path / "log"), ["pwm"], model)
    caplog.set_level(logging.DEBUG)
    answer = view(logging_too, {"sequence": letters})
    whole = call(logging_too, "/v1/score_sequence", {"sequence": letters}).json()["rows"]
    (gene,) = answer["genes"]
    for system in ("base", "meta"):
        expected = np.array([[row[f"{system}_{kind}"] for kind in ("donor", "acceptor")] for row in whole], np.float32)
        np.testing.assert_allclose(numbers(gene["scores"][system]), expected, atol=1e-6)
    assert (answer["contig"], gene["gene_id"], answer["letters"]) == ("sequence", None, letters)
    logging_too.close()
    (part,) = (tmp_path / "log").glob("*.parquet")
    table = pl.read_parquet(part)
    assert table["sequence_length"].to_list() == [len(letters)] * 2
    assert letters[:40].encode() not in part.read_bytes()
    assert letters[:40] not in caplog.text


@pytest.mark.parametrize("changed", [("G", ""), ("", "ACGT"), ("", "")])
def test_a_variant_has_both_haplotypes(
    serving: Serving, files: dict[str, Path], model: Path, changed: tuple[str, str]
) -> None:
    assert serving.variants is not None
    contig, at, ref, alt = serving.variants.example.split(":")
    if changed != ("", ""):  # a deletion of what follows, or an insertion
        more = view(serving, {"region": f"{contig}:{at}-{int(at) + 3}"})["letters"]
        ref, alt = (more, more[0]) if changed[0] else (more[0], more[0] + changed[1])
    text = f"{contig}:{at}:{ref}:{alt}"
    answer = view(serving, {"variant": text}, "?distance=60&mask=true")
    rows = score_variants([text], **files, base="pwm", model=model, device="cpu", distance=60, mask=True)
    (gene,) = answer["genes"]
    assert set(gene["models"]) == {"pwm", "metalayer"}
    for row in rows.iter_rows(named=True):
        theirs = gene["models"][row["model"]]
        reference, alternative, change = (numbers(theirs[name]) for name in ("reference", "alternative", "change"))
        for kind, one in theirs["changes"].items():
            assert one["score"] == pytest.approx(row[f"{kind}_score"], abs=1e-6)
            index, column = one["position"] - gene["first"], ("donor", "acceptor").index(kind.partition("_")[0])
            if theirs["inserted"]:
                continue
            assert reference[index, column] == pytest.approx(one["ref"], abs=1e-6)
            if not np.isnan(alternative[index, column]):
                assert change[index, column] == pytest.approx(one["alt"] - one["ref"], abs=1e-6)
        gone = np.isnan(alternative[:, 0])
        assert gone.sum() == max(0, len(ref) - len(alt))
        np.testing.assert_allclose(change[gone], -reference[gone])
        assert len(theirs["inserted"]) == max(0, len(alt) - len(ref))


def test_why_a_score_is_what_it_is(serving: Serving) -> None:
    answer = view(serving, {"gene": "SIM0002"})
    gene = answer["genes"][0]
    site = gene["sites"][0]
    found = call(serving, "/v1/explain", {"gene": "SIM0002", "position": site["position"], "kind": site["kind"]}).json()
    assert found["meta"] == pytest.approx(site["meta"], abs=1e-5)
    assert found["base"] == pytest.approx(site["base"], abs=1e-6)
    assert {one["input"] for one in found["inputs"]} == {"letters", "base_scores_around"}
    ends = [(one["first"], one["last"]) for one in found["letters"]]
    assert ends == sorted(ends, reverse=gene["strand"] == "-")
    middle = next(one for one in found["letters"] if one["first"] <= site["position"] <= one["last"])
    pasted = answer["letters"][middle["first"] - answer["start"] : middle["last"] - answer["start"] + 1]
    assert middle["letters"] == pasted[::-1].translate(str.maketrans("ACGT", "TGCA"))


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("view", {"gene": "SIM1"}, 422, "no gene of that name or id"),
        ("view", {"gene": ""}, 422, "name, or id with its version or without"),
        ("view", {"gene": "SIM0001", "region": "chr1:1-2"}, 422, "a JSON object with one of gene, region, sequence"),
        ("view", [], 422, "a JSON object with one of"),
        ("view", {"region": "chr1:5-2"}, 422, "needed is CONTIG:FIRST-LAST"),
        ("view", {"region": "chr9999:1-2"}, 422, "the reference has no contig 'chr9999'; it has chr1"),
        ("view", {"region": "chr1:1-9M"}, 422, "9,000,000 lies outside"),
        ("view", {"region": "chr1:1-20001"}, 413, "20,001 bases to look at; allowed are at most 20,000 bases"),
        ("view", {"sequence": "ACGU"}, 422, "A, C, G, T or N"),
        ("view", {"sequence": "A" * 20_001}, 413, "at most 20000: score parts"),
        ("view", {"variant": "chr1"}, 422, "variant"),
        ("view", {"variant": "chr1:1:N:A"}, 422, "no score"),
        ("view?mask=perhaps", {"gene": "SIM0001"}, 422, "true or false"),
        ("view?scores=no", {"gene": "SIM0001"}, 422, "true or false"),
        ("view?distance=0", {"variant": "chr1:1:A:C"}, 422, "1 to 5000"),
        ("explain", {"gene": "SIM0002", "position": 1, "kind": "donor"}, 422, "allowed is 10,202 to 15,861"),
        ("explain", {"sequence": "ACGT", "position": 5, "kind": "donor"}, 422, "allowed is 1 to 4"),
        ("explain", {"sequence": "ACGT", "position": 0, "kind": "both"}, 422, "2 mistakes"),
        ("explain", {"sequence": "ACGT"}, 422, "position, kind, and one of gene, sequence"),
        ("explain", {"gene": "SIM1", "position": 1, "kind": "donor"}, 422, "no gene of that name"),
    ],
)
def test_what_cannot_be_looked_at(serving: Serving, path: str, body: object, status: int, words: str) -> None:
    answer = call(serving, f"/v1/{path}", body)
    assert answer.status_code == status, answer.text
    assert words in answer.text


def test_other_forms_are_refused(serving: Serving) -> None:
    arrow = "application/vnd.apache.arrow.stream"
    assert call(serving, "/v1/view", {"gene": "SIM0001"}, headers={"accept": arrow}).status_code == 406
    assert call(serving, "/v1/view", {"gene": "SIM0001"}, headers={"content-type": arrow}).status_code == 415


def test_the_calls_are_described_and_their_examples_answered(serving: Serving) -> None:
    paths = serving.document["paths"]
    assert "/readyz" not in paths
    for path in ("/v1/view", "/v1/explain"):
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        answer = call(serving, path, content["example"])
        assert answer.status_code == 200, answer.text
        jsonschema.validate(content["example"], content["schema"])
        jsonschema.validate(
            answer.json(), paths[path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        )


def test_base_models_alone(files: dict[str, Path]) -> None:
    alone = serving_of(ServingSettings(**files), ["pwm"])
    (gene,) = view(alone, {"gene": "SIM0002"})["genes"]
    assert set(gene["scores"]) == {"base"}
    explained = call(alone, "/v1/explain", {"gene": "SIM0002", "position": 10_300, "kind": "donor"})
    assert (explained.status_code, "no model" in explained.text) == (501, True)
    for path in ("/v1/score", "/v1/score_sequence"):
        body = {"sequence": "ACGT"} if "sequence" in path else {"rows": []}
        assert call(alone, path, body).status_code == 501
    answer = call(alone, "/v1/score_variants", {"variants": [alone.variants.example]})  # type: ignore[union-attr]
    assert {row["model"] for row in answer.json()["rows"]} == {"pwm"}


def test_a_server_without_files_says_what_it_lacks() -> None:
    without = Serving(BaseAlone(["pwm"]), ServingSettings())
    assert not {"/v1/view", "/v1/explain"} & without.document["paths"].keys()
    answer = call(without, "/v1/view", {"gene": "SIM0001"})
    assert (answer.status_code, "METALAYER_SERVE_FASTA" in answer.text) == (501, True)


def test_keys_and_limits_hold(files: dict[str, Path]) -> None:
    asking = Serving(BaseAlone(["pwm"]), ServingSettings(api_keys="k", max_body_bytes=2**19, **files))
    asking.open_variants("pwm")
    for path in ("/v1/view", "/v1/explain"):
        assert call(asking, path, {"gene": "SIM0001"}).status_code == 401
    header = {"authorization": "Bearer k"}
    assert call(asking, "/v1/view", {"gene": "SIM0001"}, headers=header).status_code == 200
    assert call(asking, "/v1/view", {"sequence": "A" * 2**20}, headers=header).status_code == 413


def test_models_that_do_not_fit(files: dict[str, Path], model: Path) -> None:
    with pytest.raises(ConfigError, match="reads pwm; give these"):
        serving_of(ServingSettings(**files), ["spliceai"], model)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: Address already in use; give another"):
            serve_page(Serving(), print, port)


def test_the_command_needs_no_registry(files: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "metalayer", "view", "SIM0002", "--no-browser", "--port", "0", "--base", "pwm"]
    command += [part for name, path in files.items() for part in (f"--{name}", str(path))]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address, _, fragment = line.removeprefix("the page is at ").strip().partition("#")
            assert fragment == "gene=SIM0002"
            assert 'src="view/page.js"' in httpx.get(address).text
            answer = httpx.post(f"{address}v1/view", json={"gene": "SIM0002"})
            assert answer.json()["genes"][0]["gene_name"] == "SIM0002"
        finally:
            process.terminate()
    assert not list(tmp_path.iterdir())
