// The tracks, drawn by igv.js on a reference of one stretch of one contig.
import igv from "./igv.esm.min.js";

export const COLOURS = { donor: "#0b5cad", acceptor: "#c2701c", quiet: "#57606a", line: "#8c959f", gone: "#b42318", come: "#1a7f37" };
const SHOWN = 0.0005; // smaller bars are less than a pixel high
const MARGIN = 0.02;

/** What igv.js reads of a track: bins of a pixel and their largest value, for a lone site must not fade by a mean. */
class Bins {
  constructor(track, chr) {
    Object.assign(this, { track, chr });
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
      if (Math.abs(best) >= SHOWN) found.push({ chr: this.chr, start: origin + bin * size, end: origin + (bin + 1) * size, value: best });
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
    name: gene.transcripts.length > 1 ? one.name : name,
    strand: gene.strand,
    exons: one.exons.map(([start, end]) => ({ start: start - 1, end })),
    ...(one.coding ? { cdStart: one.coding[0] - 1, cdEnd: one.coding[1] } : {}),
    color: one.principal ? COLOURS.quiet : COLOURS.line,
  }));
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
    featureSource: new Bins(track, chr),
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
  return features(`${system} calls`, 16, list, { featureHeight: 10 });
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
  return features(name, 34, list);
}

export class Tracks {
  constructor(place) {
    this.place = place;
    this.selected = null;
    this.line = document.createElement("div");
    this.line.className = "chosen";
    this.line.hidden = true;
  }

  /** Draw an answer; `moved` hears of each change of the locus, `chosen` of a click on a base. */
  async show(answer, tracks, { locus, moved, chosen, hovered }) {
    if (this.browser) igv.removeBrowser(this.browser);
    const host = document.createElement("div");
    this.place.replaceChildren(host, this.line);
    const chr = (this.chr = safe(answer.contig));
    this.answer = answer;
    const strands = [...new Set(tracks.map((one) => one.strand))];
    const list = [];
    if (answer.genes.some((gene) => gene.transcripts.length)) {
      const drawn = answer.genes.flatMap((gene) => annotationOf(gene, chr)).sort((one, other) => one.start - other.start);
      list.push(features("annotation", Math.min(34 + 14 * (drawn.length > 1 ? Math.min(drawn.length, 6) : 0), 118), drawn,
        { displayMode: drawn.length > 1 ? "SQUISHED" : "EXPANDED" }));
    }
    const gaps = missing(tracks);
    if (gaps.length) list.push(features("no score", 14, gaps.map(([start, end]) => ({ chr, start: start - 1, end, name: "", color: "#d0d7de" })), { featureHeight: 8 }));
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
    this.browser = await igv.createBrowser(host, {
      reference: { id: "here", name: "here", fastaURL: fasta(answer), wholeGenomeView: false },
      locus: locus ? `${chr}:${locus[0]}-${locus[1]}` : this.whole(),
      tracks: list.map((config, index) => ({ ...config, order: index + 1 })),
      loadDefaultGenomes: false,
      showNavigation: false,
      showIdeogram: false,
      showGearColumn: false,
      showTrackDragHandles: false,
      showSampleNames: false,
      minimumBases: 20,
    });
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

  svg() {
    return this.browser.toSVG();
  }
}
