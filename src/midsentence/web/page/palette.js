// Four sentences at the corners of a square; a place inside mixes them.

import { attempt, Line } from "./api.js";
import { by } from "./dom.js";
import { corpus, project } from "./corpus.js";
import { label } from "./point.js";
import { moveTo, on, set, state } from "./state.js";
import { large } from "./written.js";

const CORNERS = ["c0", "c1", "c2", "c3"];
const line = new Line();
let corners = null;

/** Bilinear: u to the right, v down. */
const weights = (u, v) => [(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v];

async function mix() {
  const found = await line.instead("v1/encode", { texts: CORNERS.map((name) => state[name]), ...label() });
  if (!found) return;
  corners = found.z;
  by("square").hidden = false;
  place();
  await write();
}

async function write() {
  if (!corners) return; // of another model, meanwhile
  const w = weights(state.u, state.v);
  const z = corners[0].map((_, d) => w.reduce((sum, share, k) => sum + share * corners[k][d], 0));
  const found = await line.newest("v1/decode", { z: [z], ...label() });
  if (!found) return;
  const [one] = found.written;
  by("palette-written").replaceChildren(large(one));
  moveTo(one.z, one.text, "palette", project(one.z));
}

function place() {
  const handle = by("handle"), across = Math.round(100 * state.u), down = Math.round(100 * state.v);
  handle.style.left = `${100 * state.u}%`;
  handle.style.top = `${100 * state.v}%`;
  handle.setAttribute("aria-valuenow", across);
  handle.setAttribute("aria-valuetext", `${across} % across, ${down} % down`);
}

function move(u, v) {
  const within = (value) => Math.round(1000 * Math.min(1, Math.max(0, value))) / 1000;
  set({ u: within(u), v: within(v) });
  place();
  attempt(write);
}

function fill() {
  CORNERS.forEach((name, k) => { by(`corner-${k}`).value = state[name]; });
}

function take() {
  set(Object.fromEntries(CORNERS.map((name, k) => [name, by(`corner-${k}`).value])));
}

/** Four that lie apart: of many drawn, each time the one farthest from those before. */
function four() {
  const drawn = Array.from({ length: 60 }, () => Math.floor(Math.random() * corpus.count));
  const [x, y] = corpus.views.pca, chosen = [drawn[0]];
  const apart = (i) => Math.min(...chosen.map((j) => Math.hypot(x[i] - x[j], y[i] - y[j])));
  while (chosen.length < 4) chosen.push(drawn.reduce((best, i) => (apart(i) > apart(best) ? i : best)));
  return chosen.map((i) => corpus.text[i]);
}

export function start() {
  fill();
  const square = by("square");
  by("palette-form").addEventListener("input", take);
  by("palette-form").addEventListener("submit", (event) => { event.preventDefault(); take(); attempt(mix); });
  by("palette-random").addEventListener("click", () => {
    if (!corpus.count) return;
    const texts = four();
    set(Object.fromEntries(CORNERS.map((name, k) => [name, texts[k]])));
    fill();
    attempt(mix);
  });
  const drag = (event) => {
    const box = square.getBoundingClientRect();
    move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  square.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    by("handle").focus();
    try { square.setPointerCapture(event.pointerId); } catch { /* gone already */ }
    square.classList.add("held");
    drag(event);
  });
  square.addEventListener("pointermove", (event) => { if (square.classList.contains("held")) drag(event); });
  for (const end of ["pointerup", "pointercancel"]) square.addEventListener(end, () => square.classList.remove("held"));
  by("handle").addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.2 : 0.05;
    const [du, dv] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (du === undefined) return;
    event.preventDefault();
    move(state.u + du * step, state.v + dv * step);
  });
  on("corpus", () => { by("palette-random").hidden = !corpus.count; });
  const clear = () => {
    line.drop();
    corners = null;
    square.hidden = true;
    by("palette-written").replaceChildren();
  };
  on("renewed", clear);
  on("relabelled", () => { if (state.tab === "palette" && corners) attempt(mix); else clear(); });
  on("restored", () => {
    fill();
    clear();
    if (state.tab === "palette" && CORNERS.every((name) => state[name])) attempt(mix);
  });
}
