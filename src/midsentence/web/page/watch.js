// A training watched: its curves, what it writes by now, and the map as it forms.

import { attempt, BEHIND, Line } from "./api.js";
import { lines } from "./chart.js";
import { by, el, quote, whole } from "./dom.js";

const EVERY = 2000, RARELY = 10_000; // while nothing is trained: it may begin, or be gone on with
const LOOKS = 20; // for the map of a new model, which is served some time after its record is written
const CURVES = [
  ["objective", "Objective", "nats a sentence"], ["elbo", "ELBO", "nats a sentence"],
  ["kl", "KL", "nats a sentence"], ["beta", "β", "weight of the KL"],
];
const line = new Line();
let records = [], next = 0, looks = LOOKS, charts = null, renew = null, timer = 0;

const series = (kind, name) => records.filter((r) => r.kind === kind && Number.isFinite(r[name])).map((r) => [r.step, r[name]]);

function draw() {
  charts ??= CURVES.map(() => el("figure"));
  if (!by("watch-charts").children.length) by("watch-charts").append(...charts);
  CURVES.forEach(([name, title, unit], i) => {
    const all = [{ name: "training", points: series("train", name) }, { name: "validation", points: series("valid", name) }];
    lines(charts[i], all.filter((s) => s.points.length), { title, unit, along: "step", height: 130 });
  });
}

function about(running) {
  const last = records.at(-1);
  if (!last) {
    by("watch-about").textContent = running ? "Training has begun; the first record is yet to come."
      : "Nothing is being trained here yet. This page follows it once it begins.";
    return;
  }
  const share = Math.round(100 * (last.progress ?? 0));
  by("watch-about").textContent = `${running ? "Training" : "Not training now"}: step ${whole(last.step)}, `
    + `${share} % done, ${Math.round(last.seconds ?? 0)} seconds.`;
}

async function poll() {
  let wait = EVERY;
  try {
    const found = await line.instead(`v1/watch?after=${next}`);
    if (!found) return;
    if (found.next < next) { // gone on with from before its last records, or begun anew
      records = [];
      next = 0;
      return;
    }
    const fresh = found.records, running = found.running !== false;
    records.push(...fresh);
    next = found.next;
    if (!running) wait = RARELY;
    about(running);
    if (fresh.length && !by("watch").hidden) draw();
    if (found.samples?.length) {
      by("watch-samples").replaceChildren(el("h2", {}, "Written by it now"),
        el("ol", { class: "sentences" }, ...found.samples.map((one) => el("li", {}, quote(typeof one === "string" ? one : one.text)))));
    }
    if (fresh.some((r) => r.kind === "valid")) looks = LOOKS;
    looks = looks > 0 && (await renew()) ? 0 : looks - 1;
  } catch (error) {
    if (error.status === 503) return; // one model gives way to the next
    wait = RARELY; // what is wrong may pass; the button of the status line doesn't wait
    throw error;
  } finally {
    clearTimeout(timer);
    timer = setTimeout(() => attempt(poll, BEHIND), wait);
  }
}

/** renewed: fetches model and map again, and says whether they are others. */
export function start(renewed) {
  renew = renewed;
  by("tab-watch").hidden = false;
  by("tab-watch").addEventListener("click", draw);
  attempt(poll);
}
