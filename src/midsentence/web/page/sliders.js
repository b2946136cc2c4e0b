// From the shared place: along its dimensions, along directions by name, and by A − B + C.

import { attempt, BEHIND, get, Line, say } from "./api.js";
import { by, el, number } from "./dom.js";
import { project } from "./corpus.js";
import { label } from "./point.js";
import { here, moveTo, on, set, state } from "./state.js";
import { large } from "./written.js";

const FEW = 12;
const write = new Line(), edit = new Line(), add = new Line();
let model, base = null, now = null, wide = false, startText = null;

// A run without its corpus doesn't know which are the most active, nor where the data is.
const dimensions = () => (model.active?.length ? model.active : Array.from({ length: model.latent }, (_, d) => d));
const shown = () => (wide ? dimensions() : dimensions().slice(0, FEW));
const middle = () => (model.loc?.length ? "the centre of the data" : "zero");
const centre = () => (model.loc?.length ? model.loc : Array(model.latent).fill(0));

/** Takes a place over as the one that is varied. */
function begin(z, text) {
  base = [...z];
  now = [...z];
  startText = text;
  place();
  by("sliders-from").textContent = text ? `From “${text.length > 120 ? `${text.slice(0, 120)}…` : text}”` : `From ${middle()}.`;
  by("sliders-written").replaceChildren();
  by("direction-written").replaceChildren();
  by("strength").value = 0;
  set({ strength: 0 });
  sayStrength();
}

function place() {
  const means = centre();
  by("sliders-list").replaceChildren(...shown().map((d) => {
    const loc = means[d], reach = 3 * (model.scale?.[d] || 1);
    const value = el("output", {}, number(now[d]));
    const slider = el("input", { type: "range", step: "any", min: Math.min(loc - reach, now[d]), max: Math.max(loc + reach, now[d]),
      "aria-label": `Dimension ${d}` });
    slider.value = now[d];
    slider.addEventListener("input", () => {
      now[d] = Number(slider.value);
      value.value = number(now[d]);
      attempt(decode);
    });
    // "any" step leaves arrow keys a hundredth of the reach in one browser and 1 in another.
    slider.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      slider.value = Number(slider.value) + (way * reach) / 20;
      slider.dispatchEvent(new Event("input"));
    });
    return el("label", { class: "dimension" }, el("span", {}, String(d)), slider, value);
  }));
}

async function decode() {
  const found = await write.newest("v1/decode", { z: [now], ...label() });
  if (!found) return;
  const [one] = found.written;
  by("sliders-written").replaceChildren(large(one, startText || null));
  moveTo(one.z, one.text, "sliders", project(one.z));
}

function sayStrength() {
  document.querySelector("output[for=strength]").value = number(state.strength, 1);
}

async function toward() {
  sayStrength();
  if (!state.direction) return;
  const asked = { text: now, direction: state.direction, strength: state.strength, ...label() };
  const found = await edit.newest("v1/edit", asked);
  if (!found) return;
  const one = found.written;
  by("direction-written").replaceChildren(large(one, here.text || null),
    el("button", { type: "button", onclick: () => moveTo(one.z, one.text, "direction", project(one.z)) }, "Go on from here"));
}

async function listDirections() {
  const { directions } = await get("v1/directions");
  by("direction-use").hidden = directions.length === 0;
  by("direction").replaceChildren(...directions.map((one) => {
    const sure = typeof one.accuracy === "number" ? ` (${Math.round(100 * one.accuracy)} % told apart)` : "";
    return el("option", { value: one.name }, `${one.name}${sure}`);
  }));
  const names = directions.map((one) => one.name);
  if (!names.includes(state.direction)) state.direction = names[0] ?? "";
  by("direction").value = state.direction;
}

async function newDirection() {
  const sentences = (id) => by(id).value.split("\n").filter((text) => text.trim());
  const found = await add.instead("v1/direction",
    { name: by("direction-name").value, from: sentences("direction-from"), to: sentences("direction-to"), method: "probe" });
  if (!found) return;
  state.direction = found.name;
  await listDirections();
  say(`The direction ${found.name} is there until the service ends.`, { brief: true });
}

async function sum() {
  // The service's words are "what is to c as b is to a", which is c + b − a.
  const found = await add.instead("v1/analogy", { a: state.sb, b: state.sa, c: state.sc, ...label() });
  if (!found) return;
  by("sum-written").replaceChildren(large(found.written, state.sc));
  moveTo(found.written.z, found.written.text, "sum", project(found.written.z));
}

const SUM = { "sum-a": "sa", "sum-b": "sb", "sum-c": "sc" };

function fill() {
  for (const [id, name] of Object.entries(SUM)) by(id).value = state[name];
  by("strength").value = state.strength;
  by("direction").value = state.direction;
  sayStrength();
}

/** Another model, with its own dimensions: the first one, or the next of a training. */
export function renew(about) {
  model = about;
  for (const one of [write, edit, add]) one.drop();
  by("sum-written").replaceChildren();
  by("sliders-title").textContent = model.active?.length ? "Most active dimensions" : "Dimensions";
  by("sliders-centre").textContent = model.loc?.length ? "Centre of the data" : "Zero";
  by("sliders-more").hidden = dimensions().length <= FEW;
  begin(centre(), "");
  if (model.latent > 0) attempt(listDirections, BEHIND);
}

export function start(about) {
  by("sliders-more").addEventListener("click", () => {
    wide = !wide;
    by("sliders-more").setAttribute("aria-expanded", String(wide));
    by("sliders-more").textContent = wide ? "Fewer dimensions" : "More dimensions";
    place();
  });
  by("sliders-back").addEventListener("click", () => { now = [...base]; place(); attempt(decode); });
  by("sliders-centre").addEventListener("click", () => { begin(centre(), ""); attempt(decode); });
  by("direction").addEventListener("change", () => { set({ direction: by("direction").value }); attempt(toward); });
  by("strength").addEventListener("input", () => { set({ strength: Number(by("strength").value) }); attempt(toward); });
  by("direction-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(newDirection); });
  by("sum-form").addEventListener("input", (event) => { if (SUM[event.target.id]) set({ [SUM[event.target.id]]: event.target.value }); });
  by("sum-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(sum); });
  on("moved", ({ z, text, from }) => { if (from !== "sliders") begin(z, text); });
  on("restored", () => {
    fill();
    if (state.tab !== "sliders" || state.z?.length !== model.latent) return;
    const { z, strength } = state;
    begin(z, "");
    by("sliders-from").textContent = "From the place in the link.";
    set({ strength });
    fill();
    attempt(async () => { await decode(); if (strength) await toward(); });
  });
  renew(about);
  fill();
}
