// The page: what was asked, what is chosen, and the address that says both.
import { Refused, ask, hasKey, keepKey, sequenceAnswer, tracksOf } from "./answers.js";
import { COLOURS, Tracks, missing } from "./browser.js";
import { bed, png, save, tsv } from "./downloads.js";
import { consequences, contributions, count, heldOut, legend, make, modelCard, placeInWords, readout, sitesOf, sitesTable, summaryOf, titleOf } from "./panels.js";

const at = (id) => document.getElementById(id);
const THRESHOLD = 0.3; // of calls, on a server without a reference, which says none
const LONGEST_LINK = 50_000; // letters: browsers and programs that pass links on cut longer ones
const WAIT_MS = 200; // until a chosen site is explained: who walks on by the keys asks for none of those between
const tracks = new Tracks(at("tracks"));
at("tracks").tracks = tracks; // for the console
const now = { model: null, asked: null, answer: null, tracks: [], sites: [], chosen: null, drawing: false, request: null, why: null };

const LETTERS = /^[ACGTNU\s]+$/i;
const REGION = /^.+:[\d,.]+[kKmM]?-[\d,.]+[kKmM]?(:[+-])?$/;
const VARIANT = /(^.+[:-]\d+[:-][A-Z]+[:-><]+[A-Z]+$)|(:g\.)/i;

/** What a text is: the kind of thing, and the text as it is sent. */
function read(text) {
  const given = text.trim();
  if (given.startsWith(">") || (given.length >= 20 && LETTERS.test(given))) {
    const letters = given.split("\n").filter((line) => !line.startsWith(">")).join("").replaceAll(/\s/g, "").replaceAll(/[uU]/g, "T");
    return { kind: "sequence", text: letters };
  }
  if (REGION.test(given)) return { kind: "region", text: given };
  if (VARIANT.test(given)) return { kind: "variant", text: given };
  return { kind: "gene", text: given };
}

const HINTS = {
  gene: "read as a gene: name or id",
  region: "read as a region",
  variant: "read as a variant",
  sequence: "read as a sequence in transcript sense",
};
const START = "A name such as TRAK1, a place such as chr3:42.1M-42.3M, a variant such as chr3:42600000:G:A, or letters.";
const ALONE = "This server has no reference and annotation: it takes pasted sequences.";

function say(text, isError = false) {
  at("state").replaceChildren(...(typeof text === "string" ? [text] : text));
  at("state").hidden = !text.length;
  at("state").classList.toggle("error", isError);
}

function hint() {
  const text = at("what").value;
  const { kind, text: sent } = read(text);
  at("options").hidden = kind !== "variant" || !text.trim();
  at("read-as").textContent = text.trim() ? HINTS[kind] + (kind === "sequence" ? `, ${count(sent.length)} letters` : "") : now.model && !now.model.variants ? ALONE : START;
  at("what").rows = Math.min(6, Math.max(1, text.split("\n").length, Math.ceil(text.length / 90)));
}

/** The address that shows this again: behind the #, which no server sees. */
function address() {
  const { asked, answer, chosen } = now;
  if (asked.text.length > LONGEST_LINK) return "#";
  const parts = new URLSearchParams({ [asked.kind]: asked.text });
  if (asked.kind === "variant") {
    parts.set("distance", asked.distance);
    if (asked.mask) parts.set("mask", "true");
  }
  if (answer && tracks.frame()) {
    const [start, end] = tracks.locus();
    if (start > answer.start || end < answer.end) parts.set("view", `${start}-${end}`);
  }
  if (chosen) parts.set("site", `${chosen.position}${chosen.kind ? `-${chosen.kind}` : ""}`);
  return `#${parts}`;
}

let waiting = 0;
function keepAddress() {
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", address()), 150);
}

/** What an address asks for; null of one that asks for nothing. */
function fromAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const kind = ["gene", "region", "variant", "sequence"].find((one) => parts.get(one));
  if (!kind) return null;
  const asked = { kind, text: parts.get(kind) };
  if (kind === "variant") Object.assign(asked, { distance: Number(parts.get("distance") ?? 50), mask: parts.get("mask") === "true" });
  const locus = /^(\d+)-(\d+)$/.exec(parts.get("view") ?? "");
  const site = /^(\d+)(?:-(donor|acceptor))?$/.exec(parts.get("site") ?? "");
  return { asked, locus: locus && [Number(locus[1]), Number(locus[2])], site: site && { position: Number(site[1]), kind: site[2] ?? null } };
}

async function askedFor(asked, signal) {
  if (asked.kind === "sequence" && !now.model.variants) {
    const { rows } = await ask("v1/score_sequence", { sequence: asked.text }, signal);
    return sequenceAnswer(asked.text, rows, THRESHOLD);
  }
  const options = asked.kind === "variant" ? `?distance=${asked.distance}&mask=${asked.mask}` : "";
  return ask(`v1/view${options}`, { [asked.kind]: asked.text }, signal);
}

/** Ask for something and draw it. */
async function show(asked, { locus = null, site = null, push = true } = {}) {
  performance.mark("asked");
  now.request?.abort();
  const request = (now.request = new AbortController());
  Object.assign(now, { asked, answer: null, chosen: null, drawing: true });
  if (push) history.pushState(null, "", address());
  at("what").value = asked.text;
  hint();
  if (asked.kind === "variant") {
    at("distance").value = asked.distance;
    at("mask").checked = asked.mask;
  }
  say("");
  at("result").hidden = false;
  at("model").hidden = true;
  at("result").classList.add("loading");
  at("result").setAttribute("aria-busy", "true");
  at("title").textContent = "Scoring \u2026";
  at("place").textContent = asked.kind === "sequence" ? `${count(asked.text.length)} letters` : asked.text.slice(0, 80);
  at("lower").classList.toggle("two", canExplain(asked));
  at("why").hidden = !canExplain(asked);
  for (const id of ["sites", "readout", "consequences", "summary"]) at(id).replaceChildren();
  at("why-text").replaceChildren(make("p", { class: "quiet" }, "Choose a site: in the table, or with the keys [ and ] in the tracks."));
  const isVariant = asked.kind === "variant";
  at("tracks").classList.toggle("of-variant", isVariant);
  at("lower").hidden = isVariant;
  const listeners = { locus, moved: () => !now.drawing && keepAddress(), chosen: (position) => choose({ position, kind: null }), hovered: hover };
  const stopped = () => request.signal.aborted;
  try {
    let drawn = false;
    if (now.model.variants && ["gene", "region"].includes(asked.kind)) { // the annotation is there before a network has scored
      const first = await ask("v1/view?scores=false", { [asked.kind]: asked.text }, request.signal);
      if (stopped()) return;
      at("title").textContent = titleOf(first, asked);
      at("place").textContent = placeInWords(first, asked);
      at("summary").replaceChildren(make("li", { class: "quiet" }, "Scoring \u2026"));
      await tracks.show(first, listeners);
      if (stopped()) return;
      at("result").classList.remove("loading");
      performance.measure("first view", "asked");
      drawn = true;
    }
    const answer = await askedFor(asked, request.signal);
    if (stopped()) return;
    if (!drawn) await tracks.show(answer, listeners);
    if (stopped()) return;
    now.answer = answer;
    now.tracks = tracksOf(answer);
    now.sites = sitesOf(answer);
    words();
    await tracks.add(answer, now.tracks);
    if (stopped()) return;
    performance.measure("scores", "asked");
    at("result").classList.remove("loading");
    at("result").setAttribute("aria-busy", "false");
    at("model").hidden = false;
    now.drawing = false;
    if (site ?? answer.variant) await choose(site ?? { position: answer.position, kind: null });
    document.documentElement.dataset.shown = String(Number(document.documentElement.dataset.shown ?? 0) + 1);
  } catch (error) {
    if (error.name === "AbortError" || request.signal.aborted) return;
    at("result").hidden = true;
    at("model").hidden = false;
    refused(error);
  }
}

function refused(error) {
  if (error instanceof Refused && error.status === 401) {
    at("why-key").textContent = hasKey() ? "The server does not know this API key." : "This server answers to those who have an API key.";
    at("key").hidden = false;
    at("search").hidden = true;
    say("");
    at("key-value").focus();
    return;
  }
  if (!(error instanceof Refused)) console.error(error);
  say(error instanceof Refused ? error.message : `The page cannot draw this: ${error.message}`, true);
}

/** All text of an answer. */
function words() {
  const { answer, asked } = now;
  at("title").textContent = titleOf(answer, asked);
  document.title = `${at("title").textContent}: metalayer`;
  at("place").textContent = placeInWords(answer, asked);
  const isVariant = Boolean(answer.variant);
  at("summary").replaceChildren(...summaryOf(answer).map((line) => make("li", {}, line)));
  at("consequences").replaceChildren(...(isVariant ? consequences(answer, (site) => choose(site, { near: true })) : []));
  at("legend").replaceChildren(...legend([[COLOURS.donor, "donor: last base of the exon"], [COLOURS.acceptor, "acceptor: first base of the exon"],
    ...(isVariant ? [[COLOURS.come, "only on ALT"], [COLOURS.gone, "only on REF"]] : [])]));
  const gaps = missing(now.tracks).reduce((sum, [start, end]) => sum + end - start + 1, 0);
  const size = answer.end - answer.start + 1;
  at("missing").hidden = now.tracks.length > 0 && !gaps;
  at("missing").textContent = now.tracks.length
    ? `${count(gaps)} of ${count(size)} bases have no score: they lie in no gene of the annotation. They are marked \u201cno score\u201d, which is not 0.`
    : "No base has a score: no gene of the annotation lies here.";
  at("sites-card").hidden = isVariant;
  at("consequences-card").hidden = !isVariant;
  document.querySelector('[data-save="bed"]').hidden = isVariant;
  table();
  at("readout").replaceChildren(...readout(answer, now.tracks, null));
}

function table() {
  const { answer, sites, chosen } = now;
  const hasMeta = sites.some((site) => "meta" in site);
  at("only-label").hidden = !hasMeta;
  at("sites").replaceChildren(sitesTable(sites, {
    onlyDiffering: hasMeta && at("only").checked, hasMeta, several: answer.genes.length > 1, isAnnotated: answer.contig !== "sequence", chosen,
    choose: (site) => choose(site, { near: true }),
  }));
}

function hover(position) {
  if (!now.answer) return;
  at("readout").setAttribute("aria-live", "off");
  at("readout").replaceChildren(...readout(now.answer, now.tracks, position ?? now.chosen?.position ?? null, position === null));
}

/** Choose a base, or a site: mark it, say its scores, and of a site why meta says what it says. */
async function choose(site, { near = false } = {}) {
  const { answer } = now;
  if (!answer || site.position < answer.start || site.position > answer.end) return;
  const here = now.sites.filter((one) => one.position === site.position && (!site.kind || one.kind === site.kind));
  const found = site.gene ? site : here.find((one) => one.kind === site.kind) ?? here[0] ?? site;
  now.chosen = found;
  at("readout").setAttribute("aria-live", "polite");
  at("readout").replaceChildren(...readout(answer, now.tracks, found.position, true));
  if (!answer.variant) table();
  await tracks.choose(found.position, near);
  keepAddress();
  explain(found);
}

/** Whether there is a meta model whose inputs can be left out one by one: a server without a reference has none. */
const canExplain = (asked) => asked.kind !== "variant" && Boolean(now.model.variants) && Object.keys(now.model.ways ?? {}).length > 0;

/** P(donor) + P(acceptor) of a site, of base and meta. */
function spliced(site) {
  const sum = (system) => now.tracks.filter((one) => one.name === system && one.strand === site.strand).reduce((all, one) => all + (one.at(site.position) ?? 0), 0);
  return { base: sum("base"), meta: sum("meta") };
}

let thinking = 0;
function explain(site) {
  clearTimeout(thinking);
  now.why?.abort();
  const { asked, answer } = now;
  if (!site.kind || !canExplain(asked)) return;
  at("why-text").replaceChildren(make("p", { class: "quiet" }, "Computing the answer without each input \u2026"));
  const request = (now.why = new AbortController());
  const what = asked.kind === "sequence" ? { sequence: asked.text } : { gene: site.gene.gene_id };
  thinking = setTimeout(async () => {
    try {
      const found = await ask("v1/explain", { ...what, position: site.position, kind: site.kind }, request.signal);
      at("why-text").replaceChildren(...contributions(found, site, answer.base_models, heldOut(now.model, spliced(site))));
      const letters = at("why-text").querySelector(".scroll");
      if (letters) letters.scrollLeft = (letters.scrollWidth - letters.clientWidth) / 2; // the site is in the middle
    } catch (error) {
      if (error.name !== "AbortError") at("why-text").replaceChildren(make("p", { class: "error" }, error.message));
    }
  }, WAIT_MS);
}

function next(step) {
  const places = now.sites.filter((site) => !now.chosen || (step > 0 ? site.position > now.chosen.position : site.position < now.chosen.position));
  const site = step > 0 ? places[0] : places.at(-1);
  if (site) choose(site, { near: false });
}

function pressed(event) {
  if (!now.answer || event.ctrlKey || event.metaKey || event.altKey) return;
  const middle = () => Math.round(tracks.locus().reduce((sum, one) => sum + one) / 2);
  const move = (step) => choose({ position: Math.min(now.answer.end, Math.max(now.answer.start, (now.chosen?.position ?? middle()) + step)), kind: null });
  const far = event.shiftKey ? 10 : 1;
  const actions = {
    ArrowLeft: () => move(-far), ArrowRight: () => move(far), "]": () => next(1), "[": () => next(-1),
    "+": () => tracks.zoom(0.5), "=": () => tracks.zoom(0.5), "-": () => tracks.zoom(2), 0: () => tracks.go(tracks.whole()),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

async function download(kind) {
  const name = at("title").textContent.replaceAll(/[^\w.-]+/g, "_").slice(0, 60) || "view";
  try {
    if (kind === "svg") save(`${name}.svg`, tracks.svg(), "image/svg+xml");
    if (kind === "png") save(`${name}.png`, await png(tracks.svg()));
    if (kind === "tsv") save(`${name}.tsv`, tsv(now.answer, now.tracks), "text/tab-separated-values");
    if (kind === "bed") save(`${name}.bed`, bed(now.answer), "text/plain");
  } catch (error) {
    say(error.message, true);
  }
}

function begun() {
  const { model } = now;
  at("who").textContent = `${model.name} ${model.version}${model.standing ? " (no champion)" : ""}`;
  at("model-text").replaceChildren(...modelCard(model));
  at("model").hidden = Boolean(fromAddress());
  at("key").hidden = true;
  at("search").hidden = false;
  hint();
  const examples = Object.entries(model.examples ?? {});
  const button = ([kind, text]) => make("button", { type: "button", class: "link", onclick: () => submit(text) }, `${kind} ${text}`);
  at("examples").replaceChildren(...(examples.length ? ["Try: ", ...examples.map(button)] : []));
  if (!model.variants && model.holds_base_model === false) {
    at("search").hidden = true;
    say([make("span", {}, `This server can show nothing yet: it has no reference and annotation, and does not hold its base model ${model.base_model}. Start it with METALAYER_SERVE_FASTA, METALAYER_SERVE_ANNOTATION and METALAYER_SERVE_WEIGHTS. Its calls are in `),
      make("a", { href: "docs" }, "docs"), "."]);
  }
}

function submit(text) {
  const asked = read(text);
  if (!asked.text) return;
  if (asked.kind === "variant") Object.assign(asked, { distance: Number(at("distance").value) || 50, mask: at("mask").checked });
  show(asked);
}

async function start() {
  try {
    now.model = await ask("v1/model");
  } catch (error) {
    refused(error);
    return;
  }
  begun();
  const found = fromAddress();
  if (found) show(found.asked, { ...found, push: false });
  else at("what").focus({ preventScroll: true });
}

at("what").addEventListener("input", hint);
at("what").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    submit(at("what").value);
  }
});
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(at("what").value);
});
for (const id of ["distance", "mask"]) at(id).addEventListener("change", () => now.asked?.kind === "variant" && submit(now.asked.text));
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key-value").value);
  at("key-value").value = "";
  start();
});
at("tracks").addEventListener("keydown", pressed);
at("only").addEventListener("change", table);
at("zoom-in").addEventListener("click", () => tracks.zoom(0.5));
at("zoom-out").addEventListener("click", () => tracks.zoom(2));
at("whole").addEventListener("click", () => tracks.go(tracks.whole()));
at("link").addEventListener("click", async () => {
  history.replaceState(null, "", address());
  await navigator.clipboard?.writeText(location.href).catch(() => null);
  at("link").textContent = now.asked.text.length > LONGEST_LINK ? "Too long for a link" : "In the address";
  setTimeout(() => (at("link").textContent = "Copy link"), 1500);
});
for (const button of document.querySelectorAll("[data-save]")) button.addEventListener("click", () => download(button.dataset.save));
addEventListener("popstate", () => {
  const found = fromAddress();
  if (found && now.model) show(found.asked, { ...found, push: false });
});
addEventListener("resize", () => setTimeout(() => tracks.browser && (tracks.name(), tracks.mark()), 300));
start();
