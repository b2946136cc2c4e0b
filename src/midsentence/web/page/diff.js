// Which words of a sentence are new beside another: what is left of a longest common subsequence.

import { el } from "./dom.js";

const MOST = 300; // words; beyond it a sentence is shown as it is, the table would be too large

const words = (text) => text.split(/(\s+)/).filter((part) => part !== "");

/** [word or space, is it new] for each part of `text`. */
export function changes(before, text) {
  const parts = words(text);
  const old = words(before).filter((part) => part.trim());
  const fresh = parts.filter((part) => part.trim());
  if (old.length > MOST || fresh.length > MOST) return parts.map((part) => [part, false]);
  const wide = fresh.length + 1;
  const common = new Uint16Array((old.length + 1) * wide);
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      common[i * wide + j] = old[i] === fresh[j]
        ? common[(i + 1) * wide + j + 1] + 1
        : Math.max(common[(i + 1) * wide + j], common[i * wide + j + 1]);
    }
  }
  const kept = new Set();
  for (let i = 0, j = 0; i < old.length && j < fresh.length;) {
    if (old[i] === fresh[j]) { kept.add(j); i++; j++; }
    else if (common[(i + 1) * wide + j] >= common[i * wide + j + 1]) i++;
    else j++;
  }
  let j = -1;
  return parts.map((part) => {
    if (!part.trim()) return [part, false];
    j += 1;
    return [part, !kept.has(j)];
  });
}

/** The sentence, its new words underlined. */
export function marked(before, text, className = "quote") {
  if (!text.trim()) return el("bdi", { class: `${className} none` }, "(an empty sentence)");
  const parts = changes(before, text).map(([part, isNew]) => (isNew ? el("ins", {}, part) : part));
  return el("bdi", { class: className, dir: "auto" }, ...parts);
}
