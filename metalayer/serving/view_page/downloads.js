// Files of what is shown. Numbers are those of the answer, float32 as they are.
import { sitesOf } from "./panels.js";

export function save(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const clean = (text) => String(text).replaceAll(/[\t\r\n]/g, " ");
const digits = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(9)).toString());

/** Every base with its scores; a base without a score has an empty field. */
export function tsv(answer, tracks) {
  const strands = [...new Set(tracks.map((one) => one.strand))];
  const columns = [...new Set(tracks.map((one) => `${one.name} ${one.kind}`))];
  const lines = [["contig", "position", "strand", "letter", ...columns.map((one) => one.replaceAll(/[^\w]+/g, "_"))].join("\t")];
  for (const strand of strands) {
    const mine = columns.map((column) => tracks.find((one) => one.strand === strand && `${one.name} ${one.kind}` === column));
    for (let position = answer.start; position <= answer.end; position++) {
      const values = mine.map((track) => digits(track?.at(position)));
      if (values.some(Boolean)) lines.push([clean(answer.contig), position, strand, answer.letters[position - answer.start], ...values].join("\t"));
    }
  }
  return `${lines.join("\n")}\n`;
}

const RGB = { donor: "0,92,175", acceptor: "196,78,0" };

/** Called sites as `metalayer export --bed` has them: each at its own base, BED9 and four columns more. */
export function bed(answer) {
  const lines = sitesOf(answer).filter((site) => site.called_by.length).map((site) => {
    const best = Math.max(...site.called_by.map((system) => site[system]));
    const shown = ["base", "meta"].map((system) => (system in site ? digits(site[system]) : "."));
    const place = [site.position - 1, site.position];
    return [clean(answer.contig), ...place, site.kind, Math.round(1000 * best), site.strand, ...place, RGB[site.kind], ...shown,
      site.called_by.join(","), clean(site.gene.gene_id ?? ".")].join("\t");
  });
  return lines.length ? `${lines.join("\n")}\n` : "";
}

/** An SVG drawing as PNG, twice as dense. */
export function png(text) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [2 * image.width, 2 * image.height];
      const drawing = canvas.getContext("2d");
      drawing.fillStyle = "#fff";
      drawing.fillRect(0, 0, canvas.width, canvas.height);
      drawing.drawImage(image, 0, 0, canvas.width, canvas.height);
      URL.revokeObjectURL(url);
      canvas.toBlob(resolve, "image/png");
    };
    image.onerror = () => reject(new Error("the drawing cannot be made a PNG here; take SVG"));
    image.src = url;
  });
}
