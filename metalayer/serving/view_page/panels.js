// What the page says in words and tables. Text of answers and requests is only ever text here, never HTML.
import { COLOURS } from "./browser.js";

/** An element with attributes and children; a string is text. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((one) => one !== null && one !== undefined));
  return made;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const count = (value) => value.toLocaleString("en-US");
export const probability = (value) => (value === null || value === undefined ? "no score" : value.toFixed(4).replace(/^-(0\.0+)$/, "$1"));
const signed = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`;

export function placeInWords(answer, asked) {
  const strands = [...new Set(answer.genes.map((gene) => gene.strand))];
  const place = answer.contig === "sequence" ? "" : `${answer.contig}:${count(answer.start)}\u2013${count(answer.end)} \u00b7 `;
  const strand = answer.contig === "sequence" ? "transcript sense" : strands.length ? `strand ${strands.join(" and ").replaceAll("-", "\u2212")}` : "no gene";
  const called = asked.kind === "region" ? asked.text.replace(/:[\d,.]+[kKmM]?-.*$/, "") : answer.contig;
  const named = called === answer.contig ? "" : ` \u00b7 the reference calls ${called} ${answer.contig}, of ${count(answer.contig_length)} bases`;
  return `${place}${count(answer.end - answer.start + 1)} bases \u00b7 ${strand}${named}`;
}

export function titleOf(answer, asked) {
  if (answer.variant) return `${answer.variant} in ${answer.genes.map(nameOf).join(", ")}`;
  if (asked.kind === "sequence") return "Pasted sequence";
  if (asked.kind === "region") return answer.genes.length ? `Region with ${answer.genes.map(nameOf).join(", ")}` : "Region without genes";
  return nameOf(answer.genes[0]);
}

export const nameOf = (gene) => gene.gene_name || gene.gene_id || "sequence";

/** What is said first: what each model calls, of several genes in all, or what each says that a variant does. */
export function summaryOf(answer) {
  const { genes } = answer;
  if (answer.variant) return genes.flatMap((gene) => Object.entries(gene.models).map(([model, { consequence }]) =>
    `${genes.length > 1 ? `${nameOf(gene)}, ` : ""}${model}: ${consequence.words.join(", ")}`));
  const sites = sitesOf(answer);
  if (answer.contig === "sequence") return Object.keys(genes[0].scores).map((system) => {
    const calls = sites.filter((site) => site.called_by.includes(system)).length;
    return `${system} calls ${count(calls)} ${calls === 1 ? "site" : "sites"}`;
  });
  if (genes.length < 2) return genes.flatMap((gene) => gene.summary);
  const known = sites.filter((site) => site.annotated);
  return Object.keys(genes[0].scores).map((system) => {
    const calls = (list) => list.filter((site) => site.called_by.includes(system)).length;
    return `${system} calls ${calls(known)} of ${known.length} annotated sites of ${genes.length} genes, and ${calls(sites) - calls(known)} that are not annotated`;
  });
}

/** Every called or annotated site once for each gene, in the order of the places. */
export function sitesOf(answer) {
  return answer.genes.flatMap((gene) => (gene.sites ?? []).map((site) => ({ ...site, gene, strand: gene.strand })))
    .sort((one, other) => one.position - other.position);
}

export const differs = (site) => "meta" in site && site.called_by.includes("meta") !== site.called_by.includes("base");

export function legend(kinds) {
  const mark = (colour) => make("span", { class: "mark", style: `background:${colour}` });
  return kinds.map(([colour, text]) => make("li", {}, mark(colour), text));
}

/** A table of sites, each with a button that chooses its base. */
export function sitesTable(sites, { onlyDiffering, hasMeta, several, isAnnotated, choose, chosen }) {
  const shown = sites.filter((site) => !onlyDiffering || differs(site));
  if (!shown.length) return make("p", { class: "quiet" }, onlyDiffering ? "Base and meta call the same sites." : `No site is ${isAnnotated ? "annotated or " : ""}called here.`);
  const head = ["Place", "Site", ...(several ? ["Gene"] : []), "Base", ...(hasMeta ? ["Meta"] : []), ...(isAnnotated ? ["Annotated"] : []), "Motif", "Called by"];
  const numeric = new Set(["Base", "Meta"]);
  const rows = shown.map((site) => {
    const isChosen = chosen && chosen.position === site.position && chosen.kind === site.kind;
    const usual = site.kind === "donor" ? "GT" : "AG";
    const cells = [
      make("button", { type: "button", class: "place", onclick: () => choose(site), "aria-pressed": String(Boolean(isChosen)) }, count(site.position)),
      make("span", { class: site.kind }, site.kind),
      ...(several ? [nameOf(site.gene)] : []),
      probability(site.base),
      ...(hasMeta ? [probability(site.meta)] : []),
      ...(isAnnotated ? [site.annotated ? "yes" : "no"] : []),
      site.motif ? (site.motif === usual ? site.motif : `${site.motif}, not ${usual}`) : "",
      site.called_by.join(", ") || "none",
    ];
    return make("tr", { class: [isChosen ? "is-chosen" : "", differs(site) ? "differs" : ""].join(" ").trim() || null },
      ...cells.map((cell, index) => make("td", { "data-name": head[index], class: numeric.has(head[index]) ? "number" : null },
        typeof cell === "string" ? make("span", {}, cell) : cell)));
  });
  return make("table", { class: "wide" },
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", class: numeric.has(text) ? "number" : null }, text)))),
    make("tbody", {}, ...rows));
}

/** The base under the pointer, or the chosen one: its letter, and every score of it as it was answered. */
export function readout(answer, tracks, position, isChosen) {
  if (position === null) return [make("p", { class: "quiet" }, "Point at a base, or choose one with a click, the table or the arrow keys.")];
  const letter = answer.letters[position - answer.start] ?? "";
  const place = answer.contig === "sequence" ? `letter ${count(position)}` : `${answer.contig}:${count(position)}`;
  const head = make("p", {}, make("b", {}, place), letter ? ` ${letter}` : "", isChosen ? " (chosen)" : "");
  const several = new Set(tracks.map((one) => one.strand)).size > 1;
  const values = tracks.map((track) => make("div", { "data-track": `${track.name} ${track.kind} ${track.strand}` },
    make("dt", { class: track.kind }, `${track.name} ${track.kind}${several ? ` (${track.strand})` : ""}`), make("dd", {}, probability(track.at(position)))));
  return [head, make("dl", {}, ...values)];
}

const INPUTS = {
  letters: () => "letters",
  base_scores_around: () => "base scores of other bases",
  base_model: (of) => `scores of ${of}`,
  evidence: (of) => `evidence ${of}`,
};

/** What each input of the model adds at a site. */
export function contributions(found, site, baseModels, evidence) {
  const place = `${site.kind} ${count(site.position)}`;
  const rest = found.log_odds;
  const lead = make("p", { class: "lead" }, `At the ${place} base says ${probability(found.base)} and meta ${probability(found.meta)}: `,
    `the log-odds ${rest < 0 ? "fall" : "rise"} by ${Math.abs(rest).toFixed(2)}.`);
  const most = Math.max(0.5, ...found.inputs.map((one) => Math.abs(one.log_odds)));
  const rows = [...found.inputs].sort((one, other) => Math.abs(other.log_odds) - Math.abs(one.log_odds)).map((one) =>
    make("tr", { "data-input": one.input },
      make("th", { scope: "row" }, INPUTS[one.input]?.(one.of) ?? one.of ?? one.input),
      make("td", { class: "bar" }, bar(one.log_odds / most)),
      make("td", { class: "number" }, signed(one.log_odds)),
      make("td", { class: "quiet" }, `without: ${probability(one.without)}`)));
  const table = make("table", { class: "inputs" },
    make("caption", {}, "What each input adds to the log-odds of meta: the answer is computed again without it. Inputs work together, so they need not add up."),
    make("tbody", {}, ...rows));
  const parts = [lead, ...evidence, make("h3", {}, "Which inputs"), table];
  if (found.letters.length) parts.push(make("h3", {}, "Which letters"), lettersDrawing(found, site),
    make("p", { class: "quiet" }, `Six letters at a time are hidden, up to 96 to either side, in transcript sense. The scores of ${baseModels.join(", ")} are kept as they are: what the base model reads in the letters is not shown here.`));
  return parts;
}

function bar(share) {
  const width = Math.min(50, Math.abs(share) * 50);
  const [x, colour] = share < 0 ? [50 - width, COLOURS.gone] : [50, COLOURS.come];
  return svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { x, y: 1, width: Math.max(width, 0.4), height: 8, fill: colour }),
    svg("line", { x1: 50, x2: 50, y1: 0, y2: 10, stroke: COLOURS.line, "vector-effect": "non-scaling-stroke" }));
}

function lettersDrawing(found, site) {
  const list = found.letters;
  const most = Math.max(0.1, ...list.map((one) => Math.abs(one.log_odds)));
  const wide = 26;
  const drawing = svg("svg", { viewBox: `0 0 ${list.length * wide} 116`, class: "letters", role: "img" });
  const best = [...list].sort((one, other) => Math.abs(other.log_odds) - Math.abs(one.log_odds))[0];
  drawing.append(svg("title", {}, `Contribution of letters; most is added by ${best.letters} at ${best.first} to ${best.last}, ${signed(best.log_odds)}`));
  list.forEach((one, index) => {
    const height = (Math.abs(one.log_odds) / most) * 44;
    const y = one.log_odds < 0 ? 50 : 50 - height;
    const here = one.first <= site.position && site.position <= one.last;
    const column = svg("g", { "data-first": one.first, "data-last": one.last });
    column.append(
      svg("title", {}, `${one.letters} ${one.first} to ${one.last}: ${signed(one.log_odds)}`),
      svg("rect", { x: index * wide, y: 0, width: wide, height: 116, fill: here ? "#f6f0dc" : "#fff" }),
      svg("rect", { x: index * wide + 3, y, width: wide - 6, height: Math.max(height, 0.5), fill: one.log_odds < 0 ? COLOURS.gone : COLOURS.come }),
      svg("text", { x: index * wide + 5, y: 112, transform: `rotate(-90 ${index * wide + 16} 106)`, "data-letters": one.letters }, one.letters));
    drawing.append(column);
  });
  drawing.append(svg("line", { x1: 0, x2: list.length * wide, y1: 50, y2: 50, stroke: COLOURS.line }));
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Letters and what they add" }, drawing);
}

const CHANGES = [["acceptor_gain", "Acceptor gain"], ["acceptor_loss", "Acceptor loss"], ["donor_gain", "Donor gain"], ["donor_loss", "Donor loss"]];

/** What a variant does, model by model: the named consequence, and the four scores. */
export function consequences(answer, choose) {
  return answer.genes.flatMap((gene) => Object.entries(gene.models).map(([model, theirs]) => {
    const { consequence, changes } = theirs;
    const rows = CHANGES.filter(([kind]) => changes[kind]).map(([kind, words]) => {
      const one = changes[kind];
      const site = { position: one.position, kind: kind.split("_")[0], gene, strand: gene.strand };
      return make("tr", { "data-change": kind },
        make("th", { scope: "row", class: site.kind }, words),
        make("td", { class: "number", "data-name": "score" }, one.score.toFixed(4)),
        make("td", { class: "number", "data-name": "REF" }, one.ref.toFixed(4)),
        make("td", { class: "number", "data-name": "ALT" }, one.alt.toFixed(4)),
        make("td", {}, make("button", { type: "button", class: "place", onclick: () => choose(site) }, count(one.position)), one.annotated ? " annotated" : ""));
    });
    return make("article", { class: "consequence", "data-model": model },
      make("h3", {}, `${model} \u00b7 ${nameOf(gene)}`),
      make("p", { class: "lead" }, consequence.words.join(", ")),
      ...consequence.text.filter((line) => !line.startsWith("consequence:")).map((line) =>
        make("p", { class: /^ *(exon|before|after|nt) {2}/.test(line) ? "drawn" : null }, /^ *(exon|before|after|nt) {2}/.test(line) ? line.replace(/^ +/, "") : line.trim())),
      make("p", { class: "quiet" }, `${consequence.label}`),
      make("table", {}, make("thead", {}, make("tr", {}, ...["Change", "Score", "REF", "ALT", "Where"].map((text, index) =>
        make("th", { scope: "col", class: index && index < 4 ? "number" : null }, text)))), make("tbody", {}, ...rows)));
  }));
}

const METRICS = { ap_donor: "Average precision, donors", ap_acceptor: "Average precision, acceptors", pr_auc_splice: "PR-AUC, donors and acceptors together" };
const CARD = ["ap_donor", "ap_acceptor", "pr_auc_splice"];

/** How often such scores were right on genes that the model had not seen: of base and of meta. */
export function heldOut(model, scores) {
  const bins = model.held_out?.bins;
  if (!bins) return [make("p", { class: "quiet" }, "How often such scores were right on genes that it had not seen is not in this model\u2019s package.")];
  const said = ["base", "meta"].map((who) => {
    const bin = bins[who].find((one) => one.low <= scores[who] && (scores[who] < one.high || one.high === 1));
    if (!bin) return make("li", {}, `${who} gave no position there a score like ${probability(scores[who])}`);
    return make("li", { "data-who": who }, `Of ${count(bin.count)} positions to which ${who} gave ${span(bin)}, ${count(bin.sites)} were sites (${((100 * bin.sites) / bin.count).toFixed(1)} %).`);
  });
  return [make("h3", {}, "How often such scores were right"), make("p", { class: "quiet" }, "On genes that the model had not seen, by P(donor) + P(acceptor):"), make("ul", {}, ...said)];
}

const span = ({ low, high }) => `${Number(low.toPrecision(2))} to ${Number(high.toPrecision(4))}`;

/** What a model was trained on: one digest, or that of each file by name. */
const digests = (given) => (typeof given === "string" ? given.slice(0, 16)
  : Object.entries(given ?? {}).map(([name, digest]) => `${name} ${String(digest).slice(0, 8)}`).join(", "));

/** Who answers: the model's own facts, and how it did on genes that it had not seen. */
export function modelCard(model) {
  const facts = [
    ["Name", `${model.name} ${model.version}`],
    ["Standing", model.standing || model.alias],
    ["Base model", model.base_model],
    ["Reference", model.variants ? `${model.variants.fasta}, ${model.variants.annotation}` : "none on this server"],
    ["Digest", (model.digest ?? "").slice(0, 16)],
    ["Trained on data", digests(model.data_hash)],
  ].filter(([, value]) => value);
  const parts = [make("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]))];
  const hasModel = Object.keys(model.ways ?? {}).length > 0;
  const metrics = model.held_out?.metrics;
  const names = metrics ? CARD.filter((name) => name in metrics.meta) : [];
  if (names.length) {
    const value = (who, name) => (typeof metrics[who][name] === "number" ? metrics[who][name].toFixed(4) : "");
    parts.push(make("h3", {}, "On genes that it had not seen"),
      make("table", { id: "held-out" }, make("thead", {}, make("tr", {}, ...["", "Base", "Meta"].map((text) => make("th", { scope: "col", class: text ? "number" : null }, text)))),
        make("tbody", {}, ...names.map((name) => make("tr", {}, make("th", { scope: "row" }, METRICS[name]),
          make("td", { class: "number" }, value("base", name)), make("td", { class: "number" }, value("meta", name)))))));
  } else if (hasModel) parts.push(make("p", { class: "quiet" }, "This model carries no figures of genes that it had not seen."));
  if (!hasModel) parts.push(make("p", { class: "quiet" }, "There is no meta model here: what is shown are scores of the base model alone."));
  return parts;
}
