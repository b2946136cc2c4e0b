// What the page shows, as one flat record: a link holds all of it, a bookmark keeps one by name.

const numbers = (text) => {
  const found = text.split(",").map(Number);
  return found.every(Number.isFinite) ? found : null;
};
const numeric = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : undefined);
const within = (low, high) => (text) => {
  const value = numeric(text);
  return value >= low && value <= high ? value : undefined;
};
const counted = (low, high) => (text) => {
  const value = within(low, high)(text);
  return Number.isInteger(value) ? value : undefined;
};
const flag = (text) => text === "1";
const string = (text) => text;

// name: [where nothing is said, how it is read from a link]
const FIELDS = {
  tab: ["point", string],
  view: ["pca", string], centre: [null, numbers], scale: [0, numeric],
  colour: ["", string], density: [false, flag], query: ["", string], lasso: [null, numbers],
  x: [null, within(-1e6, 1e6)], y: [null, within(-1e6, 1e6)],
  temperature: [1, within(0.05, 2)], seed: [0, counted(0, 2 ** 31 - 1)], count: [4, counted(1, 16)], label: ["", string],
  a: ["", string], b: ["", string], steps: [8, counted(2, 64)], way: ["density", string], step: [0, counted(0, 63)],
  c0: ["", string], c1: ["", string], c2: ["", string], c3: ["", string],
  u: [0.5, within(0, 1)], v: [0.5, within(0, 1)],
  read: ["", string], z: [null, numbers],
  direction: ["", string], strength: [0, within(-4, 4)],
  sa: ["", string], sb: ["", string], sc: ["", string],
};

const blank = () => Object.fromEntries(Object.entries(FIELDS).map(([name, [value]]) => [name, value]));

export const state = blank();
const bus = new EventTarget();

export const on = (name, heard) => bus.addEventListener(name, (event) => heard(event.detail));
export const tell = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

let saving = 0;

export function set(changes) {
  Object.assign(state, changes);
  clearTimeout(saving);
  // Browsers count how often an address is changed; dragging would be too often.
  saving = setTimeout(write, 250);
}

function write() {
  history.replaceState(null, "", `#${hash()}`);
}

export function hash() {
  const said = new URLSearchParams();
  for (const [name, [otherwise]] of Object.entries(FIELDS)) {
    const value = state[name];
    if (value === otherwise || value === null) continue;
    // The other tools find z again from what else is said; of many dimensions it would be long.
    if (name === "z" && state.tab !== "sliders") continue;
    if (Array.isArray(value)) said.set(name, value.map((v) => Number(v.toPrecision(5))).join(","));
    else if (typeof value === "boolean") said.set(name, value ? "1" : "0");
    else said.set(name, typeof value === "number" ? Number(value.toPrecision(6)) : value);
  }
  return said.toString().replaceAll("%2C", ",");
}

export function link() {
  clearTimeout(saving);
  write();
  return location.href;
}

/** Takes over what a link says; a link cut short or from elsewhere must not break the page. */
export function restore(text) {
  Object.assign(state, blank());
  for (const [name, said] of new URLSearchParams(text.replace(/^#/, ""))) {
    const value = Object.hasOwn(FIELDS, name) ? FIELDS[name][1](said) : undefined;
    if (value !== undefined && value !== null) state[name] = value;
  }
}

/** The place all tools share. text: what is written there, where that is known. */
export const here = { z: null, text: "", from: "" };

/** from: which tool moved there, so that it need not hear of it. mark: x, y if they are known. */
export function moveTo(z, text, from, mark = null) {
  Object.assign(here, { z, text, from });
  set({ z });
  tell("moved", { ...here, mark });
}

/** Of another model now: no place is meant any more. */
export function leave() {
  Object.assign(here, { z: null, text: "", from: "" });
  set({ z: null, x: null, y: null });
}

let shelf = "midsentence.bookmarks";

/** Each model's bookmarks are its own: runs are served from one address after another. */
export function shelve({ name, weights = "" }) {
  shelf = `midsentence.bookmarks ${name} ${weights}`;
}

export function bookmarks() {
  try {
    const kept = JSON.parse(localStorage.getItem(shelf) ?? "[]");
    return Array.isArray(kept) ? kept.filter((k) => typeof k?.name === "string" && typeof k?.hash === "string") : [];
  } catch {
    return []; // storage is denied, or holds something else: then there are none
  }
}

export function keepBookmarks(list) {
  try {
    localStorage.setItem(shelf, JSON.stringify(list));
    return true;
  } catch {
    return false;
  }
}
