// What the model wrote, as every tool shows it: the sentence, how far from the data, what to do next.

import { el, number, quote } from "./dom.js";
import { marked } from "./diff.js";
import { tell } from "./state.js";

const percent = (share) => {
  const value = 100 * share;
  return value > 99 && value < 100 ? Math.min(99.9, value).toFixed(1) : value.toFixed(0);
};

/** The warning where a place is far from the data, and a quiet line where it isn't. */
export function distance(written) {
  if (typeof written.beyond !== "number") return null;
  if (written.beyond < 0.005) return el("p", { class: "near" }, "Nearer to the data than almost every held-out sentence.");
  const text = written.beyond === 1 ? "arther than every held-out sentence."
    : `arther than ${percent(written.beyond)} % of held-out sentences.`;
  if (!written.far) return el("p", { class: "near" }, `F${text}`);
  return el("p", { class: "far" }, el("span", { class: "sign", "aria-hidden": "true" }, "!"),
    el("span", {}, el("strong", {}, "Far from the data: "), `f${text} What is written here means little.`));
}

/** Small buttons that take a sentence to other tools. */
export function uses(text) {
  if (!text.trim()) return null;
  const use = (to, shown, said) =>
    el("button", { type: "button", title: said, "aria-label": said, onclick: () => tell("use", { to, text }) }, shown);
  return el("span", { class: "uses" },
    use("path-a", "A", "Use as A"), use("path-b", "B", "Use as B"), use("read", "Read", "Read this sentence"));
}

/** before: a sentence beside which the differences are marked. */
export function large(written, before = null) {
  return el("div", { class: "written" },
    before === null ? quote(written.text, "quote large") : marked(before, written.text, "quote large"),
    uses(written.text), distance(written));
}

export function item(written, before = null) {
  const said = before === null ? quote(written.text) : marked(before, written.text);
  const far = written.far
    ? el("span", { class: "tag warn", title: "Far from the data: it means little" }, "! far") : null;
  return el("li", {}, el("div", {}, said, far), uses(written.text));
}

/** Real sentences nearest to a place. */
export function neighbours(list) {
  if (!list?.length) return [];
  const rows = list.map((near) => el("li", {},
    el("div", {}, quote(near.text),
      el("span", { class: "tag", title: "distance in the latent space" }, number(near.distance)),
      near.label ? el("span", { class: "tag" }, near.label) : null),
    uses(near.text)));
  return [el("h2", {}, "Nearest real sentences ", el("small", {}, "distance in the latent space")),
    el("ol", { class: "sentences" }, ...rows)];
}
