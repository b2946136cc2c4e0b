// Two small charts in SVG. They are drawn at the size of their place, so letters keep theirs.

import { el, svg } from "./dom.js";

const LEFT = 44, RIGHT = 10, TOP = 8, BOTTOM = 22;

const brief = (value) => {
  const size = Math.abs(value);
  if (size >= 10_000) return `${Number((value / 1000).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
};

/** Round numbers that span low..high. */
function ticks(low, high, about = 4) {
  const rough = (high - low) / about || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(v);
  return found;
}

/** series: [{name, points: [[x, y]], quiet}]. at: an x that is marked. pick: called with an x that
 * was clicked. none: what is said where there are no points. */
export function lines(place, series, { title, unit, along = "", height = 150, at = null, pick = null, none = "Nothing yet." } = {}) {
  const points = series.flatMap((s) => s.points).filter(([, y]) => Number.isFinite(y));
  const wide = Math.max(240, place.clientWidth || 380);
  const head = el("figcaption", {}, el("strong", {}, title), ` ${unit}`);
  if (!points.length) { place.replaceChildren(head, el("p", { class: "hint" }, none)); return; }
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const [x, y] of points) {
    x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y);
  }
  if (y1 === y0) { y0 -= 0.5; y1 += 0.5; }
  const room = (y1 - y0) * 0.08;
  y0 -= room; y1 += room;
  const px = (x) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (wide - LEFT - RIGHT);
  const py = (y) => TOP + ((y1 - y) / (y1 - y0)) * (height - TOP - BOTTOM);
  const said = `${title}, ${unit}: from ${brief(points[0][1])} to ${brief(points.at(-1)[1])}`;
  const root = svg("svg", { viewBox: `0 0 ${wide} ${height}`, width: wide, height, role: "img", "aria-label": said });
  for (const y of ticks(y0, y1)) {
    root.append(svg("line", { class: "grid", x1: LEFT, x2: wide - RIGHT, y1: py(y), y2: py(y) }),
      svg("text", { x: LEFT - 6, y: py(y) + 4, "text-anchor": "end" }, brief(y)));
  }
  root.append(svg("text", { x: LEFT, y: height - 5 }, brief(x0)),
    svg("text", { x: wide - RIGHT, y: height - 5, "text-anchor": "end" }, `${along} ${brief(x1)}`.trim()));
  for (const [i, one] of series.entries()) {
    const drawn = one.points.filter(([, y]) => Number.isFinite(y)).map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`);
    root.append(svg("polyline", { class: `series s${i}`, points: drawn.join(" ") }));
    if (drawn.length <= 24) {
      for (const pair of drawn) {
        const [cx, cy] = pair.split(",");
        root.append(svg("circle", { class: `dot s${i}`, cx, cy, r: 2.5 }));
      }
    }
  }
  const now = at === null ? null : points.find(([x]) => x === at);
  if (now) root.append(svg("circle", { class: "now", cx: px(now[0]), cy: py(now[1]), r: 6 }));
  if (pick) {
    root.classList.add("pickable");
    root.addEventListener("click", (event) => {
      const inside = event.clientX - root.getBoundingClientRect().left;
      pick(points.reduce((best, p) => (Math.abs(px(p[0]) - inside) < Math.abs(px(best[0]) - inside) ? p : best))[0]);
    });
  }
  const key = series.length > 1
    ? el("p", { class: "key" }, ...series.map((s, i) => el("span", { class: `s${i}` }, s.name))) : null;
  place.replaceChildren(head, ...(key ? [key] : []), root);
}

/** rows: [name, value], largest first as given. A table to those who cannot see it. */
export function bars(place, rows, { unit }) {
  const most = Math.max(1e-9, ...rows.map(([, value]) => value));
  const made = rows.map(([name, value]) => {
    const bar = el("span", { class: "bar" });
    bar.style.width = `${(100 * Math.max(0, value)) / most}%`;
    return el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "long" }, bar), el("td", {}, value.toFixed(2)));
  });
  place.replaceChildren(el("table", { class: "bars", "aria-label": `KL of each dimension, ${unit}` }, el("tbody", {}, ...made)));
}
