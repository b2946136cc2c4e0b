// Click anywhere: what is written there, samples of it, and the real sentences around.

import { attempt, Line } from "./api.js";
import { bounded, by, el, number } from "./dom.js";
import { corpus } from "./corpus.js";
import { moveTo, on, set, state, tell } from "./state.js";
import { item, large, neighbours } from "./written.js";

const line = new Line();

/** What all tools send along that write. */
export const label = () => (state.label ? { label: state.label } : {});

let found = null;

/** First what is written there, at once; then the samples, which take longer. */
async function ask() {
  const { x, y, view } = state;
  const told = await line.instead("v1/map/point", { x, y, view, n: 0, seed: state.seed, ...label() });
  if (!told || x !== state.x || y !== state.y || view !== state.view) return;
  found = told;
  by("point-hint").hidden = true;
  by("point-written").replaceChildren(large(found.written));
  by("point-near").replaceChildren(...neighbours(found.neighbours));
  // A link to another tool brings its own place.
  if (state.tab === "point") moveTo(found.z, found.written.text, "point", [x, y]);
  await sample((...sent) => line.instead(...sent));
}

async function sample(send) {
  if (!found) return;
  const { z, written } = found;
  const told = await send("v1/decode", {
    z: Array(state.count).fill(z), seed: state.seed, how: { temperature: state.temperature }, ...label(),
  });
  if (!told || written !== found?.written) return;
  by("point-samples").replaceChildren(
    el("h2", {}, "Samples here ", el("small", {}, "words that differ are underlined")),
    el("ol", { class: "sentences" }, ...told.written.map((one) => item(one, written.text))));
}

export function decodeAt(x, y) {
  set({ x, y });
  tell("at", [x, y]);
  return attempt(ask);
}

function fill() {
  for (const name of ["temperature", "seed", "count"]) by(name).value = state[name];
  document.querySelector("output[for=temperature]").value = number(state.temperature);
}

export function start() {
  const changed = () => {
    set({ temperature: Number(by("temperature").value), seed: bounded(by("seed"), state.seed),
      count: bounded(by("count"), state.count) });
    document.querySelector("output[for=temperature]").value = number(state.temperature);
    attempt(() => sample((...sent) => line.newest(...sent)));
  };
  by("point-how").addEventListener("input", changed);
  by("point-how").addEventListener("submit", (event) => event.preventDefault());
  by("again").addEventListener("click", () => { by("seed").value = (state.seed + 1) % 2 ** 31; changed(); });
  on("relabelled", () => { if (found && state.x !== null) attempt(ask); });
  const clear = () => {
    line.drop();
    found = null;
    by("point-hint").hidden = false;
    for (const name of ["written", "samples", "near"]) by(`point-${name}`).replaceChildren();
    tell("at", null);
  };
  on("renewed", clear);
  on("restored", () => {
    fill();
    if (state.x !== null && state.y !== null && corpus.count) decodeAt(state.x, state.y);
    else clear();
  });
  fill();
}
