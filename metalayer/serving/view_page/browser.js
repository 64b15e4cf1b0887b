// The tracks, drawn by igv.js on a reference of one stretch of one contig.
import igv from "./igv.esm.min.js";

export const COLOURS = { donor: "#0b5cad", acceptor: "#c2701c", quiet: "#57606a", line: "#8c959f", gone: "#b42318", come: "#1a7f37" };
const LETTERS = { A: "#00744f", C: "#0b5cad", G: "#9a5413", T: "#8e1b5e", N: "#57606a" };
const LETTERS_SMALL = Object.fromEntries(Object.entries(LETTERS).map(([letter, colour]) => [letter.toLowerCase(), colour]));
const SHOWN = 0.0005; // smaller bars are less than a pixel high
const WIDE = 0.05; // bars of a site are two pixels wide where a base is less than one
const MARGIN = 0.02;
const NAMES = 130;

/** What igv.js reads of a track: bins of a pixel and their largest value, for a lone site must not fade by a mean. */
class Bins {
  constructor(track, chr, least) {
    Object.assign(this, { track, chr, least });
  }

  async getFeatures({ start, end, bpPerPixel }) {
    const { values, start: first } = this.track;
    const size = Math.max(1, bpPerPixel);
    const origin = Math.floor(start);
    const low = Math.max(origin, first - 1);
    const high = Math.min(Math.ceil(end), first - 1 + values.length);
    const found = [];
    for (let bin = Math.floor((low - origin) / size); origin + bin * size < high; bin++) {
      const from = Math.max(low, Math.ceil(origin + bin * size));
      const to = Math.min(high, Math.ceil(origin + (bin + 1) * size));
      let best = NaN;
      for (let at = from; at < to; at++) {
        const value = values[at - first + 1];
        if (!Number.isNaN(value) && !(Math.abs(best) >= Math.abs(value))) best = value;
      }
      const wide = bpPerPixel > 1 && Math.abs(best) >= WIDE ? 2 : 1;
      if (Math.abs(best) >= this.least) found.push({ chr: this.chr, start: origin + bin * size, end: origin + (bin + wide) * size, value: best });
    }
    return found;
  }

  supportsWholeGenome() {
    return false;
  }
}

const safe = (name) => (/^[\w.]+$/.test(name) ? name : "contig");

function fasta(answer) {
  const text = `>${safe(answer.contig)}:${answer.start}-${answer.end} @len=${answer.contig_length}\n${answer.letters}\n`;
  return `data:application/octet-stream;base64,${btoa(text)}`;
}

function annotationOf(gene, chr) {
  const name = gene.gene_name || gene.gene_id || "";
  return gene.transcripts.map((one) => ({
    chr,
    start: one.exons[0][0] - 1,
    end: one.exons.at(-1)[1],
    name: one.principal ? name : one.name,
    principal: one.principal,
    strand: gene.strand,
    exons: one.exons.map(([start, end]) => ({ start: start - 1, end })),
    ...(one.coding ? { cdStart: one.coding[0] - 1, cdEnd: one.coding[1] } : {}),
    color: one.principal ? COLOURS.quiet : COLOURS.line,
  }));
}

/** How many of them lie above each other at most. */
function depth(drawn) {
  const ends = [];
  for (const { start, end } of drawn) {
    const free = ends.findIndex((one) => one < start);
    ends[free < 0 ? ends.length : free] = end;
  }
  return ends.length;
}

/** Stretches without a score, 1-based with both ends, of tracks of one length. */
export function missing(tracks) {
  const found = [];
  if (!tracks.length) return found;
  const { start, values } = tracks[0];
  let from = null;
  for (let index = 0; index <= values.length; index++) {
    const has = index === values.length || tracks.some((one) => !Number.isNaN(one.values[index]));
    if (!has && from === null) from = index;
    if (has && from !== null) {
      found.push([start + from, start + index - 1]);
      from = null;
    }
  }
  return found;
}

const row = (name, height, more) => ({ name, height, removable: false, autoHeight: false, ...more });

function numeric(track, chr) {
  const signed = track.name.endsWith("ALT - REF");
  return row(label(track), 46, {
    type: "wig",
    featureSource: new Bins(track, chr, signed ? 0 : SHOWN),
    min: signed ? -1 : 0,
    max: 1,
    color: COLOURS[track.kind],
    altColor: COLOURS[track.kind],
    summarize: false,
    windowFunction: "max",
    autoscale: false,
  });
}

export const label = (track) => `${track.name} ${track.kind}`;

const features = (name, height, list, more = {}) =>
  row(name, height, { type: "annotation", features: list, displayMode: "COLLAPSED", searchable: false, ...more });

/** Called and annotated sites of a system, as ticks at their own bases. */
function sitesTrack(system, answer, chr) {
  const list = answer.genes.flatMap((gene) =>
    (gene.sites ?? []).filter((site) => site.called_by.includes(system)).map((site) => ({
      chr, start: site.position - 1, end: site.position, name: "", strand: ".", color: COLOURS[site.kind],
    })));
  list.sort((one, other) => one.start - other.start);
  return features(`${system} calls`, 24, list, { featureHeight: 10 });
}

/** Exons of one haplotype as a model's sites make them; those that the other one lacks in a colour of their own. */
function exonsTrack(name, mine, theirs, gene, chr, colour) {
  const place = (one) => [Number.parseInt(one.start, 10), Number.parseInt(one.end, 10)];
  const known = new Set(theirs.map((one) => place(one).join()));
  const list = mine.map((one) => {
    const [start, end] = place(one);
    const isOwn = !known.has(`${start},${end}`);
    return { chr, start: start - 1, end, name: one.number ? `exon ${one.number}` : "new", strand: gene.strand, color: isOwn ? colour : COLOURS.quiet };
  });
  list.sort((one, other) => one.start - other.start);
  return features(name, 46, list);
}

const ordered = (list, drawn) => list.map((config, index) => ({ ...config, order: drawn + index + 1 }));

function annotationTracks(answer, chr) {
  const list = [];
  const drawn = answer.genes.flatMap((gene) => annotationOf(gene, chr)).sort((one, other) => one.start - other.start);
  const [first, others] = [drawn.filter((one) => one.principal), drawn.filter((one) => !one.principal)];
  const deep = Math.min(3, depth(first));
  if (first.length) list.push(features("annotation", 16 + 32 * deep, first, { displayMode: deep > 1 ? "EXPANDED" : "COLLAPSED" }));
  if (others.length) list.push(features("other isoforms", 14 + 15 * Math.min(6, depth(others)), others, { displayMode: "SQUISHED" }));
  return list;
}

function scoreTracks(answer, tracks, chr) {
  const list = [];
  const gaps = missing(tracks);
  if (gaps.length) list.push(features("no score", 20, gaps.map(([start, end]) => ({ chr, start: start - 1, end, name: "", color: "#d0d7de" })), { featureHeight: 8 }));
  const strands = [...new Set(tracks.map((one) => one.strand))];
  for (const strand of strands) {
    for (const track of tracks.filter((one) => one.strand === strand)) {
      const config = numeric(track, chr);
      if (strands.length > 1) config.name += ` (${strand})`;
      list.push(config);
    }
  }
  for (const system of ["base", "meta"]) if (tracks.some((one) => one.name === system)) list.push(sitesTrack(system, answer, chr));
  for (const gene of answer.genes)
    for (const [model, theirs] of Object.entries(gene.models ?? {})) {
      const { exons_before: before, exons_after: after } = theirs.consequence;
      list.push(exonsTrack(`${model} exons REF`, before, after, gene, chr, COLOURS.gone));
      list.push(exonsTrack(`${model} exons ALT`, after, before, gene, chr, COLOURS.come));
    }
  return list;
}

export class Tracks {
  constructor(place) {
    this.place = place;
    this.selected = null;
    this.line = document.createElement("div");
    this.line.className = "chosen";
    this.line.hidden = true;
  }

  /** Draw letters and annotation; `moved` hears of each change of the locus, `chosen` of a click on a base. */
  async show(answer, { locus, moved, chosen, hovered }) {
    if (this.browser) igv.removeBrowser(this.browser);
    const host = document.createElement("div");
    this.place.replaceChildren(host, this.line);
    const chr = (this.chr = safe(answer.contig));
    this.answer = answer;
    this.selected = null;
    const list = annotationTracks(answer, chr);
    this.drawn = list.length;
    this.browser = await igv.createBrowser(host, {
      reference: { id: "here", name: "here", fastaURL: fasta(answer), wholeGenomeView: false },
      locus: locus ? `${chr}:${locus[0]}-${locus[1]}` : this.whole(),
      tracks: ordered(list, 0),
      loadDefaultGenomes: false,
      showNavigation: false,
      showIdeogram: false,
      showGearColumn: false,
      showTrackDragHandles: false,
      showSampleNames: false,
      showTrackLabels: false, // theirs lie on the data; ours beside it
      nucleotideColors: { ...LETTERS, ...LETTERS_SMALL },
      minimumBases: 20,
    });
    this.name();
    this.browser.on("locuschange", () => {
      this.mark();
      moved(this.locus());
    });
    this.browser.on("trackclick", () => false); // the page has its own words for a base, below the tracks
    const at = (event) => this.positionAt(event.clientX);
    this.place.onmousemove = (event) => hovered(at(event));
    this.place.onmouseleave = () => hovered(null);
    let pressed = null;
    this.place.onmousedown = (event) => (pressed = event.clientX);
    this.place.onclick = (event) => {
      if (pressed !== null && Math.abs(event.clientX - pressed) < 4 && at(event) !== null) chosen(at(event));
    };
    this.mark();
  }

  /** Add the scores of an answer about what is shown. */
  async add(answer, tracks) {
    this.answer = answer;
    await this.browser.loadTrackList(ordered(scoreTracks(answer, tracks, this.chr), this.drawn));
    this.name();
  }

  /** Tracks with their names, and where each lies below the top of the tracks, in pixels. */
  rows() {
    const top = this.place.getBoundingClientRect().top;
    return this.browser.trackViews.filter((view) => view.track.order >= 1 && view.track.name).map((view) => {
      const box = view.viewports[0].viewportElement.getBoundingClientRect();
      return { name: view.track.name, top: box.top - top, height: box.height };
    });
  }

  /** Names beside the tracks. */
  name() {
    for (const old of this.place.querySelectorAll(".name")) old.remove();
    for (const { name, top, height } of this.rows()) {
      const made = document.createElement("div");
      made.className = "name";
      made.textContent = name;
      made.style.top = `${top}px`;
      made.style.height = `${height}px`;
      this.place.append(made);
    }
  }

  whole() {
    const margin = Math.round((this.answer.end - this.answer.start + 1) * MARGIN);
    return `${this.chr}:${Math.max(1, this.answer.start - margin)}-${Math.min(this.answer.contig_length, this.answer.end + margin)}`;
  }

  frame() {
    return this.browser?.referenceFrameList?.[0];
  }

  viewport() {
    return this.browser?.root?.querySelector(".igv-viewport");
  }

  positionAt(x) {
    const frame = this.frame();
    const box = this.viewport()?.getBoundingClientRect();
    if (!frame || !box || x < box.left || x > box.right) return null;
    const position = Math.floor(frame.start + (x - box.left) * frame.bpPerPixel) + 1;
    return position >= 1 && position <= this.answer.contig_length ? position : null;
  }

  locus() {
    const frame = this.frame();
    const width = this.viewport()?.getBoundingClientRect().width ?? 0;
    return [Math.max(1, Math.floor(frame.start) + 1), Math.min(this.answer.contig_length, Math.round(frame.start + width * frame.bpPerPixel))];
  }

  go(text) {
    return this.browser?.search(text);
  }

  zoom(factor) {
    const [start, end] = this.locus();
    const centre = this.selected ?? (start + end) / 2;
    const half = Math.max(10, ((end - start) * factor) / 2);
    return this.go(`${this.chr}:${Math.max(1, Math.round(centre - half))}-${Math.min(this.answer.contig_length, Math.round(centre + half))}`);
  }

  /** Mark a base, and bring it into the view; with `near` so near that letters can be read. */
  async choose(position, near = false) {
    this.selected = position;
    const [start, end] = this.locus();
    if (position !== null && (near || position < start || position > end)) {
      const half = near ? 40 : Math.max(20, Math.round((end - start) / 2));
      await this.go(`${this.chr}:${Math.max(1, position - half)}-${Math.min(this.answer.contig_length, position + half)}`);
    }
    this.mark();
  }

  mark() {
    const frame = this.frame();
    const box = this.viewport()?.getBoundingClientRect();
    const here = this.place.getBoundingClientRect();
    const x = frame && box && this.selected !== null ? box.left - here.left + (this.selected - 0.5 - frame.start) / frame.bpPerPixel : -1;
    this.line.hidden = !box || x < box.left - here.left || x > box.right - here.left;
    this.line.style.left = `${x}px`;
  }

  /** The drawing as SVG text, with the names of the tracks to its left. */
  svg() {
    const drawing = new DOMParser().parseFromString(this.browser.toSVG(), "image/svg+xml").documentElement;
    const [left, top, width, height] = drawing.getAttribute("viewBox").split(/[ ,]+/).map(Number);
    const offset = this.browser.columnContainer.getBoundingClientRect().top - this.place.getBoundingClientRect().top;
    drawing.setAttribute("viewBox", `${left - NAMES} ${top} ${width + NAMES} ${height}`);
    drawing.setAttribute("width", width + NAMES);
    drawing.setAttribute("height", height);
    for (const row of this.rows()) {
      const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
      for (const [key, value] of Object.entries({ x: left - NAMES + 8, y: row.top - offset + row.height / 2 + 4, "font-size": 12, "font-family": "sans-serif", fill: "#1f2328" })) text.setAttribute(key, value);
      text.textContent = row.name;
      drawing.append(text);
    }
    return new XMLSerializer().serializeToString(drawing);
  }
}
