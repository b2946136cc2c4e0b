// The sentences of the map: where they lie and what they can be coloured by. Fetched once each.

import { attempt, BEHIND, get } from "./api.js";
import { byCategory, byNumber } from "./colour.js";
import { state, tell } from "./state.js";

export const corpus = {
  count: 0, text: [], label: [], labelNames: [], length: [], cluster: [], held: [],
  views: {}, names: [], plane: null, why: "", nll: null, nllDone: 0,
};
const dimensions = new Map();

/** Whether it is another than before. Throws Trouble; where there is no corpus, `why` says so and the
 * tools work without. */
export async function load() {
  let told;
  try {
    told = await get("v1/map");
  } catch (error) {
    if (error.status !== 404) throw error;
    if (corpus.why === error.message) return false;
    corpus.why = error.message;
    tell("corpus");
    return true;
  }
  const [x, y] = corpus.views.pca ?? [[], []], last = told.count - 1;
  if (told.count === corpus.count && told.x[0] === x[0] && told.y[0] === y[0] && told.x[last] === x[last]) return false;
  Object.assign(corpus, {
    count: told.count, text: told.text, label: told.label, labelNames: told.label_names ?? [],
    length: told.length, cluster: told.cluster, held: told.held, names: told.views, plane: told.plane ?? null,
    views: { pca: [told.x, told.y] }, why: "", nll: null, nllDone: 0, folded: null, rows: null,
  });
  dimensions.clear();
  tell("corpus");
  return true;
}

export async function places(name) {
  if (!corpus.views[name]) {
    const told = await get(`v1/map/view/${encodeURIComponent(name)}`);
    corpus.views[name] = [told.x, told.y];
  }
  return corpus.views[name];
}

/** Where z is in PCA's plane, if the service has said how that lies; else null. */
export function project(z) {
  if (!corpus.plane || state.view !== "pca") return null;
  const { centre, x, y } = corpus.plane;
  const along = (axis) => z.reduce((sum, v, d) => sum + (v - centre[d]) * axis[d], 0);
  return [along(x), along(y)];
}

/** The first row with this sentence, or -1. */
export function row(text) {
  if (!corpus.rows) {
    corpus.rows = new Map();
    for (let i = corpus.count - 1; i >= 0; i--) corpus.rows.set(corpus.text[i], i);
  }
  return corpus.rows.get(text) ?? -1;
}

export function search(query) {
  corpus.folded ??= corpus.text.map((text) => text.toLowerCase());
  const wanted = query.toLowerCase(), rows = [];
  for (let i = 0; i < corpus.count; i++) if (corpus.folded[i].includes(wanted)) rows.push(i);
  return rows;
}

let polling = 0; // the timer, if it runs

async function pollNll() {
  polling = 0;
  const told = await get("v1/map/nll");
  const fresh = told.done > corpus.nllDone || corpus.nll === null;
  corpus.nll = told.values;
  corpus.nllDone = told.done;
  clearTimeout(polling);
  polling = told.done < 1 ? setTimeout(() => attempt(pollNll, BEHIND), 2000) : 0;
  if (fresh) tell("nll");
}

async function dimension(d) {
  if (!dimensions.has(d)) dimensions.set(d, (await get(`v1/map/dimension/${d}`)).values);
  return dimensions.get(d);
}

const numeric = (values) => Float32Array.from(values, (v) => (v === null ? Number.NaN : v));

/** Pixels for the points and what the legend says of them. */
export async function coloured(by) {
  const number = (values, title, unit, note = "") => ({ ...byNumber(numeric(values)), title, unit, note });
  if (by === "label") {
    return { ...byCategory(corpus.label), values: corpus.label, title: "Label", name: (v) => corpus.labelNames[v] ?? String(v) };
  }
  if (by === "cluster") {
    return { ...byCategory(corpus.cluster), values: corpus.cluster, title: "Cluster (k-means)", name: (v) => `${v + 1}` };
  }
  if (by === "held") {
    return { ...byCategory(corpus.held), values: corpus.held, title: "Where from", name: (v) => (v ? "your file" : "training") };
  }
  if (by === "nll") {
    if (corpus.nll === null || (corpus.nllDone < 1 && !polling)) await pollNll();
    const share = Math.floor(100 * corpus.nllDone);
    return number(corpus.nll, "NLL", "nats a token", share < 100 ? `${share} % measured` : "");
  }
  if (by.startsWith("z")) return number(await dimension(Number(by.slice(1))), `Dimension ${by.slice(1)}`, "");
  return number(corpus.length, "Length", "tokens");
}
