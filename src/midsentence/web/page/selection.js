// The points that are chosen, by search, lasso or a colour of the legend: the last of these counts.

import { by, el, quote, save, whole } from "./dom.js";
import { corpus, search } from "./corpus.js";
import { inside } from "./grid.js";
import { set, state, tell } from "./state.js";
import { uses } from "./written.js";

const SHOWN = 200; // sentences in the list; all of them are lit, counted and saved

export const selection = { rows: null, why: "" };

let map;

function choose(rows, why) {
  Object.assign(selection, { rows, why });
  if (rows) {
    map.lit = new Uint8Array(corpus.count);
    for (const i of rows) map.lit[i] = 1;
  } else map.lit = null;
  map.redraw();
  show();
  tell("chosen");
}

function show() {
  const { rows, why } = selection;
  by("chosen-do").hidden = !rows?.length;
  by("tab-chosen").classList.toggle("some", rows !== null);
  const list = by("chosen-list");
  if (!rows) {
    by("chosen-about").textContent = "Nothing is selected. Search for words, draw a lasso around points, "
      + "or press a name in the legend.";
    list.replaceChildren();
    return;
  }
  const more = rows.length > SHOWN ? ` The first ${SHOWN} are listed.` : "";
  by("chosen-about").textContent = `${whole(rows.length)} of ${whole(corpus.count)} sentences: ${why}.${more}`;
  list.replaceChildren(...rows.slice(0, SHOWN).map((i) => el("li", {},
    el("button", { type: "button", class: "plain", title: "Go there", onclick: () => tell("go", i) }, quote(corpus.text[i])),
    uses(corpus.text[i]))));
}

export function find(query) {
  set({ query, lasso: null });
  map.lasso = null;
  if (!corpus.count || query.trim() === "") choose(null, "");
  else choose(search(query), `“${query.length > 40 ? `${query.slice(0, 40)}…` : query}” is in them`);
}

export function surround(polygon) {
  // A hand gives hundreds of corners; a link has room for some.
  const step = Math.max(1, Math.ceil(polygon.length / 2 / 60));
  const thin = polygon.filter((_, k) => Math.floor(k / 2) % step === 0);
  set({ lasso: thin, query: "" });
  by("search").value = "";
  map.lasso = thin;
  choose(corpus.count ? inside(map.x, map.y, thin) : null, "inside the lasso");
}

export function only(values, value, name) {
  set({ lasso: null, query: "" });
  by("search").value = "";
  map.lasso = null;
  const rows = [];
  for (let i = 0; i < corpus.count; i++) if (values[i] === value) rows.push(i);
  choose(rows, name);
}

export function clear() {
  by("search").value = "";
  find("");
}

export function saveRows() {
  const rows = selection.rows ?? [];
  const lines = rows.map((i) => JSON.stringify({
    row: i, text: corpus.text[i], label: corpus.labelNames[corpus.label[i]] ?? null, tokens: corpus.length[i],
    cluster: corpus.cluster[i], held: Boolean(corpus.held[i]), view: state.view,
    x: Number(map.x[i].toPrecision(6)), y: Number(map.y[i].toPrecision(6)),
    ...(corpus.nll ? { nll: corpus.nll[i] ?? null } : {}), // it is asked for only to colour the map
  }));
  save("selection.jsonl", lines.map((line) => `${line}\n`).join(""), "application/x-ndjson");
}

/** Once the points are where a link, or another model, has them. */
export function again() {
  by("search").value = state.query;
  if (state.lasso?.length >= 6) surround(state.lasso);
  else find(state.query);
}

export function start(plane) {
  map = plane;
  let typing = 0;
  by("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => find(by("search").value), 120);
  });
  by("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && by("search").value) {
      clearTimeout(typing);
      find(by("search").value);
      tell("tab", "chosen");
    }
  });
  by("chosen-clear").addEventListener("click", clear);
  by("chosen-save").addEventListener("click", saveRows);
}
