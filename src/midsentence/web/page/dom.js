// Building the page. Data comes in as text nodes and attributes only: nothing parses it as HTML.

export const by = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** A sentence of the data: its own writing direction, and overrides in it end with it. */
export function quote(text, className = "quote") {
  if (!text.trim()) return el("bdi", { class: `${className} none` }, "(an empty sentence)");
  return el("bdi", { class: className, dir: "auto" }, text);
}

export const number = (value, digits = 2) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits);

export const whole = (value) => value.toLocaleString("en");

/** What a number field says, within its own bounds; a half-typed one counts as `otherwise`. */
export function bounded(field, otherwise) {
  const value = Number(field.value);
  if (field.value === "" || !Number.isFinite(value)) return otherwise;
  return Math.min(Number(field.max), Math.max(Number(field.min), Math.round(value)));
}

export function save(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
