"""`/v1/score_variants`: what variants do, over HTTP, beside what `metalayer variants` says of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest

from metalayer.errors import ConfigError
from metalayer.release.engine import Engine
from metalayer.release.folder import write_release
from metalayer.serving.app import create_app
from metalayer.serving.arrow import MEDIA_TYPE
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from metalayer.variants.answers import COLUMNS
from metalayer.variants.calls import score_variants
from tests.releases import make_bundle, make_golden

PATH = "/v1/score_variants"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def engine(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("release")
    write_release(
        folder, bundle, make_golden(bundle, folder / "made.parquet"), {"name": "metalayer-pwm", "version": "1"}
    )
    return Engine(folder)


@pytest.fixture(scope="module")
def files(simulation: Path) -> dict[str, Path]:
    return {name: simulation / "genome" / f"simulated.{end}" for name, end in (("fasta", "fa"), ("annotation", "gff3"))}


@pytest.fixture(scope="module")
def serving(engine: Engine, files: dict[str, Path]) -> Serving:
    made = Serving(engine, ServingSettings(max_variants=5, **files))
    made.open_variants("pwm")
    return made


def call(serving: Serving, method: str, path: str, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(serving))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


def asked(serving: Serving, *variants: object, query: str = "") -> httpx.Response:
    return call(serving, "POST", PATH + query, json={"variants": list(variants)})


def parts(text: str) -> dict[str, object]:
    chrom, pos, ref, alt = text.split(":")
    return {"chrom": chrom, "pos": int(pos), "ref": ref, "alt": alt}


def stream(**columns: list[object]) -> bytes:
    table, sink = pa.table(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(("query", "options"), [("", {}), ("?distance=9&mask=true&flanks=real", {"distance": 9})])
def test_answers_are_those_of_the_command(
    serving: Serving, files: dict[str, Path], bundle: Path, query: str, options: dict[str, Any]
) -> None:
    assert serving.variants is not None
    texts = [serving.variants.example, "1:1:A:C", serving.variants.example.replace(":", "-")]
    if options:
        options |= {"mask": True, "flanks": "real"}
    expected = score_variants(texts, base="pwm", model=bundle, **files, **options)
    answer = asked(serving, *texts, query=query)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["rows"]
    assert [row["variant"] for row in rows] == [0, 0, 1, 2, 2]
    found = pl.DataFrame([{name: row[name] for name in COLUMNS} for row in rows], schema=expected.schema)
    assert found.equals(expected)
    assert {row["model"] for row in rows} == {"pwm", "metalayer", None}
    assert answer.json()["way"] == "variants"
    assert "research prediction" in answer.json()["note"]

    in_parts = asked(serving, *map(parts, texts[:2]), query=query).json()["rows"]
    assert [{**row, "id": None} for row in rows[:3]] == in_parts
    for body in (stream(variant=texts), stream(**{name: [parts(texts[0])[name]] for name in parts(texts[0])})):
        sent = call(serving, "POST", PATH + query, content=body, headers={"content-type": MEDIA_TYPE})
        assert sent.status_code == 200, sent.text
        table = pl.DataFrame(pl.from_arrow(pa.ipc.open_stream(sent.content).read_all()))
        assert table.columns == ["variant", *COLUMNS]
        count = 2 if len(table) == 2 else 5
        as_json = pl.DataFrame([row["donor_loss_score"] for row in rows[:count]], schema={"a": pl.Float32})["a"]
        assert table["donor_loss_score"].to_list() == as_json.to_list()


def test_what_no_variant_is_comes_back_with_its_reason(serving: Serving) -> None:
    assert serving.variants is not None
    variants = [
        parts(serving.variants.example) | {"alt": "<DEL>"},
        {"chrom": "nowhere", "pos": 1, "ref": "A", "alt": "C"},
        {"chrom": "chr1", "pos": 2**30, "ref": "A", "alt": "C"},
        {"chrom": "chr1", "pos": 2273, "ref": "AAAA", "alt": "C"},
    ]
    rows = asked(serving, *variants).json()["rows"]
    assert [row["skipped"] for row in rows] == ["symbolic", "contig_absent", "out_of_range", "ref_mismatch"]
    assert {row["model"] for row in rows} == {None}


@pytest.mark.parametrize(
    ("body", "query", "status", "words"),
    [
        ({"variants": ["chr1 2273", 7]}, "", 422, "row 1, variant: given 7, allowed text, as in chr3:42600000:G:A"),
        ({"variants": ["chr1 2273"]}, "", 422, "needed is CHROM:POS:REF:ALT"),
        ({"variants": ["nowhere:g.5A>C"]}, "", 422, "has no contig nowhere"),
        (
            {"variants": [{"chrom": "1", "pos": 0, "ref": "A", "alt": "C"}]},
            "",
            422,
            "pos: given 0, allowed a whole number, 1 to",
        ),
        ({"variants": [{"chrom": "1", "pos": True, "ref": "A", "alt": "C"}]}, "", 422, "pos: given True"),
        (
            {"variants": [{"chrom": "1", "pos": 1, "ref": "A"}]},
            "",
            422,
            "variant: given 'an object with chrom, pos, ref'",
        ),
        ({"variants": []}, "", 422, "allowed 1 to 5 variants"),
        ({"variants": ["1:1:A:C"] * 6}, "", 413, "6 variants; a request holds at most 5: split it"),
        ({"variant": ["1:1:A:C"]}, "", 422, 'a JSON object {"variants": [...]}'),
        ({"variants": ["1:1:A:C"]}, "?distance=5001", 422, "distance: given '5001', allowed 1 to 5000"),
        ({"variants": ["1:1:A:C"]}, "?distance=-1&context=x&mask=yes&flanks=n", 422, "4 mistakes"),
    ],
)
def test_what_is_refused(serving: Serving, body: object, query: str, status: int, words: str) -> None:
    answer = call(serving, "POST", PATH + query, json=body)
    assert answer.status_code == status, answer.text
    assert words in json.dumps(answer.json()).replace('\\"', '"')


def test_columns_that_are_refused(serving: Serving) -> None:
    headers = {"content-type": MEDIA_TYPE}
    for columns, words in (
        ({"variants": ["1:1:A:C"]}, "allowed variant, or chrom, pos, ref, alt"),
        ({"variant": [[1.0]]}, "allowed text for variant, chrom, ref, alt, numbers for all else"),
        ({"variant": [5]}, "allowed text, as in chr3:42600000:G:A"),
    ):
        answer = call(serving, "POST", PATH, content=stream(**columns), headers=headers)
        assert answer.status_code == 422
        assert words in answer.json()["error"], answer.text


def test_the_example_of_the_page_is_answered(serving: Serving) -> None:
    described = call(serving, "GET", "/openapi.json").json()
    example = described["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = call(serving, "POST", PATH, json=example)
    assert [row["donor_loss_annotated"] for row in answer.json()["rows"]] == [True, True]
    model = call(serving, "GET", "/v1/model").json()
    assert model["variants"] == {"fasta": "simulated.fa", "annotation": "simulated.gff3"}
    assert model["limits"]["max_variants"] == 5


def test_without_a_reference_it_says_what_is_missing(engine: Engine) -> None:
    alone = Serving(engine)
    alone.open_variants("pwm")
    answer = asked(alone, "1:1:A:C")
    assert answer.status_code == 501
    assert "start it with METALAYER_SERVE_FASTA and METALAYER_SERVE_ANNOTATION" in answer.json()["error"]
    assert PATH not in call(alone, "GET", "/openapi.json").json()["paths"]
    assert call(alone, "GET", "/v1/model").json()["variants"] is None


def test_a_model_of_other_base_models_is_no_model_for_it(engine: Engine, files: dict[str, Path]) -> None:
    """The registry's champion may become another while the server runs."""
    serving = Serving(engine, ServingSettings(**files))
    serving.open_variants("pwm")
    assert serving.variants is not None
    engine.predictor.info["base_model"] = "another"
    try:
        answer = asked(serving, serving.variants.example)
    finally:
        engine.predictor.info["base_model"] = "pwm"
    assert answer.status_code == 503
    assert "this server cannot score variants with its model" in answer.json()["error"]


def test_settings_that_cannot_be(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serve\.fasta: variants are scored on both; give annotation too"):
        ServingSettings(fasta=files["fasta"])
    with pytest.raises(ConfigError, match=r"serve\.weights: is for variants; give fasta and annotation too"):
        ServingSettings(weights="a.pt")
    gone = ServingSettings(fasta=tmp_path / "gone.fa", annotation=files["annotation"])
    with pytest.raises(ConfigError, match=r"serve\.fasta: given .*gone\.fa, which is no file"):
        gone.check_variant_files()
    given = ServingSettings(weights="spliceai=a.h5, b.pt", **files).environment()["METALAYER_SERVE_WEIGHTS"]
    assert given == f"spliceai={Path('a.h5').absolute()},{Path('b.pt').absolute()}"
