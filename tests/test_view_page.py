"""The page at `/` in a real browser: real clicks and keys, and numbers that are those of the API."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest

from metalayer.genome import decode
from metalayer.models.bundle import load_model, save_model
from metalayer.release.at_hand import BaseAlone
from metalayer.release.engine import Engine
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from metalayer.serving.view_server import serving_of
from tests.browser import CHROMIUM, Browser, Page
from tests.releases import make_bundle
from tests.test_pages import in_thread, served

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]
BIG = "big-1.1"
"""A contig whose gene has 100 kb, and whose name igv.js would not read as one."""
WORD = "<b id=planted>bold</b>"
SHOWN = "document.documentElement.dataset.shown"


@pytest.fixture(scope="module")
def files(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The simulated genome, and a long gene."""
    folder = tmp_path_factory.mktemp("genome")
    letters = list(decode(np.random.default_rng(1).integers(0, 4, 101_000).astype(np.uint8)))
    exons = [(500 + 10_000 * number, 700 + 10_000 * number) for number in range(11)]
    for (_, end), (start, _) in pairwise(exons):
        letters[end : end + 2], letters[start - 2 : start] = "GT", "AG"
    fasta, annotation = folder / "genome.fa", folder / "genome.gff3"
    known = simulation / "genome" / "simulated.fa"
    fasta.write_text(f"{known.read_text()}>{BIG}\n{''.join(letters)}\n")
    about = "ID=gene-LONG;Name=LONG;gene=LONG", "ID=rna-LONG;Parent=gene-LONG;gene=LONG", "Parent=rna-LONG;gene=LONG"
    parts = [
        ("gene", 500, 100_700, about[0]),
        ("mRNA", 500, 100_700, about[1]),
        *(("exon", *e, about[2]) for e in exons),
    ]
    lines = [f"{BIG}\tx\t{kind}\t{start + 1}\t{end}\t.\t+\t.\t{more}\n" for kind, start, end, more in parts]
    annotation.write_text((simulation / "genome" / "simulated.gff3").read_text() + "".join(lines))
    return {"fasta": fasta, "annotation": annotation}


@pytest.fixture(scope="module")
def serving(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Serving:
    folder = tmp_path_factory.mktemp("model")
    model, facts = load_model(make_bundle(folder / "bundle"))
    # As of `metalayer train --scores`: a digest of each file, where the pipeline's models have one of all.
    save_model(model, folder / "trained", {**facts, "data_hash": {"pwm_chr2.parquet": "9d955a85a78e10e4"}})
    return serving_of(ServingSettings(**files), ["pwm"], folder / "trained")


@pytest.fixture(scope="module")
def url(serving: Serving) -> Iterator[str]:
    with in_thread(serving) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab; nothing in it may fail, or be asked for elsewhere."""
    with browser.page() as found:
        yield found
        assert not found.mistakes()
        assert all(address.startswith(("http://127.0.0.1:", "blob:", "data:")) for address in found.addresses())


def seen(page: Page, url: str, **asked: object) -> None:
    """Open the page at what is asked for, until it is drawn."""
    page.goto("about:blank")
    page.goto(f"{url}/#{urlencode(asked)}")
    page.until(f"{SHOWN} === '1'")


def answered(url: str, asked: dict[str, str], query: str = "") -> dict[str, Any]:
    found = httpx.post(f"{url}/v1/view{query}", json=asked, timeout=60)
    assert found.status_code == 200, found.text
    return dict(found.json())


def numbers(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def shown_values(page: Page) -> dict[str, str]:
    """Scores of the base that the page speaks of, by track."""
    return dict(
        page.js(
            "Object.fromEntries([...document.querySelectorAll('#readout dl div')].map("
            "one => [one.dataset.track, one.querySelector('dd').textContent]))"
        )
    )


def x_of(page: Page, position: int) -> float:
    """Where a base lies in the window."""
    return float(
        page.js(
            "(() => { const t = document.getElementById('tracks').tracks, f = t.frame(); return "
            f"t.viewport().getBoundingClientRect().left + ({position} - 0.5 - f.start) / f.bpPerPixel }})()"
        )
    )


def test_a_gene_by_its_name(page: Page, url: str) -> None:
    page.goto(f"{url}/")
    page.until("document.querySelector('#examples button')")
    page.click("#what")
    page.write("sim0002")
    page.press("Enter")
    page.until(f"{SHOWN} === '1'")
    answer = answered(url, {"gene": "SIM0002"})
    (gene,) = answer["genes"]
    assert page.text("#title") == "SIM0002"
    assert (
        page.text("#place")
        == "chr1:10,202\N{EN DASH}15,861 \N{MIDDLE DOT} 5,660 bases \N{MIDDLE DOT} strand \N{MINUS SIGN}"
    )
    assert page.text("#summary").split("\n") == gene["summary"]
    rows = page.js("[...document.querySelectorAll('#sites tbody tr')].map(r => [...r.cells].map(c => c.innerText))")
    expected = [
        [
            f"{one['position']:,}",
            one["kind"],
            f"{one['base']:.4f}",
            f"{one['meta']:.4f}",
            "yes" if one["annotated"] else "no",
            one["motif"],
            ", ".join(one["called_by"]) or "none",
        ]
        for one in sorted(gene["sites"], key=lambda one: one["position"])
    ]
    assert rows == expected
    site = next(one for one in gene["sites"] if one["kind"] == "donor" and one["called_by"])
    page.js(f"document.getElementById('tracks').tracks.go('chr1:{site['position'] - 30}-{site['position'] + 30}')")
    page.until("document.getElementById('tracks').tracks.frame().bpPerPixel < 0.1")
    box = page.box("#tracks")
    page.move_to(x_of(page, site["position"]), box["y"] + 180)
    page.until("document.querySelector('#readout dl')")
    index = site["position"] - gene["first"]
    values = {
        f"{system} {kind} -": f"{numbers(scores[kind])[index]:.4f}"
        for system, scores in gene["scores"].items()
        for kind in ("donor", "acceptor")
    }
    assert shown_values(page) == values
    page.click_at(x_of(page, site["position"]), box["y"] + 180)
    page.until("document.querySelector('#readout p').innerText.includes('(chosen)')")
    assert shown_values(page) == values
    letter = answer["letters"][site["position"] - answer["start"]]
    assert page.text("#readout p") == f"chr1:{site['position']:,} {letter} (chosen)"


def test_a_lone_site_stays_as_high_as_it_is_from_afar(page: Page, url: str) -> None:
    begun = time.perf_counter()
    seen(page, url, gene="LONG")
    took = page.js("performance.getEntriesByType('measure').map(one => [one.name, Math.round(one.duration)])")
    print(f"gene of 100 kb, milliseconds: {took}; with the page itself {time.perf_counter() - begun:.2f} s")
    assert [name for name, _ in took] == ["first view", "scores"]
    assert took[0][1] < 20_000  # two seconds on a machine that does nothing else
    (gene,) = answered(url, {"gene": "LONG"})["genes"]
    for system in ("base", "meta"):
        highest = page.js(
            "(async () => { const t = document.getElementById('tracks').tracks;"
            f" const one = t.browser.findTracks('name', '{system} donor')[0];"
            " const f = t.frame(), end = f.start + f.bpPerPixel * t.viewport().clientWidth;"
            " return (await one.getFeatures('contig', f.start, end,"
            " f.bpPerPixel)).map(f => f.value).reduce((a, b) => Math.max(a, b)) })()"
        )
        assert highest == pytest.approx(float(numbers(gene["scores"][system]["donor"]).max()), abs=1e-7)
    assert page.text("#place").startswith(f"{BIG}:501")


def test_the_address_shows_it_again_and_keys_walk(page: Page, url: str) -> None:
    seen(page, url, gene="SIM0003")
    sites = sorted(answered(url, {"gene": "SIM0003"})["genes"][0]["sites"], key=lambda one: one["position"])
    page.js("document.getElementById('tracks').focus()")
    page.press("]")
    page.until("document.querySelector('#readout p b')")
    assert page.text("#readout p b") == f"chr1:{sites[0]['position']:,}"
    page.press("ArrowRight")
    page.press("ArrowRight", shift=True)
    place = f"chr1:{sites[0]['position'] + 11:,}"
    page.until(f"document.querySelector('#readout p b').innerText === '{place}'")
    wide = page.js("document.getElementById('tracks').tracks.locus()")
    page.press("+")
    page.until(f"document.getElementById('tracks').tracks.frame().bpPerPixel * 1000 < {(wide[1] - wide[0]) * 0.7}")
    page.until("location.hash.includes('view=') && location.hash.includes('site=')")
    time.sleep(0.2)
    link, locus = page.js("location.href"), page.js("document.getElementById('tracks').tracks.locus()")
    values = shown_values(page)
    page.goto("about:blank")
    page.goto(link)
    page.until(f"{SHOWN} === '1'")
    assert page.text("#readout p b") == place
    assert shown_values(page) == values
    assert np.abs(np.array(page.js("document.getElementById('tracks').tracks.locus()")) - locus).max() <= 2


def test_why_meta_differs(page: Page, url: str) -> None:
    seen(page, url, gene="SIM0002")
    (gene,) = answered(url, {"gene": "SIM0002"})["genes"]
    site = min(gene["sites"], key=lambda one: one["position"])
    page.click("#sites tbody tr:first-child button")
    page.until("document.querySelector('#why-text .inputs')")
    body = {"gene": gene["gene_id"], "position": site["position"], "kind": site["kind"]}
    found = httpx.post(f"{url}/v1/explain", json=body).json()
    assert found["meta"] == pytest.approx(site["meta"], abs=1e-5)
    text = page.text("#why-text")
    assert "is not in this model" in text
    assert f"base says {site['base']:.4f} and meta {site['meta']:.4f}" in text
    for one in found["inputs"]:
        row = page.text(f"#why-text tr[data-input={one['input']}]")
        sign = "\N{MINUS SIGN}" if one["log_odds"] < 0 else "+"
        assert f"{sign}{abs(one['log_odds']):.2f}" in row
        assert f"without: {one['without']:.4f}" in row
    drawn = page.js("[...document.querySelectorAll('.letters text')].map(one => one.dataset.letters)")
    assert drawn == [one["letters"] for one in found["letters"]]
    page.js("document.getElementById('only').click()")
    differing = [one for one in gene["sites"] if len(one["called_by"]) == 1]
    assert page.js("document.querySelectorAll('#sites tbody tr').length") == len(differing)


def test_how_right_such_scores_were(page: Page, url: str, serving: Serving) -> None:
    assert serving.engine is not None
    (gene,) = answered(url, {"gene": "SIM0002"})["genes"]
    site = min(gene["sites"], key=lambda one: one["position"])
    bins = [
        {"low": low, "high": high, "count": 1000, "sites": sites}
        for low, high, sites in ((0.0, 0.2, 3), (0.2, 0.6, 421), (0.6, 1.0, 940))
    ]
    figures = {"ap_donor": 0.61234, "ap_acceptor": 0.5, "pr_auc_splice": 0.55}
    serving.engine._facts["held_out"] = {
        "metrics": {"base": figures, "meta": {**figures, "ap_donor": 0.7}},
        "bins": {"base": bins, "meta": [bins[0]]},
    }
    try:
        seen(page, url, gene="SIM0002", site=f"{site['position']}-{site['kind']}")
        page.until("document.querySelector('#why-text .inputs')")
    finally:
        serving.engine._facts.pop("held_out")
    assert "Of 1,000 positions to which base gave 0.2 to 0.6, 421 were sites (42.1 %)." in page.text("#why-text")
    assert "meta gave no position there a score like 0.3" in page.text("#why-text")
    rows = page.js("[...document.querySelectorAll('#held-out tbody tr')].map(r => [...r.cells].map(c => c.innerText))")
    assert rows[0] == ["Average precision, donors", "0.6123", "0.7000"]
    assert "pwm_chr2.parquet 9d955a85" in page.js("document.querySelector('#model-text').textContent")


def test_a_variant_and_its_controls(page: Page, url: str) -> None:
    example = httpx.get(f"{url}/v1/model").json()["examples"]["variant"]
    page.goto(f"{url}/")
    page.until("document.querySelector('#examples button')")
    page.click("#examples button:nth-of-type(3)")
    page.until(f"{SHOWN} === '1'")
    for change, query in (
        ("", "?distance=50&mask=false"),
        ("document.getElementById('mask').click()", "?distance=50&mask=true"),
        (
            "(() => { const d = document.getElementById('distance'); d.value = 400;"
            " d.dispatchEvent(new Event('change')) })()",
            "?distance=400&mask=true",
        ),
    ):
        drawn = int(page.js(SHOWN))
        if change:
            page.js(change)
            page.until(f"Number({SHOWN}) === {drawn + 1}")
        answer = answered(url, {"variant": example}, query)
        (gene,) = answer["genes"]
        index = answer["position"] - gene["first"]
        expected = {}
        for model, theirs in gene["models"].items():
            words = page.text(f"[data-model={model}]")
            assert theirs["consequence"]["words"][0].lower() in words.lower()
            for kind, one in theirs["changes"].items():
                row = page.text(f"[data-model={model}] tr[data-change={kind}]")
                assert row.split()[2:5] == [f"{one[name]:.4f}" for name in ("score", "ref", "alt")]
            for name, key in (("REF", "reference"), ("ALT", "alternative"), ("ALT - REF", "change")):
                for kind in ("donor", "acceptor"):
                    value = f"{numbers(theirs[key][kind])[index]:.4f}".replace("-0.0000", "0.0000")
                    expected[f"{model} {name} {kind} {gene['strand']}"] = value
        assert shown_values(page) == expected
    assert "distance=400" in page.js("location.hash")
    names = page.js("document.getElementById('tracks').tracks.rows().map(one => one.name)")
    assert [name for name in names if "exons" in name] == [
        f"{model} exons {haplotype}" for model in ("pwm", "metalayer") for haplotype in ("REF", "ALT")
    ]


def test_a_sequence_and_text_that_is_no_html(page: Page, url: str) -> None:
    letters = decode(np.random.default_rng(3).integers(0, 4, 900).astype(np.uint8)) + "CAGGTAAGT" + "ACGT" * 50
    page.goto(f"{url}/")
    page.until("document.querySelector('#examples button')")
    page.click("#what")
    page.write(WORD)
    page.click("#show")
    page.until("!document.getElementById('state').hidden")
    assert WORD in page.text("#state")
    page.forget()  # the browser logs a refusal as an error
    page.js("document.getElementById('what').value = ''")
    page.click("#what")
    page.write(f">{WORD}\n{letters[:500]}\n{letters[500:]}\n")
    page.click("#show")
    page.until(f"{SHOWN} === '1'")
    assert page.js("document.getElementById('planted')") is None
    (gene,) = answered(url, {"sequence": letters})["genes"]
    assert page.js("document.querySelectorAll('#sites tbody tr').length") == len(gene["sites"])
    assert page.text("#title") == "Pasted sequence"
    calls = sum("base" in one["called_by"] for one in gene["sites"])
    assert page.text("#summary").split("\n")[0] == f"base calls {calls} site{'' if calls == 1 else 's'}"
    assert "Annotated" not in page.text("#sites thead")
    assert not [address for address in page.addresses() if "ACGT" in address.partition("#")[0]]
    page.click("#sites tbody tr:first-child button")
    page.until("document.querySelector('#why-text .inputs')")


def test_a_region_says_which_bases_have_no_score(page: Page, url: str) -> None:
    seen(page, url, region="1:1-12,000")
    answer = answered(url, {"region": "1:1-12,000"})
    assert answer["contig"] == "chr1"
    assert f"the reference calls 1 chr1, of {answer['contig_length']:,} bases" in page.text("#place")
    without = np.ones(12_000, bool)
    for gene in answer["genes"]:
        without[gene["first"] - 1 : gene["last"]] = False
    assert page.text("#missing").startswith(f"{without.sum():,} of 12,000 bases have no score")
    assert page.text("#title") == "Region with SIM0001, SIM0002"
    sites = [one for gene in answer["genes"] for one in gene["sites"]]
    known = [one for one in sites if one["annotated"]]
    base = [one for one in known if "base" in one["called_by"]]
    assert f"base calls {len(base)} of {len(known)} annotated sites of 2 genes" in page.text("#summary")
    page.js("document.getElementById('tracks').focus()")
    box = page.box("#tracks")
    page.click_at(x_of(page, 500), box["y"] + 250)
    page.until("document.querySelector('#readout dl')")
    assert set(shown_values(page).values()) == {"no score"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SIM02", "did you mean SIM0"),
        ("chr1:1-99M", "bases in this reference; 99,000,000 lies outside. Is the place of another genome build?"),
        ("chrZ:1-100", "the reference has no contig 'chrZ'; it has chr1"),
        ("chr1:1670:G:A", "ref_mismatch"),
    ],
)
def test_what_cannot_be_shown_is_said(page: Page, url: str, text: str, words: str) -> None:
    page.goto(f"{url}/")
    page.until("document.querySelector('#examples button')")
    page.click("#what")
    page.write(text)
    page.press("Enter")
    page.until("!document.getElementById('state').hidden")
    assert words in page.text("#state")
    assert page.js("document.getElementById('result').hidden")
    page.forget()  # the browser logs a refusal as an error


def test_files_have_the_numbers(page: Page, url: str, tmp_path: Path) -> None:
    seen(page, url, gene="SIM0002")
    (gene,) = answered(url, {"gene": "SIM0002"})["genes"]
    page.downloads(tmp_path)

    def saved(ending: str) -> Path:
        page.click(f"[data-save={ending}]")
        path, until = tmp_path / f"SIM0002.{ending}", time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        return path

    lines = [line.split("\t") for line in saved("tsv").read_text().splitlines()]
    assert lines[0] == [
        *("contig", "position", "strand", "letter"),
        *(f"{s}_{k}" for s in ("base", "meta") for k in ("donor", "acceptor")),
    ]
    assert [int(line[1]) for line in lines[1:]] == [*range(gene["first"], gene["last"] + 1)]
    for column, (system, kind) in enumerate([(s, k) for s in ("base", "meta") for k in ("donor", "acceptor")], 4):
        values = np.array([line[column] for line in lines[1:]], np.float64).astype(np.float32)
        np.testing.assert_array_equal(values, numbers(gene["scores"][system][kind]))
    sites = [line.split("\t") for line in saved("bed").read_text().splitlines()]
    called = sorted((one["position"], one["kind"]) for one in gene["sites"] if one["called_by"])
    assert sorted((int(line[2]), line[3]) for line in sites) == called
    drawing = saved("svg").read_text()
    assert {"base donor", "meta acceptor"} <= {one.text for one in ElementTree.fromstring(drawing).iter() if one.text}
    assert saved("png").read_bytes().startswith(b"\x89PNG")


def test_a_server_with_keys_asks_for_one_and_keeps_it_in_the_tab(browser: Browser, files: dict[str, Path]) -> None:
    asking = Serving(BaseAlone(["pwm"]), ServingSettings(api_keys="secret", **files))
    asking.open_variants("pwm")
    with in_thread(asking) as url, browser.page() as page:
        page.goto(f"{url}/#gene=SIM0002")
        page.until("!document.getElementById('key').hidden")
        for key, words in (("wrong", "does not know this API key"), ("secret", "")):
            page.click("#key-value")
            page.write(key)
            page.press("Enter")
            page.until(f"document.getElementById('key').hidden || document.body.innerText.includes('{words or '-'}')")
        page.until(f"{SHOWN} === '1'")
        assert page.text("#title") == "SIM0002"
        assert "scores of the base model alone" in page.text("#model")
        assert page.js("document.getElementById('why').hidden")
        assert page.js("[localStorage.length, document.cookie, location.href.includes('secret')]") == [0, "", False]


def test_without_a_reference_sequences_are_shown_or_what_is_missing_is_said(browser: Browser, engine: Engine) -> None:
    letters = "CAGACCTTCGAGGACCAGGTAAGTGCTTGATTCCACAG"
    with served(engine) as url, browser.page() as page:
        page.goto(f"{url}/#sequence={letters}")
        page.until(f"{SHOWN} === '1'")
        rows = httpx.post(f"{url}/v1/score_sequence", json={"sequence": letters}).json()["rows"]
        best = max(range(len(rows)), key=lambda index: rows[index]["base_donor"])
        page.click("#sites tbody tr:first-child button")
        page.until("document.querySelector('#readout dl')")
        assert page.text("#readout p b") == f"letter {best + 1}"
        assert shown_values(page)["base donor +"] == f"{rows[best]['base_donor']:.4f}"
        base, engine._base = engine._base, None
        try:
            page.goto("about:blank")
            page.goto(f"{url}/")
            page.until("!document.getElementById('state').hidden")
        finally:
            engine._base = base
        assert "METALAYER_SERVE_FASTA" in page.text("#state")
        assert page.js("document.querySelector('#state a').getAttribute('href')") == "docs"


_CONTRAST = """(() => {
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const colour = (t) => t.match(/[\\d.]+/g).map(Number);
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    if (![...one.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !one.checkVisibility()) continue;
    if (one.closest("noscript, script, style")) continue;
    let back = one, b = [0, 0, 0, 0];
    while (back && (b = colour(getComputedStyle(back).backgroundColor))[3] === 0) back = back.parentElement;
    const style = getComputedStyle(one), f = colour(one.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [x, y] = [light(f), light(b[3] === 0 || !back ? [255, 255, 255] : b)].sort((p, q) => q - p);
    if ((x + 0.05) / (y + 0.05) < 4.5) found.push(one.textContent.trim().slice(0, 40));
  }
  return found; })()"""
_SHIFTS = """new Promise(done => { let sum = 0; new PerformanceObserver(list => { for (const e of list.getEntries())
  if (!e.hadRecentInput) sum += e.value; }).observe({type: "layout-shift", buffered: true});
  setTimeout(() => done(sum), 80); })"""
_NAMELESS = """[...document.querySelectorAll('button, input, textarea')].filter(o => o.checkVisibility() &&
  !(o.innerText || o.getAttribute('aria-label') || o.labels?.length)).length"""


@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_stands_still_and_can_be_read(page: Page, url: str, width: int) -> None:
    page.resize(width, 900 if width > 500 else 740)
    example = httpx.get(f"{url}/v1/model").json()["examples"]
    for asked in (
        {"gene": "SIM0002", "site": "10878-donor"},
        {"variant": example["variant"]},
        {"region": "chr1:1-12000"},
    ):
        seen(page, url, **asked)
        if "site" in asked:
            page.until("document.querySelector('#why-text .inputs')")
        assert page.js("document.documentElement.scrollWidth") <= width
        assert page.js(_CONTRAST) == []
        assert page.js(_SHIFTS) < 0.1
        assert page.js(_NAMELESS) == 0
