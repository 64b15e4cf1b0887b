// The calls of the server that this page makes, and their answers as numbers.
const KEY = "metalayer-api-key";

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

/** A call that was refused: `status`, and `message` as the server says it. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, body, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(key ? { Authorization: `Bearer ${key}` } : {}), ...(body ? { "Content-Type": "application/json" } : {}) };
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it running? Try again when it does.");
  }
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let message = text;
  try {
    message = JSON.parse(text).error;
  } catch {
    // no JSON: a proxy between
  }
  throw new Refused(answer.status, message || `The server answers ${answer.status}.`);
}

/** Float32Array of base64. */
export function numbers(text) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** Scores along one strand: `start` is the 1-based place of their first, NaN where there is none. */
export class Track {
  constructor(name, kind, strand, start, values) {
    Object.assign(this, { name, kind, strand, start, values });
  }

  at(position) {
    const value = this.values[position - this.start];
    return value === undefined || Number.isNaN(value) ? null : value;
  }
}

const SITES = ["donor", "acceptor"];

/** Tracks of an answer: of each strand, system (or model and haplotype) and kind one, the highest where genes overlap. */
export function tracksOf(answer) {
  const found = new Map();
  const size = answer.end - answer.start + 1;
  const add = (name, kind, gene, encoded, wins) => {
    const id = `${name} ${kind} ${gene.strand}`;
    if (!found.has(id)) found.set(id, new Track(name, kind, gene.strand, answer.start, new Float32Array(size).fill(NaN)));
    const { values } = found.get(id);
    numbers(encoded).forEach((value, index) => {
      const at = gene.first - answer.start + index;
      if (at >= 0 && at < size && !Number.isNaN(value) && !wins(values[at], value)) values[at] = value;
    });
  };
  for (const gene of answer.genes) {
    for (const [system, scores] of Object.entries(gene.scores ?? {}))
      for (const kind of SITES) add(system, kind, gene, scores[kind], (old, value) => old >= value);
    for (const [model, theirs] of Object.entries(gene.models ?? {}))
      for (const [name, scores] of [["REF", theirs.reference], ["ALT", theirs.alternative], ["ALT - REF", theirs.change]])
        for (const kind of SITES) add(`${model} ${name}`, kind, gene, scores[kind], (old, value) => Math.abs(old) >= Math.abs(value));
  }
  return [...found.values()];
}

/** The same form of answer as /v1/view has, of what /v1/score_sequence says: of a server without a reference. */
export function sequenceAnswer(letters, rows, threshold) {
  const encoded = (name) => {
    const bytes = new Uint8Array(Float32Array.from(rows, (row) => row[name]).buffer);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  };
  const scores = Object.fromEntries(["base", "meta"].map((system) => [system, Object.fromEntries(SITES.map((kind) => [kind, encoded(`${system}_${kind}`)]))]));
  const sites = rows.flatMap((row, index) =>
    SITES.filter((kind) => Math.max(row[`base_${kind}`], row[`meta_${kind}`]) >= threshold).map((kind) => {
      const start = kind === "donor" ? index + 1 : index - 2;
      const called = ["base", "meta"].filter((system) => row[`${system}_${kind}`] >= threshold);
      return { position: index + 1, kind, annotated: false, motif: start < 0 ? "" : letters.slice(start, start + 2).toUpperCase(),
        called_by: called, base: row[`base_${kind}`], meta: row[`meta_${kind}`] };
    }));
  const gene = { gene_id: null, gene_name: null, strand: "+", start: 1, end: rows.length, first: 1, last: rows.length,
    transcripts: [], scores, sites, summary: [] };
  return { contig: "sequence", contig_length: rows.length, start: 1, end: rows.length, letters: letters.toUpperCase(), genes: [gene], threshold };
}
