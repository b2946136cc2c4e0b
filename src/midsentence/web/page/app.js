// Brings the parts together: begins, switches tools, and passes from one to another what they share.

import { attempt, BEHIND, get, say } from "./api.js";
import { by, el, quote, whole } from "./dom.js";
import { corpus, load } from "./corpus.js";
import { follow } from "./gestures.js";
import { PlaneMap } from "./map.js";
import * as palette from "./palette.js";
import * as path from "./path.js";
import * as point from "./point.js";
import * as read from "./read.js";
import * as selection from "./selection.js";
import * as sliders from "./sliders.js";
import { leave, on, restore, set, shelve, state, tell } from "./state.js";
import * as toolbar from "./toolbar.js";
import * as watch from "./watch.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const open = () => tabs.filter((tab) => !tab.hidden);
let map, picking = null, linked = false, framed = false, way = [];

function show(name, focus = false) {
  const wanted = open().find((tab) => tab.id === `tab-${name}`) ?? tabs[0];
  for (const tab of tabs) {
    const on = tab === wanted;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    by(tab.getAttribute("aria-controls")).hidden = !on;
  }
  if (focus) wanted.focus();
  set({ tab: wanted.getAttribute("aria-controls") });
  if (map) showWay();
}

function showWay() {
  map.marks.way = state.tab === "path" ? way : [];
  map.redraw();
}

function startTabs() {
  for (const tab of tabs) {
    tab.addEventListener("click", () => show(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      const all = open(), at = all.indexOf(tab);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = all[(to + all.length) % all.length];
      show(next.getAttribute("aria-controls"), true);
      next.click();
    });
  }
  on("tab", show);
}

function pick(field) {
  picking = field;
  map?.canvas.classList.toggle("picking", field !== null);
  for (const button of document.querySelectorAll("[data-pick]")) {
    button.setAttribute("aria-pressed", String(button.dataset.pick === field));
  }
  say(field ? "Click a point on the map to take its sentence, or Escape to leave it." : "");
}

function give(field, text) {
  by(field).value = text;
  by(field).dispatchEvent(new Event("input", { bubbles: true }));
}

function startSharing() {
  for (const button of document.querySelectorAll("[data-pick]")) {
    button.addEventListener("click", () => pick(picking === button.dataset.pick ? null : button.dataset.pick));
  }
  on("use", ({ to, text }) => {
    show(to === "read" ? "read" : "path");
    if (to === "read") {
      by("read-text").value = text;
      by("read-form").requestSubmit();
    } else {
      give(to, text);
      if (state.a && state.b) by("path-form").requestSubmit();
    }
  });
  on("go", (i) => {
    map.look([map.x[i], map.y[i]], Math.max(map.scale, map.fitted() * 3));
    show("point");
    point.decodeAt(map.x[i], map.y[i]);
  });
}

function hover(px, py = 0) {
  const box = by("hover"), i = px === null || px === undefined ? -1 : map.nearest(px, py);
  const spot = i < 0 ? null : [map.x[i], map.y[i]];
  if (String(spot) !== String(map.marks.hover)) { map.marks.hover = spot; map.redraw(); }
  box.setAttribute("aria-live", map.crosshair ? "polite" : "off"); // under a mouse it would never end
  box.hidden = i < 0;
  if (i < 0) return;
  const facts = [corpus.labelNames[corpus.label[i]], `${corpus.length[i]} tokens`, `cluster ${corpus.cluster[i] + 1}`,
    Number.isFinite(corpus.nll?.[i]) ? `${corpus.nll[i].toFixed(2)} nats a token` : null, corpus.held[i] ? "from your file" : null];
  const text = corpus.text[i];
  box.replaceChildren(quote(text.length > 280 ? `${text.slice(0, 280)}…` : text),
    el("small", {}, el("bdi", {}, facts.filter(Boolean).join(" · "))));
  const [x, y] = map.toPage(...spot);
  const left = Math.max(6, Math.min(x + 14, map.wide - box.offsetWidth - 6));
  const top = y + 16 + box.offsetHeight > map.high ? y - 12 - box.offsetHeight : y + 14;
  box.style.transform = `translate(${Math.round(left)}px, ${Math.round(Math.max(4, top))}px)`;
}

function click(x, y, i) {
  if (!corpus.count) return;
  if (picking) {
    const row = i >= 0 ? i : map.nearest(...map.toPage(x, y), 60);
    if (row < 0) return say("There is no point near. Click closer to one.");
    give(picking, corpus.text[row]);
    return pick(null);
  }
  show("point");
  point.decodeAt(x, y);
}

function startMap() {
  map = new PlaneMap(by("map"));
  follow(map, { click, hover, lassoing: toolbar.lassoing, lasso(polygon) {
    toolbar.toggle("lasso");
    selection.surround(polygon);
    show("chosen");
  } });
  map.moved = () => { if (framed) set({ centre: map.centre, scale: map.scale / map.fitted() }); };
  on("at", (spot) => { map.marks.here = spot; map.redraw(); });
  on("moved", ({ mark }) => { map.marks.here = mark; map.redraw(); });
  on("way", (found) => { way = found; showWay(); });
  on("moved-view", () => { way = []; showWay(); });
  selection.start(map);
  toolbar.start(map);
}

function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || by("help-box").open) return;
    const writing = event.target.closest("input:not([type=range]), textarea, select");
    if (event.key === "Escape") {
      if (picking) pick(null);
      else if (toolbar.lassoing()) toolbar.toggle("lasso");
      else if (!document.querySelector(":popover-open")) selection.clear();
      if (writing) writing.blur();
      return;
    }
    if (writing) return;
    const does = {
      "/": () => { by("search").focus(); by("search").select(); },
      "?": () => by("help-box").showModal(),
      l: () => toolbar.toggle("lasso"), d: () => toolbar.toggle("density"), 0: () => map.fit(),
    }[event.key] ?? (/^[1-7]$/.test(event.key) && open()[event.key - 1] ? () => open()[event.key - 1].click() : null);
    if (!does) return;
    event.preventDefault();
    does();
  });
}

async function showCorpus(model) {
  by("empty").hidden = corpus.count > 0;
  for (const control of document.querySelectorAll("#toolbar input, #toolbar select, #lasso, #density, #reset, #save-png, #save-rows")) {
    control.disabled = corpus.count === 0;
  }
  for (const id of ["save-projector", "save-atlas"]) by(id).hidden = corpus.count === 0;
  if (!corpus.count) {
    const why = corpus.why ? `${corpus.why[0].toUpperCase()}${corpus.why.slice(1)}.`.replace("..", ".") : "The corpus has no sentences.";
    by("empty").replaceChildren(el("h2", {}, "No map"), el("p", {}, why),
      ...(model.latent ? [el("p", {}, "What needs no sentences around still works: a straight way from A to B or one along a sphere, "
        + "the palette, the sliders, and reading. Directions and A − B + C need them.")] : []));
    return;
  }
  map.ring = corpus.held.some(Boolean) ? Uint8Array.from(corpus.held) : null;
  map.colours = new Uint32Array(corpus.count);
  knowView();
  by("view-field").hidden = corpus.names.length < 2;
  by("view").replaceChildren(...corpus.names.map((name) => el("option", { value: name }, name.toUpperCase())));
  by("view").value = state.view;
  toolbar.fillColours(model);
  if (!linked) return; // the link says how, and comes next
  if (!framed) return followLink(model);
  await toolbar.review();
  selection.again();
  await toolbar.recolour();
}

/** Places in a view that this map doesn't have are places of no other one. */
function knowView() {
  if (!corpus.count || corpus.names.includes(state.view)) return;
  Object.assign(state, { view: "pca", x: null, y: null, centre: null, scale: 0, lasso: null });
}

function frame() {
  if (state.centre?.length === 2 && state.scale > 0) map.look(state.centre, state.scale * map.fitted());
  else map.fit();
  framed = true;
}

function describe(model) {
  shelve(model);
  document.title = `${model.name} – midsentence`;
  const none = model.weights ? "a language model" : "no model yet";
  const facts = [model.latent ? `${model.latent} dimensions` : none];
  if (model.sentences) facts.push(`${whole(model.sentences)} sentences`);
  by("about").replaceChildren(el("bdi", {}, model.name), ` · ${facts.join(" · ")}`);
  by("label-field").hidden = !model.labels?.length;
  by("label").replaceChildren(el("option", { value: "" }, "no label"),
    ...(model.labels ?? []).map((name) => el("option", { value: name }, name)));
  relabel(model);
}

function relabel(model) {
  if (!model.labels?.includes(state.label)) state.label = "";
  by("label").value = state.label;
}

/** A training goes on: its model is another by now, or there is one at last. */
async function renew(model) {
  const now = await get("v1/model");
  const other = now.weights !== model.weights, first = !model.weights;
  Object.assign(model, now);
  if (other) {
    describe(model);
    sliders.renew(model);
    if (!first) {
      leave();
      tell("renewed");
    }
  }
  const moved = await load();
  return moved && other;
}

async function begin() {
  startTools(await get("v1/model"));
}

function startTools(model) {
  describe(model);
  by("label").addEventListener("change", () => { set({ label: by("label").value }); tell("relabelled"); });
  on("restored", knowView); // before the tools ask about a place
  for (const tool of [point, path, palette, read]) tool.start();
  sliders.start(model);
  if (model.training) watch.start(() => renew(model));
  const shown = () => showCorpus(model);
  on("corpus", () => attempt(shown, BEHIND));
  on("restored", () => attempt(() => followLink(model)));
  attempt(async () => {
    await load();
    tell("restored");
  });
}

async function followLink(model) {
  linked = true;
  show(state.tab);
  relabel(model);
  if (!corpus.count) return selection.again();
  toolbar.fillColours(model);
  by("view").value = state.view;
  await toolbar.review();
  selection.again();
  frame();
  await toolbar.recolour();
}

restore(location.hash);
addEventListener("hashchange", () => {
  if (document.getElementById(location.hash.slice(1))) return; // the link to the tools, no view
  restore(location.hash);
  tell("restored");
});
startTabs();
startMap();
startSharing();
startKeys();
const { tab } = state;
show(tab);
state.tab = tab; // one that is shown only once the model is known, the training's, is come back to
attempt(begin);
