// A to B: the sentences on the way, and how likely each of them is.

import { attempt, Line } from "./api.js";
import { bounded, by, el, number } from "./dom.js";
import { lines } from "./chart.js";
import { corpus, project } from "./corpus.js";
import { label } from "./point.js";
import { moveTo, on, set, state, tell } from "./state.js";
import { item, large } from "./written.js";

const line = new Line();
let written = [], nll = [];

async function go() {
  const asked = { a: state.a, b: state.b, steps: state.steps, path: state.way, ...label() };
  const found = await line.instead("v1/interpolate", asked);
  if (!found) return;
  [written, nll] = [found.written, []];
  by("path-found").hidden = false;
  by("path-slider").max = written.length - 1;
  by("path-list").replaceChildren(...written.map((one, i) => {
    const row = item(one, i ? written[i - 1].text : null);
    row.addEventListener("click", (event) => { if (!event.target.closest("button")) choose(i); });
    return row;
  }));
  tell("way", written.map((one) => project(one.z)).filter(Boolean));
  choose(Math.min(state.step, written.length - 1));
  // The likelihoods take longer than the sentences: those are there to be read meanwhile.
  const measured = await line.instead("v1/interpolate", { ...asked, nll: true });
  if (!measured) return;
  nll = measured.nll ?? [];
  show(state.step);
}

function chart() {
  const points = nll.map((value, i) => [i, value ?? Number.NaN]);
  lines(by("path-chart"), [{ name: "NLL", points }],
    { title: "NLL along the way", unit: "nats a token", along: "step", at: state.step, pick: choose,
      none: nll.length ? "Not available: these sentences have no likelihood here." : "Nothing yet." });
}

/** A step, with its likelihood where that is there by now. */
function show(i) {
  const known = Number.isFinite(nll[i]) ? el("p", { class: "near" }, `${number(nll[i])} nats a token`) : null;
  by("path-here").replaceChildren(large(written[i], i ? written[i - 1].text : null), ...(known ? [known] : []));
  chart();
}

function choose(i) {
  set({ step: i });
  by("path-slider").value = i;
  by("path-slider").setAttribute("aria-valuetext", `step ${i} of ${written.length - 1}: ${written[i].text}`);
  show(i);
  for (const [k, row] of [...by("path-list").children].entries()) row.classList.toggle("now", k === i);
  moveTo(written[i].z, written[i].text, "path", project(written[i].z));
}

function take() {
  set({ a: by("path-a").value, b: by("path-b").value, way: by("path-way").value,
    steps: bounded(by("path-steps"), state.steps) });
}

function fill() {
  by("path-a").value = state.a;
  by("path-b").value = state.b;
  by("path-steps").value = state.steps;
  // A link may name a way that there is not, or that wants a corpus.
  if (by("path-way").querySelector("[value=density]").disabled && state.way === "density") set({ way: "linear" });
  by("path-way").value = state.way;
  if (!by("path-way").value) { by("path-way").value = "density"; take(); }
}

export function start() {
  fill();
  by("path-form").addEventListener("submit", (event) => {
    event.preventDefault();
    take();
    set({ step: 0 });
    attempt(go);
  });
  by("path-form").addEventListener("input", take);
  by("path-swap").addEventListener("click", () => {
    set({ a: state.b, b: state.a, step: 0 });
    fill();
    if (state.a && state.b) attempt(go);
  });
  by("path-slider").addEventListener("input", () => choose(Number(by("path-slider").value)));
  const clear = () => {
    line.drop();
    by("path-found").hidden = true;
    tell("way", []);
  };
  on("renewed", clear);
  on("relabelled", () => { if (state.tab === "path" && !by("path-found").hidden) attempt(go); else clear(); });
  on("corpus", () => {
    by("path-way").querySelector("[value=density]").disabled = !corpus.count;
    fill();
  });
  on("restored", () => {
    fill();
    clear();
    if (state.tab === "path" && state.a && state.b) attempt(go);
  });
}
