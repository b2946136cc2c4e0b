// Type a sentence: where it lies, what is kept of it, and which of its words are a surprise.

import { attempt, Line } from "./api.js";
import { bars } from "./chart.js";
import { corpus, row } from "./corpus.js";
import { by, el, number } from "./dom.js";
import { label } from "./point.js";
import { moveTo, on, set, state } from "./state.js";
import { large, neighbours } from "./written.js";

const FULL = 8; // nats at which the shading is darkest: one word in three thousand
const BARS = 20;
const line = new Line();

function shade(nats) {
  const share = Math.min(1, Math.max(0, nats / FULL));
  return `color-mix(in oklab, var(--heat) ${(10 + 55 * share).toFixed(0)}%, transparent)`; // more, and words on it are hard to read
}

function words(tokens) {
  // Some tokenizers' pieces bring their spaces along, others have none: then all are set apart.
  const spaced = tokens.some(({ token }) => /^\s/.test(token));
  return tokens.flatMap(({ token, nll }) => {
    const end = token === "</s>";
    const said = `${number(nll)} nats`;
    const node = el("span", { class: end ? "token end" : "token", title: end ? `end of the sentence: ${said}` : said, tabindex: "0",
      "aria-label": `${end ? "end of the sentence" : token}, ${said}` }, el("bdi", {}, end ? "end" : token.trim() || token));
    node.style.background = shade(nll);
    return spaced && !/^\s/.test(token) && !end ? [node] : [" ", node];
  });
}

function scale() {
  const steps = [0, 2, 4, 6, 8].map((nats) => {
    const step = el("span", {}, nats === FULL ? `${nats}+` : String(nats));
    step.style.background = shade(nats);
    return step;
  });
  by("read-scale").replaceChildren(...steps, " nats; 0 is certain, 8 is one word in three thousand");
}

async function read() {
  const text = state.read;
  const found = await line.instead("v1/read", { text, ...label() });
  if (!found) return;
  by("read-hint").hidden = true;
  by("read-found").hidden = false;
  by("read-written").replaceChildren(large(found.reconstruction, text));
  const count = found.tokens.length;
  by("read-total").textContent = `${number(found.nll)} nats, ${number(found.nll / count)} nats a token`;
  by("read-tokens").replaceChildren(...words(found.tokens));
  scale();
  divergences(found.kl);
  by("read-near").replaceChildren(...neighbours(found.neighbours));
  moveTo(found.mean, text, "read", place(found));
}

function divergences(kl) {
  if (!kl.every(Number.isFinite)) {
    by("read-kl").textContent = "KL, – nats in all";
    by("read-bars").replaceChildren(el("p", { class: "hint" }, "Not available: this prior has no likelihood."));
    return;
  }
  const total = kl.reduce((sum, value) => sum + value, 0);
  by("read-kl").textContent = `KL, ${number(total)} nats in all`;
  if (kl.length === 1) {
    by("read-bars").replaceChildren(el("p", { class: "hint" }, "This posterior has one KL for all dimensions."));
    return;
  }
  const rows = kl.map((value, d) => [`${d}`, value]).sort((p, q) => q[1] - p[1]);
  bars(by("read-bars"), rows.slice(0, BARS), { unit: "nats" });
  const rest = rows.slice(BARS);
  if (!rest.length) return;
  const left = rest.reduce((sum, [, value]) => sum + value, 0);
  by("read-bars").append(el("p", { class: "hint" }, `and ${rest.length} more with ${number(left)} nats together`));
}

/** On the map: exactly in the PCA view; in another, where the sentence or the nearest one lies. */
function place(found) {
  if (state.view === "pca") return typeof found.x === "number" ? [found.x, found.y] : null;
  const near = row(state.read) >= 0 ? row(state.read) : row(found.neighbours?.[0]?.text ?? "");
  const there = corpus.views[state.view];
  return near >= 0 && there ? [there[0][near], there[1][near]] : null;
}

export function start() {
  by("read-form").addEventListener("submit", (event) => {
    event.preventDefault();
    set({ read: by("read-text").value });
    attempt(read);
  });
  const clear = () => {
    line.drop();
    by("read-found").hidden = true;
  };
  on("relabelled", () => { if (state.tab === "read" && state.read) attempt(read); else clear(); });
  on("renewed", clear);
  on("restored", () => {
    by("read-text").value = state.read;
    clear();
    if (state.tab === "read" && state.read) attempt(read);
  });
}
