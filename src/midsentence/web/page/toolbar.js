// Above the map: colours and their legend, the view, density, bookmarks, what can be saved.

import { attempt, BEHIND, say } from "./api.js";
import { by, el, whole } from "./dom.js";
import { picture } from "./picture.js";
import { onTheme, ramp } from "./colour.js";
import { coloured, corpus, places } from "./corpus.js";
import { contours } from "./density.js";
import { clear, only, saveRows, selection } from "./selection.js";
import { bookmarks, keepBookmarks, hash, link, on, restore, set, state, tell } from "./state.js";

let map, shown = null;
export const lassoing = () => by("lasso").getAttribute("aria-pressed") === "true";

export function fillColours(model) {
  const some = (label, values) => values.length
    ? el("optgroup", { label }, ...values.map((d) => el("option", { value: `z${d}` }, `dimension ${d}`))) : null;
  const option = (value, text) => el("option", { value }, text);
  const active = model.active ?? [];
  const others = Array.from({ length: model.latent }, (_, d) => d).filter((d) => !active.includes(d));
  by("colour").replaceChildren(...[
    corpus.label.some((v) => v >= 0) ? option("label", "label") : null, option("cluster", "cluster"),
    option("length", "length"), option("nll", "NLL"),
    corpus.held.some(Boolean) ? option("held", "training or file") : null,
    some("Most active", active), some("Other dimensions", others),
  ].filter(Boolean));
  const kinds = [...by("colour").options].map((o) => o.value);
  if (!kinds.includes(state.colour)) state.colour = kinds[0];
  by("colour").value = state.colour;
}

export async function recolour() {
  if (!corpus.count) return by("legend").replaceChildren();
  const wanted = state.colour, found = await coloured(wanted);
  if (wanted !== state.colour) return; // another was chosen meanwhile
  map.colours = found.pixels;
  map.redraw();
  shown = found;
  legend(found);
}

function legend(found) {
  const note = found.note ? el("small", {}, found.note) : null;
  const head = el("p", {}, el("strong", {}, found.title), found.unit ? ` ${found.unit} ` : " ", note);
  // Rings are drawn whatever the colours say.
  const file = map.ring ? [el("p", { class: "held" }, "from your file")] : [];
  if (!found.shown) {
    const strip = el("span", { class: "ramp" });
    const stops = Array.from({ length: 9 }, (_, i) => `rgb(${ramp(i / 8).join(" ")})`);
    strip.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    const ends = found.ends.map((end) => el("span", {}, end));
    by("legend").replaceChildren(head, strip, el("span", { class: "ends" }, ...ends), ...file);
    return;
  }
  const rows = found.shown.map(({ value, colour, count }) => {
    const dot = el("span", { class: "swatch" });
    dot.style.background = colour;
    const name = found.name(value);
    return el("button", { type: "button", title: `Select: ${whole(count)} sentences`,
      onclick: () => only(found.values, value, `${found.title.toLowerCase()} ${name}`) }, dot, el("bdi", {}, name));
  });
  const rest = found.left > 0 ? el("p", {}, `and ${found.left} more in grey`) : null;
  by("legend").replaceChildren(head, ...rows, ...(rest ? [rest] : []), ...file);
}

export async function review() {
  const [x, y] = await places(state.view);
  map.place(x, y);
  redensity();
}

function redensity() {
  by("density").setAttribute("aria-pressed", String(state.density));
  map.contours = state.density && corpus.count ? contours(...corpus.views[state.view], map.bounds()) : [];
  map.redraw();
}

export function toggle(name) {
  if (name === "density") {
    set({ density: !state.density });
    redensity();
  } else {
    by("lasso").setAttribute("aria-pressed", String(!lassoing()));
    map.canvas.classList.toggle("lassoing", lassoing());
  }
}

/** Menus open under their button, wherever the toolbar was scrolled to. */
function menu(button, box) {
  box.addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    const at = button.getBoundingClientRect();
    box.style.top = `${at.bottom + 6}px`;
    box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 8))}px`;
  });
}

function listMarks() {
  const kept = bookmarks();
  const rows = kept.map((mark, i) => el("li", {},
    el("button", { type: "button", class: "plain", onclick: () => {
      by("marks-menu").hidePopover();
      restore(mark.hash);
      tell("restored");
    } }, el("bdi", {}, mark.name)),
    el("button", { type: "button", "aria-label": `Remove ${mark.name}`, onclick: () => {
      keepBookmarks(kept.filter((_, k) => k !== i));
      listMarks();
    } }, "×")));
  by("marks-list").replaceChildren(...(rows.length ? rows : [el("li", { class: "hint" }, "None yet. They stay in this browser.")]));
}

async function copyLink() {
  const address = link();
  try {
    await navigator.clipboard.writeText(address);
    say("The link is copied. It restores this view.", { brief: true });
  } catch {
    say("The address of this page is now the link to this view.", { brief: true });
  }
}

export function start(plane) {
  map = plane;
  by("colour").addEventListener("change", () => { set({ colour: by("colour").value }); attempt(recolour); });
  by("view").addEventListener("change", () => {
    set({ view: by("view").value, x: null, y: null });
    clear();
    map.marks.here = null;
    attempt(async () => { await review(); map.fit(); tell("moved-view"); });
  });
  for (const name of ["density", "lasso"]) by(name).addEventListener("click", () => toggle(name));
  by("reset").addEventListener("click", () => map.fit());
  by("link").addEventListener("click", copyLink);
  by("help").addEventListener("click", () => by("help-box").showModal());
  menu(by("marks"), by("marks-menu"));
  menu(by("export"), by("export-menu"));
  by("marks-menu").addEventListener("toggle", listMarks);
  by("marks-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const list = [...bookmarks(), { name: by("marks-name").value, hash: hash() }];
    if (!keepBookmarks(list)) say("This browser keeps nothing for this page, so bookmarks are not possible.");
    by("marks-name").value = "";
    listMarks();
  });
  by("save-rows").addEventListener("click", () => {
    if (selection.rows?.length) saveRows();
    else say("Nothing is selected: search, draw a lasso, or press a name in the legend first.", { brief: true });
    by("export-menu").hidePopover();
  });
  by("save-png").addEventListener("click", () => { picture(map, shown); by("export-menu").hidePopover(); });
  on("nll", () => { if (state.colour === "nll") attempt(recolour, BEHIND); });
  onTheme(() => { map.retheme(); attempt(recolour, BEHIND); });
}
